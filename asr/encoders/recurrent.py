"""Recurrent encoder: stacked SimpleRNN, LSTM or GRU layers, optionally bidirectional."""

import keras
from keras import ops

from asr.encoders.recurrence import lstm
from asr.encoders.subsampling import StackFrames, mask_padding

CELLS = {"simple": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}


def reverse_valid(x, lengths):
    """x [batch, steps, width] with each utterance's valid steps reversed; padding stays at the end."""
    steps = ops.arange(ops.shape(x)[1])[None, :]
    lengths = ops.cast(lengths, "int32")[:, None]
    index = ops.where(steps < lengths, lengths - 1 - steps, steps)
    return ops.take_along_axis(x, index[:, :, None], axis=1)


def _stock_is_fast() -> bool:
    """On a GPU, TensorFlow and PyTorch run stock layers by cuDNN."""
    # Not list_devices("gpu"): JAX raises if there is none.
    on_gpu = any("gpu" in device for device in keras.distribution.list_devices())
    return on_gpu and keras.backend.backend() != "jax"


def _run_lstms(layers, inputs):
    """Outputs of stock LSTM layers, each on an input of its own, in one loop over time."""
    projected = []
    for layer, x in zip(layers, inputs, strict=True):
        x = ops.matmul(ops.transpose(ops.cast(x, layer.compute_dtype), (1, 0, 2)), layer.cell.kernel)
        projected.append(x + layer.cell.bias)
    recurrent = ops.stack([ops.cast(layer.cell.recurrent_kernel, layer.compute_dtype) for layer in layers])
    hidden = lstm(ops.stack(projected, axis=1), recurrent)
    return [ops.transpose(hidden[:, i], (1, 0, 2)) for i in range(len(layers))]


class RecurrentEncoder(keras.layers.Layer):
    """Stacked recurrent layers, optionally bidirectional.

    The weights are those of stock Keras layers. No mask is needed: the forward layer reaches the padding
    last, and the backward layer reads each utterance reversed within its own length. Both directions
    of an LSTM run in one loop (`asr.encoders.recurrence`), unless stock layers are faster.

    Args:
      width: cells per direction.
      layers: number of stacked layers.
      cell: "simple", "lstm" or "gru".
      bidirectional: also run from the last valid step to the first, and concatenate.
      stack: frames concatenated into one step at the input: 1, 2, 4 or 8.
      dropout: rate on each layer's input.

    Call with x [batch, steps, features] and lengths [batch]; returns x [batch, steps', width or 2 × width]
    and lengths in steps'.
    """

    def __init__(
        self,
        width: int = 320,
        layers: int = 2,
        cell: str = "lstm",
        bidirectional: bool = True,
        stack: int = 1,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if cell not in CELLS:
            raise ValueError(f"cell is {cell!r}: use one of {', '.join(CELLS)}")
        self.width = width
        self.layers = layers
        self.cell = cell
        self.bidirectional = bidirectional
        self.subsampling = stack
        policy = self.dtype_policy
        self.stacking = StackFrames(stack, dtype=policy)
        self.drop = keras.layers.Dropout(dropout, dtype=policy)

        def recurrences(direction):
            return [
                CELLS[cell](width, return_sequences=True, dtype=policy, name=f"{direction}_{i}")
                for i in range(layers)
            ]

        self.forwards = recurrences("forward")
        self.backwards = recurrences("backward") if bidirectional else []

    def build(self, x_shape, lengths_shape=None):
        channels = x_shape[-1] * self.subsampling
        for i in range(self.layers):
            self.forwards[i].build((None, None, channels))
            if self.bidirectional:
                self.backwards[i].build((None, None, channels))
            channels = self.width * (1 + self.bidirectional)

    def call(self, x, lengths, training=False):
        x, lengths = self.stacking(x, lengths)
        for i in range(self.layers):
            x = self.drop(x, training=training)
            directions = [x, reverse_valid(x, lengths)] if self.bidirectional else [x]
            recurrences = [self.forwards[i], self.backwards[i]] if self.bidirectional else [self.forwards[i]]
            if self.cell == "lstm" and not _stock_is_fast():
                outputs = _run_lstms(recurrences, directions)
            else:
                outputs = [layer(x) for layer, x in zip(recurrences, directions, strict=True)]
            if self.bidirectional:
                outputs[1] = reverse_valid(outputs[1], lengths)
            x = mask_padding(ops.concatenate(outputs, axis=-1), lengths)
        return x, lengths
