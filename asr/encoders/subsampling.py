"""Subsampling of frames to steps, and the lengths that result.

Every halving rounds up, (length + 1) // 2, so that an odd last frame is kept.
"""

import math

import keras
from keras import ops


def halved(lengths, times: int = 1):
    """Lengths after `times` halvings; for integers, arrays and tensors."""
    for _ in range(times):
        lengths = (lengths + 1) // 2
    return lengths


def valid_steps(steps: int, lengths):
    """Bool [batch, steps], True in the steps before each utterance's end; lengths: [batch] int."""
    return ops.arange(steps)[None, :] < ops.cast(lengths, "int32")[:, None]


def mask_padding(x, lengths):
    """x [batch, steps, width] with zeros after each utterance's end."""
    return ops.where(valid_steps(ops.shape(x)[1], lengths)[:, :, None], x, ops.zeros_like(x))


def gelu(x):
    """Exact GELU (Hendrycks & Gimpel 2016)."""
    return 0.5 * x * (1.0 + ops.erf(x / math.sqrt(2)))


def _halvings(factor: int) -> int:
    if factor not in (1, 2, 4, 8):
        raise ValueError(f"subsampling by {factor}: use 1, 2, 4 or 8")
    return factor.bit_length() - 1


class Composite(keras.layers.Layer):
    """A layer made of layers, each of which builds itself when it is first called."""

    def build(self, x_shape=None):  # without this, Keras traces the call once for every level of nesting
        pass


class ConvSubsampling(Composite):
    """Convolutions with kernel size 3 and GELU: the first with stride 1, each further one with stride 2.

    With factor 2 this is the stem of Whisper's encoder (Radford et al. 2022, arXiv:2212.04356).

    Args:
      width: channels of every convolution.
      factor: 1, 2, 4 or 8.

    Call with x [batch, frames, features] and lengths [batch]; returns x [batch, steps, width] and lengths.
    """

    def __init__(self, width: int, factor: int = 4, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.factor = factor
        self.halvings = _halvings(factor)
        self.convolutions = [
            keras.layers.Conv1D(
                width, 3, strides=1 if i == 0 else 2, dtype=self.dtype_policy, name=f"conv_{i}"
            )
            for i in range(1 + self.halvings)
        ]

    def call(self, x, lengths):
        for i, convolution in enumerate(self.convolutions):
            x = mask_padding(x, lengths)
            # "same" padding would depend on whether the batch length is odd or even.
            x = convolution(ops.pad(x, [[0, 0], [1, 1], [0, 0]]))
            x = gelu(x)
            if i > 0:
                lengths = halved(lengths)
        return mask_padding(x, lengths), lengths


class StackFrames(keras.layers.Layer):
    """Concatenates every `factor` consecutive frames into one step; has no weights.

    Call with x [batch, frames, width] and lengths [batch]; returns x [batch, steps, factor × width] and
    lengths.
    """

    def __init__(self, factor: int = 2, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor
        self.halvings = _halvings(factor)

    def call(self, x, lengths):
        x = mask_padding(x, lengths)
        batch, frames, width = ops.shape(x)
        steps = halved(frames, self.halvings)
        x = ops.pad(x, [[0, 0], [0, steps * self.factor - frames], [0, 0]])
        return ops.reshape(x, (batch, steps, self.factor * width)), halved(lengths, self.halvings)
