"""The network: samples → log-mel → encoders → a score for every unit at every step."""

import math

import keras
from keras import ops

from asr.encoders import build_encoder
from asr.features import FRAME_SECONDS, HOP_SAMPLES, LogMel


class CTCModel(keras.Model):
    """Log-mel features, a stack of encoders and a linear CTC head.

        CTCModel(units=29, features={"mels": 80}, encoders=[{"type": "recurrent", "width": 320, "stack": 4}])

    Args:
      units: number of output units, the blank (id 0) included.
      encoders: descriptions of the encoders, from the features up; see `asr.encoders.build_encoder`.
      features: options of `LogMel`, or None where the inputs are features already.

    Call with {"inputs": samples [batch, samples] or features [batch, frames, width], "lengths": [batch]}.
    Returns {"logits": float32 [batch, steps, units], "lengths": int32 [batch] in steps}.
    """

    def __init__(self, units, encoders, features=None):
        super().__init__(name="ctc")
        self.descriptions = [dict(encoder) for encoder in encoders]
        self.feature_options = None if features is None else dict(features)
        self.features = None if features is None else LogMel(**features, name="features")
        self.encoders = [build_encoder(encoder, f"encoder_{i}") for i, encoder in enumerate(encoders)]
        self.output_layer = keras.layers.Dense(units, dtype="float32", name="output")

    @property
    def subsampling(self) -> int:
        """Input frames a step."""
        return math.prod(encoder.subsampling for encoder in self.encoders)

    @property
    def step_seconds(self) -> float:
        """Length of a step, for a model that reads samples."""
        return FRAME_SECONDS * self.subsampling

    def build(self, input_shape=None):
        pass  # as in `Composite`

    def build_for(self, width: int | None = None) -> "CTCModel":
        """Creates the weights, for samples or for features of a `width`. Returns the model itself."""
        shape = (1, HOP_SAMPLES) if width is None else (1, 1, width)
        self({"inputs": ops.zeros(shape), "lengths": ops.full((1,), shape[1], dtype="int32")})
        return self

    def read(self, x, lengths):
        """Features [batch, frames, width] of samples, and their lengths; features stay as they are."""
        return (x, lengths) if self.features is None else self.features(x, lengths)

    def encode(self, x, lengths, encoders=slice(None), training=False):
        """Outputs [batch, steps, width] of some of the encoders, and their lengths [batch] in steps.

        Args:
          x: what the first of them takes: features, or outputs of the encoder before it.
          encoders: a slice of the stack.
        """
        for encoder in self.encoders[encoders]:
            x, lengths = encoder(x, lengths, training=training)
        return x, ops.cast(lengths, "int32")

    def call(self, inputs, training=False):
        x, lengths = self.read(inputs["inputs"], inputs["lengths"])
        encoded, lengths = self.encode(x, lengths, training=training)
        return {"logits": self.output_layer(encoded), "lengths": lengths}

    def log_probs(self, inputs):
        """As `call`, with the units' log-probabilities in place of the logits."""
        outputs = self(inputs)
        return {"log_probs": ops.log_softmax(outputs["logits"], axis=-1), "lengths": outputs["lengths"]}
