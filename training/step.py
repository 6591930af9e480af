"""The training step: a network, its augmentation, and the objectives that it is trained for."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from asr.model import SpeechModel
from training.objectives import Objective
from training.spec_augment import SpecAugment


class TrainingStep(keras.Model):
    """A network as `fit` trains it; its loss is the weighted sum of the objectives.

    Args:
      network: built.
      objectives: the parts of the loss.
      spec_augment: options of `SpecAugment`, or None for no masks.
      dropout: fraction of the last encoder's outputs dropped.
      frozen_encoders: the first n encoders are not trained, and the inputs are their outputs.

    Call with {"inputs": samples [batch, samples], or the frozen encoders' outputs, "lengths": [batch]}, and
    for the decoder the right "tokens" [batch, tokens]. While training, the outputs hold as many views of the
    batch, one behind the other, as the objectives need.
    """

    def __init__(
        self,
        network: SpeechModel,
        objectives: Sequence[Objective],
        spec_augment: dict | None = None,
        dropout: float = 0.0,
        frozen_encoders: int = 0,
    ):
        super().__init__(name="step")
        self.network, self.objectives = network, objectives
        self.objective_metrics = [metric for objective in objectives for metric in objective.metrics]
        self.views = max(objective.views for objective in objectives)
        self.spec_augment = None if spec_augment is None else SpecAugment(**spec_augment)
        self.drop = keras.layers.Dropout(dropout)
        self.frozen_encoders = frozen_encoders
        for encoder in network.encoders[:frozen_encoders]:
            encoder.trainable = False
        self.built = True

    def call(self, inputs, training=False):
        x, lengths = inputs["inputs"], inputs["lengths"]
        if not self.frozen_encoders:
            x, lengths = self.network.read(x, lengths)
        if training:
            x, lengths = repeat(x, self.views), repeat(lengths, self.views)
            if self.spec_augment is not None:
                x = self.spec_augment(x, lengths)
        outputs = self.network.heads(
            x, lengths, self.frozen_encoders, training, drop=lambda x: self.drop(x, training=training)
        )
        if "tokens" in inputs:
            tokens = repeat(inputs["tokens"], self.views if training else 1)
            encoded = outputs["encoded"], outputs["encoded_lengths"]
            outputs["token_logits"] = self.network.decoder(tokens[:, :-1], *encoded, training=training)
        return outputs

    def targets(self, utterance: int, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """What all objectives compare an utterance with; see `Objective.targets`."""
        parts = [objective.targets(utterance, inputs) for objective in self.objectives]
        return {name: array for part in parts for name, array in part.items()}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The weighted sum of the objectives' means over the batch.

        Infinite losses are left out, and rows whose "weights" in the targets are 0.
        """
        targets = {name: repeat(values, self.views) for name, values in y.items()}
        total = 0.0
        for objective in self.objectives:
            losses = objective.losses(y_pred, targets)
            counted = ops.logical_not(ops.isinf(losses))  # NaN counts: it must end the run
            if "weights" in targets:
                counted = ops.logical_and(counted, targets["weights"] > 0)
            losses = ops.where(counted, losses, ops.zeros_like(losses))
            mean = ops.sum(losses) / ops.maximum(ops.sum(ops.cast(counted, losses.dtype)), 1.0)
            objective.metrics[0].update_state(mean)
            total += objective.weight * mean
        return total

    def get_metrics_result(self):
        """The loss in the logs is the sum of its parts. Keras' own weights a batch by all its rows."""
        parts = [objective.weight * objective.metrics[0].result() for objective in self.objectives]
        return {**super().get_metrics_result(), "loss": sum(parts)}


def repeat(values, times: int):
    """[times × batch, ...]: the batch, one copy behind the other."""
    return values if times == 1 else ops.concatenate([values] * times)
