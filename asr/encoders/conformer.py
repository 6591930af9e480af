"""Conformer encoder: self-attention for global context, convolution for local context."""

import keras
from keras import ops

from asr.encoders.subsampling import Composite, ConvSubsampling, mask_padding
from asr.encoders.transformer import SelfAttention, layer_norm, sinusoids


class FeedForward(Composite):
    """LayerNorm, expansion, Swish, projection: one of the two feed-forward modules of a Conformer block.

    Call with x [..., width]; returns the same shape.
    """

    def __init__(self, width: int, hidden: int, **kwargs):
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.norm = layer_norm("norm", policy)
        self.expand = keras.layers.Dense(hidden, activation="silu", dtype=policy, name="expand")
        self.contract = keras.layers.Dense(width, dtype=policy, name="contract")

    def call(self, x):
        return self.contract(self.expand(self.norm(x)))


class ConvolutionModule(Composite):
    """LayerNorm, GLU, depthwise convolution over time, LayerNorm, Swish, projection (figure 2 of the paper).

    The paper's BatchNorm is a LayerNorm here, since batch statistics would include padding.
    Raises ValueError for an even kernel.

    Call with x [batch, steps, width] and lengths [batch]; returns [batch, steps, width].
    """

    def __init__(self, width: int, kernel: int, **kwargs):
        super().__init__(**kwargs)
        if kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}: use an odd number of steps, so that it has a centre")
        policy = self.dtype_policy
        self.norm = layer_norm("norm", policy)
        self.gated = keras.layers.Dense(2 * width, dtype=policy, name="gated")
        self.depthwise = keras.layers.DepthwiseConv1D(kernel, padding="same", dtype=policy, name="depthwise")
        self.depthwise_norm = layer_norm("depthwise_norm", policy)
        self.project = keras.layers.Dense(width, dtype=policy, name="project")

    def call(self, x, lengths):
        value, gate = ops.split(self.gated(self.norm(x)), 2, axis=-1)
        x = mask_padding(value * ops.sigmoid(gate), lengths)  # the convolution reaches into the padding
        x = ops.silu(self.depthwise_norm(self.depthwise(x)))
        return self.project(x)


class ConformerBlock(Composite):
    """x + ½ feed-forward, + self-attention, + convolution, + ½ feed-forward; then LayerNorm.

    Call with x [batch, steps, width] and lengths [batch]; returns [batch, steps, width].
    """

    def __init__(self, width: int, heads: int, hidden: int, kernel: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.first = FeedForward(width, hidden, dtype=policy, name="first")
        self.attention_norm = layer_norm("attention_norm", policy)
        self.attention = SelfAttention(width, heads, dtype=policy, name="attention")
        self.convolution = ConvolutionModule(width, kernel, dtype=policy, name="convolution")
        self.second = FeedForward(width, hidden, dtype=policy, name="second")
        self.norm = layer_norm("norm", policy)
        self.drop = keras.layers.Dropout(dropout, dtype=policy)

    def call(self, x, lengths, training=False):
        x = x + 0.5 * self.drop(self.first(x), training=training)
        x = x + self.drop(self.attention(self.attention_norm(x), lengths), training=training)
        x = x + self.drop(self.convolution(x, lengths), training=training)
        x = x + 0.5 * self.drop(self.second(x), training=training)
        return self.norm(x)


class ConformerEncoder(Composite):
    """Convolutional subsampling and Conformer blocks (Gulati et al. 2020, arXiv:2005.08100).

    Differs from the paper in two ways: position embeddings are absolute sinusoids, not relative, and the
    convolution modules use LayerNorm, so that padding changes nothing.

    Args:
      width: of the residual stream.
      layers: number of blocks.
      heads: attention heads; divides width.
      hidden: width of the feed-forward layers; 4 × width if None.
      kernel: width of the depthwise convolutions in steps; odd.
      subsampling: frames per step: 1, 2, 4 or 8.
      dropout: rate on the output of each of a block's four modules.

    Call with x [batch, frames, features] and lengths [batch]; returns x [batch, steps, width] and lengths.
    """

    def __init__(
        self,
        width: int = 144,
        layers: int = 16,
        heads: int = 4,
        hidden: int | None = None,
        kernel: int = 31,
        subsampling: int = 4,
        dropout: float = 0.1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.width = width
        self.subsampling = subsampling
        policy = self.dtype_policy
        self.convolutions = ConvSubsampling(width, subsampling, dtype=policy, name="stem")
        sizes = (width, heads, hidden or 4 * width, kernel, dropout)
        self.blocks = [ConformerBlock(*sizes, dtype=policy, name=f"block_{i}") for i in range(layers)]

    def call(self, x, lengths, training=False):
        x, lengths = self.convolutions(x, lengths)
        x = x + ops.cast(sinusoids(ops.shape(x)[1], self.width), x.dtype)
        for block in self.blocks:
            x = block(x, lengths, training=training)
        return mask_padding(x, lengths), lengths
