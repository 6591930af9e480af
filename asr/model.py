"""CTCModel: samples → log-mel → encoders → a score for every unit at every step."""

import keras
from keras import ops

from asr.ctc import ctc_loss
from asr.encoders import build_encoder
from asr.encoders.subsampling import mask_padding
from asr.features import FRAME_SECONDS, LogMel, SpecAugment


@keras.saving.register_keras_serializable("hark")
class CTCModel(keras.Model):
    """An acoustic model trained with CTC.

    It is given by plain descriptions, which are also what a bundle's model.json holds:

        CTCModel(units=29, features={"mels": 80}, encoders=[{"type": "recurrent", "width": 320, "stack": 4}])

    Args:
      units: number of output units, the blank (id 0) included.
      encoders: descriptions of the encoders, from the features up; see `asr.encoders.build_encoder`.
      features: options of `LogMel`, or None where the inputs are features already.
      spec_augment: options of `SpecAugment`, or None for no masking; used in training only.
      dropout: share of the last encoder's outputs dropped while training.

    Setting `cached_encoders` to n makes the model go on from the outputs of its first n encoders: the inputs
    are then what `encode` returned, computed once. Training on top of frozen encoders does so.

    `teacher_share` is the share of a teacher in the loss of the utterances for which the batches have its
    "targets".

    Where `consistency` is above 0, training reads each utterance twice, under two draws of masks and dropout,
    and each reading learns from the other with that weight (CR-CTC, Yao et al. 2025). The outputs then hold
    the batch twice, one copy behind the other.

    Call with {"inputs": samples [batch, samples] or features [batch, frames, width], "lengths": [batch]}.
    Returns {"logits": float32 [batch, steps, units], "lengths": int32 [batch] in steps}.
    """

    def __init__(self, units, encoders, features=None, spec_augment=None, dropout=0.0, name="ctc", **kwargs):
        super().__init__(name=name, **kwargs)
        self.units = units
        self.descriptions = [dict(encoder) for encoder in encoders]
        self.feature_options = None if features is None else dict(features)
        self.spec_augment_options = None if spec_augment is None else dict(spec_augment)
        self.dropout = dropout
        self.features = None if features is None else LogMel(**features, name="features")
        self.spec_augment = None if spec_augment is None else SpecAugment(**spec_augment, name="spec_augment")
        self.encoders = [build_encoder(encoder, f"encoder_{i}") for i, encoder in enumerate(encoders)]
        self.drop = keras.layers.Dropout(dropout)
        self.output_layer = keras.layers.Dense(units, dtype="float32", name="output")
        self.unaligned = keras.metrics.Sum(name="unaligned")
        self.cached_encoders = 0
        self.teacher_share = 0.0
        self.consistency = 0.0

    @property
    def subsampling(self) -> int:
        """Input frames a step."""
        factor = 1
        for encoder in self.encoders:
            factor *= encoder.subsampling
        return factor

    @property
    def step_seconds(self) -> float:
        """Length of a step, for a model that reads samples."""
        return FRAME_SECONDS * self.subsampling

    def build(self, input_shape):
        shape = input_shape["inputs"]
        if self.features is not None:
            shape, _ = self.features.compute_output_shape(shape)
        for encoder in self.encoders:
            encoder.build(shape)
            shape, _ = encoder.compute_output_shape(shape)
        self.output_layer.build(shape)

    def build_for(self, width: int | None = None) -> "CTCModel":
        """Creates the weights, for samples or for features of a `width`. Returns the model itself."""
        self.build({"inputs": (None, None) if width is None else (None, None, width), "lengths": (None,)})
        return self

    def encode(self, inputs, encoders: int):
        """Outputs [batch, steps, width] of the first `encoders` encoders and their lengths, not augmented."""
        x, lengths = inputs["inputs"], inputs["lengths"]
        if self.features is not None:
            x, lengths = self.features(x, lengths)
        for encoder in self.encoders[:encoders]:
            x, lengths = encoder(x, lengths)
        return x, lengths

    def call(self, inputs, training=False):
        x, lengths = inputs["inputs"], inputs["lengths"]
        if self.features is not None and not self.cached_encoders:
            x, lengths = self.features(x, lengths)
        if training and self.consistency:
            x, lengths = twice(x), twice(lengths)
        if self.spec_augment is not None:
            x = self.spec_augment(x, lengths, training=training)
        for encoder in self.encoders[self.cached_encoders :]:
            x, lengths = encoder(x, lengths, training=training)
        x = self.drop(x, training=training)
        return {"logits": self.output_layer(x), "lengths": ops.cast(lengths, "int32")}

    def log_probs(self, inputs):
        """As `call`, with the units' log-probabilities in place of the logits."""
        outputs = self(inputs)
        return {"log_probs": ops.log_softmax(outputs["logits"], axis=-1), "lengths": outputs["lengths"]}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean CTC loss over the utterances that can be aligned; the others are counted in `unaligned`."""
        readings = 2 if training and self.consistency else 1
        if readings == 2:
            y = {name: twice(values) for name, values in y.items()}
        losses = ctc_loss(y_pred["logits"], y_pred["lengths"], y["labels"], y["label_lengths"])
        aligned = ops.isfinite(losses)
        self.unaligned.update_state(ops.cast(ops.logical_not(aligned), "float32") / readings)
        if "targets" in y:
            soft = soft_losses(y_pred["logits"], y["targets"])
            taught = ops.cast(ops.any(y["targets"] > 0, axis=(1, 2)), losses.dtype)
            share = self.teacher_share * taught
            losses = (1 - share) * losses + share * soft
        if readings == 2:
            losses += self.consistency * consistency_losses(y_pred["logits"], y_pred["lengths"])
        total = ops.sum(ops.where(aligned, losses, ops.zeros_like(losses)))
        return total / ops.maximum(ops.sum(ops.cast(aligned, losses.dtype)), 1.0)

    def get_config(self):
        return {
            "units": self.units,
            "encoders": self.descriptions,
            "features": self.feature_options,
            "spec_augment": self.spec_augment_options,
            "dropout": self.dropout,
            "name": self.name,
        }


def soft_losses(logits, targets):
    """Cross-entropy with a teacher's probabilities, summed over the steps; [batch].

    Args:
      logits: [batch, steps, units].
      targets: [batch, teacher's steps, units]; steps that one of both lacks count nothing, padding neither.
    """
    # Not up to their minimum: on JAX, compiled, that is no plain number.
    targets = targets[:, : ops.shape(logits)[1]]
    logits = logits[:, : ops.shape(targets)[1]]
    return -ops.sum(targets * ops.log_softmax(ops.cast(logits, "float32"), axis=-1), axis=(1, 2))


def consistency_losses(logits, lengths):
    """How far each reading of an utterance is from the other one, of which it learns; [batch].

    The Kullback-Leibler divergence from the other reading's units, which get no gradient, summed over the
    steps: "CR-CTC: Consistency regularization on CTC for improved speech recognition" (Yao et al. 2025).

    Args:
      logits: [batch, steps, units], the second half of the batch the same utterances as the first.
      lengths: [batch] in steps; beyond them nothing counts.
    """
    log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    others = ops.stop_gradient(ops.concatenate(ops.split(log_probs, 2)[::-1]))
    divergences = mask_padding(ops.exp(others) * (others - log_probs), lengths)
    return ops.sum(divergences, axis=(1, 2))


def twice(values):
    """[2 × batch, ...]: a batch and the same again."""
    return ops.concatenate([values, values])
