"""The network: samples → log-mel → encoders → a score for every unit at every step, and a decoder of text."""

import math

import keras
from keras import ops

from asr.decoders import build_decoder
from asr.encoders import build_encoder
from asr.features import FRAME_SECONDS, HOP_SAMPLES, LogMel


class SpeechModel(keras.Model):
    """Log-mel features and a stack of encoders with a linear CTC head, an attention decoder, or both.

        SpeechModel(29, [{"type": "recurrent", "width": 320, "stack": 4}], features={"mels": 80})

    Args:
      units: number of the CTC head's units, the blank (id 0) included; None for no head.
      encoders: descriptions of the encoders, from the features up; see `asr.encoders.build_encoder`.
      features: options of `LogMel`, or None where the inputs are features already.
      decoder: description of the decoder, see `asr.decoders.build_decoder`. Its "encoders" are how many of
        the stack are below it; default: all.

    Call with {"inputs": samples [batch, samples] or features [batch, frames, width], "lengths": [batch]}, and
    for the decoder "tokens" [batch, tokens]. Returns, of the CTC head,
      {"logits": float32 [batch, steps, units], "lengths": int32 [batch] in steps},
    of the encoders below the decoder
      {"encoded": [batch, steps, width], "encoded_lengths": int32 [batch]},
    and of the decoder {"token_logits": float32 [batch, tokens, vocabulary]}, of the token after each.
    """

    def __init__(self, units, encoders, features=None, decoder=None):
        super().__init__(name="speech")
        self.descriptions = [dict(encoder) for encoder in encoders]
        self.feature_options = None if features is None else dict(features)
        self.decoder_description = None if decoder is None else dict(decoder)
        self.features = None if features is None else LogMel(**features, name="features")
        self.encoders = [build_encoder(encoder, f"encoder_{i}") for i, encoder in enumerate(encoders)]
        self.output_layer = (
            None if units is None else keras.layers.Dense(units, dtype="float32", name="output")
        )
        self.decoder = None
        if decoder is not None:
            options = dict(decoder)
            self.below_decoder = options.pop("encoders", len(encoders))
            if self.below_decoder not in range(1, len(encoders) + 1):
                raise ValueError(f"decoder encoders: {self.below_decoder} of the {len(encoders)} encoders")
            self.decoder = build_decoder(options, "decoder")

    @property
    def subsampling(self) -> int:
        """Input frames a step."""
        return math.prod(encoder.subsampling for encoder in self.encoders)

    @property
    def step_seconds(self) -> float:
        """Length of a step of the whole stack, for a model that reads samples."""
        return FRAME_SECONDS * self.subsampling

    def build(self, input_shape=None):
        """Does nothing, or Keras would trace the call; `build_for` creates the weights."""

    def build_for(self, width: int | None = None) -> "SpeechModel":
        """Creates the weights, for samples or for features of a `width`. Returns the model itself."""
        shape = (1, HOP_SAMPLES) if width is None else (1, 1, width)
        inputs = {"inputs": ops.zeros(shape), "lengths": ops.full((1,), shape[1], dtype="int32")}
        self(inputs if self.decoder is None else {**inputs, "tokens": ops.zeros((1, 1), "int32")})
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

    def heads(self, x, lengths, first=0, training=False, drop=lambda x: x):
        """What `call` returns without tokens, given what the encoder number `first` takes.

        Args:
          drop: of the last encoder's outputs, before the CTC head.
        """
        outputs = {}
        if self.decoder is not None:
            x, lengths = self.encode(x, lengths, slice(first, self.below_decoder), training)
            outputs |= {"encoded": x, "encoded_lengths": lengths}
            first = max(first, self.below_decoder)
        if self.output_layer is not None:
            x, lengths = self.encode(x, lengths, slice(first, None), training)
            outputs |= {"logits": self.output_layer(drop(x)), "lengths": lengths}
        return outputs

    def call(self, inputs, training=False):
        x, lengths = self.read(inputs["inputs"], inputs["lengths"])
        outputs = self.heads(x, lengths, training=training)
        if "tokens" in inputs:
            encoded = outputs["encoded"], outputs["encoded_lengths"]
            outputs["token_logits"] = self.decoder(inputs["tokens"], *encoded, training=training)
        return outputs

    def log_probs(self, inputs):
        """As `call`, with the units' log-probabilities in place of the logits."""
        outputs = self(inputs)
        if "logits" in outputs:
            outputs["log_probs"] = ops.log_softmax(outputs.pop("logits"), axis=-1)
        return outputs
