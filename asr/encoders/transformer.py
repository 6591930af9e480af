"""Pre-norm Transformer encoder, compatible with the weights of Whisper's encoder."""

import keras
import numpy as np
from keras import ops

from asr.encoders.subsampling import Composite, ConvSubsampling, gelu, mask_padding, valid_steps

LONGEST_PERIOD_STEPS = 10_000


def layer_norm(name: str, policy) -> keras.layers.LayerNormalization:
    """LayerNorm with Whisper's epsilon."""
    return keras.layers.LayerNormalization(epsilon=1e-5, dtype=policy, name=name)


def position_frequencies(width: int) -> np.ndarray:
    """Angles of `sinusoids` by which one step differs from the next: float32 [width / 2]."""
    half = width // 2
    return np.exp(-np.log(LONGEST_PERIOD_STEPS) / (half - 1) * np.arange(half)).astype("float32")


def sinusoids(steps, width: int):
    """Fixed position embeddings [steps, width]: sines, then cosines, as in Whisper's model.py."""
    angles = ops.cast(ops.arange(steps), "float32")[:, None] * position_frequencies(width)[None, :]
    return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=1)


class Attention(keras.layers.Layer):
    """Multi-head attention (Vaswani et al. 2017).

    The key projection has no bias, as in Whisper; the softmax would cancel it. `heads` must divide `width`.

    Call with x [batch, steps, width], keys and values [batch, others, width] as from `read`, and a mask that
    broadcasts to [batch, heads, steps, others], True where x may attend; returns [batch, steps, width].
    """

    def __init__(self, width: int, heads: int, **kwargs):
        super().__init__(**kwargs)
        if width % heads:
            raise ValueError(f"width {width} is no multiple of {heads} heads")
        self.width = width
        self.heads = heads

        def dense(name, bias=True):
            return keras.layers.Dense(width, use_bias=bias, dtype=self.dtype_policy, name=name)

        self.query, self.key, self.value = dense("query"), dense("key", bias=False), dense("value")
        self.out = dense("out")

    def build(self, *shapes):
        for layer in (self.query, self.key, self.value, self.out):
            layer.build((None, None, self.width))

    def read(self, x):
        """Keys and values of x [batch, steps, width], of the same shape each."""
        return self.key(x), self.value(x)

    def call(self, x, keys, values, mask):
        def split(y):  # [batch, steps, width] → [batch, steps, heads, width / heads]
            return ops.reshape(y, (ops.shape(x)[0], -1, self.heads, self.width // self.heads))

        # cuDNN's flash attention takes no such mask: Keras would try it, and warn at length for every layer.
        y = ops.dot_product_attention(
            split(self.query(x)), split(keys), split(values), mask=mask, flash_attention=False
        )
        return self.out(ops.reshape(y, ops.shape(x)))


class SelfAttention(Attention):
    """Attention of each step to all steps before the utterance's end.

    Call with x [batch, steps, width] and lengths [batch]; returns [batch, steps, width].
    """

    def call(self, x, lengths):
        mask = valid_steps(ops.shape(x)[1], lengths)[:, None, None, :]
        return super().call(x, *self.read(x), mask)


class TransformerBlock(Composite):
    """x + attention(norm(x)), then x + feed-forward(norm(x)).

    Call with x [batch, steps, width] and lengths [batch]; returns [batch, steps, width].
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.attention_norm = layer_norm("attention_norm", policy)
        self.attention = SelfAttention(width, heads, dtype=policy, name="attention")
        self.feed_forward_norm = layer_norm("feed_forward_norm", policy)
        self.expand = keras.layers.Dense(hidden, dtype=policy, name="expand")
        self.contract = keras.layers.Dense(width, dtype=policy, name="contract")
        self.drop = keras.layers.Dropout(dropout, dtype=policy)

    def call(self, x, lengths, training=False):
        x = x + self.drop(self.attention(self.attention_norm(x), lengths), training=training)
        y = gelu(self.expand(self.feed_forward_norm(x)))
        return x + self.drop(self.contract(y), training=training)


class TransformerEncoder(Composite):
    """Convolutional stem, sinusoidal positions, pre-norm blocks, final LayerNorm.

    `TransformerEncoder(width=384, layers=4, heads=6, subsampling=2)` is the encoder of Whisper tiny and takes
    its weights (training/import_whisper.py). Utterances keep their true length, where Whisper pads to 30 s;
    Whisper was not trained on positions after 30 s.

    Args:
      width: of the residual stream.
      layers: number of blocks.
      heads: attention heads; divides width.
      hidden: width of the feed-forward layers; 4 × width if None.
      subsampling: frames per step: 1, 2, 4 or 8.
      stem: False to continue another encoder of this width: no convolutions, no positions.
      final_norm: False if another encoder continues this one.
      dropout: rate on the outputs of attention and feed-forward.

    Call with x [batch, frames, features] and lengths [batch]; returns x [batch, steps, width] and lengths.
    """

    def __init__(
        self,
        width: int = 384,
        layers: int = 4,
        heads: int = 6,
        hidden: int | None = None,
        subsampling: int = 2,
        stem: bool = True,
        final_norm: bool = True,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not stem and subsampling != 1:
            raise ValueError(f"subsampling by {subsampling} needs the stem: use subsampling 1 or stem True")
        self.width = width
        self.subsampling = subsampling
        self.stem = stem
        self.final_norm = final_norm
        policy = self.dtype_policy
        if stem:
            self.convolutions = ConvSubsampling(width, subsampling, dtype=policy, name="stem")
        sizes = (width, heads, hidden or 4 * width, dropout)
        self.blocks = [TransformerBlock(*sizes, dtype=policy, name=f"block_{i}") for i in range(layers)]
        if final_norm:
            self.norm = layer_norm("norm", policy)

    def call(self, x, lengths, training=False):
        if self.stem:
            x, lengths = self.convolutions(x, lengths)
            x = x + ops.cast(sinusoids(ops.shape(x)[1], self.width), x.dtype)
        for block in self.blocks:
            x = block(x, lengths, training=training)
        if self.final_norm:
            x = self.norm(x)
        return mask_padding(x, lengths), lengths
