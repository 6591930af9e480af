"""Pre-norm Transformer decoder, compatible with the weights of Whisper's decoder."""

import keras
from keras import ops

from asr.encoders.subsampling import gelu, valid_steps
from asr.encoders.transformer import Attention, layer_norm


class DecoderBlock(keras.layers.Layer):
    """x + self-attention(norm(x)), then + cross-attention(norm(x)), then + feed-forward(norm(x)).

    Call with x [batch, tokens, width], its past and memory, each (keys, values), and their masks; returns
    x and the keys and values of its own tokens, [batch, tokens, width] each.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.width, self.hidden = width, hidden
        self.self_attention_norm = layer_norm("self_attention_norm", policy)
        self.self_attention = Attention(width, heads, dtype=policy, name="self_attention")
        self.cross_attention_norm = layer_norm("cross_attention_norm", policy)
        self.cross_attention = Attention(width, heads, dtype=policy, name="cross_attention")
        self.feed_forward_norm = layer_norm("feed_forward_norm", policy)
        self.expand = keras.layers.Dense(hidden, dtype=policy, name="expand")
        self.contract = keras.layers.Dense(width, dtype=policy, name="contract")
        self.drop = keras.layers.Dropout(dropout, dtype=policy)

    def build(self, *shapes):
        for norm in (self.self_attention_norm, self.cross_attention_norm, self.feed_forward_norm):
            norm.build((None, None, self.width))
        self.self_attention.build()
        self.cross_attention.build()
        self.expand.build((None, None, self.width))
        self.contract.build((None, None, self.hidden))

    def call(self, x, past, past_mask, memory, memory_mask, training=False):
        y = self.self_attention_norm(x)
        own = self.self_attention.read(y)
        keys, values = (ops.concatenate(parts, axis=1) for parts in zip(past, own, strict=True))
        y = self.self_attention(y, keys, values, past_mask)
        x = x + self.drop(y, training=training)
        y = self.cross_attention(self.cross_attention_norm(x), *memory, memory_mask)
        x = x + self.drop(y, training=training)
        y = gelu(self.expand(self.feed_forward_norm(x)))
        return x + self.drop(self.contract(y), training=training), own


class TransformerDecoder(keras.layers.Layer):
    """Token and position embeddings, pre-norm blocks, and scores of the next token by the same embeddings.

    `TransformerDecoder(vocabulary=51864, width=384, layers=4, heads=6)` is the decoder of Whisper tiny.en
    (Radford et al. 2022, arXiv:2212.04356) and takes its weights (training/import_whisper.py). The encoder's
    outputs, of any encoder of the same width, are attended to up to each utterance's end.

    Args:
      vocabulary: number of tokens.
      width: of the residual stream, and of the encoder's outputs.
      layers: number of blocks.
      heads: attention heads; divides width.
      hidden: width of the feed-forward layers; 4 × width if None.
      positions: most tokens of an utterance.
      dropout: rate on the outputs of attention and feed-forward.

    Call with tokens [batch, tokens], encoded [batch, steps, width] and lengths [batch] in steps; returns the
    logits of the token after each, float32 [batch, tokens, vocabulary].

    To write token by token, `memory` reads the encoder's outputs once, and `step` goes on from the tokens
    before it.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int = 384,
        layers: int = 4,
        heads: int = 6,
        hidden: int | None = None,
        positions: int = 448,
        dropout: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocabulary, self.width, self.heads, self.max_tokens = vocabulary, width, heads, positions
        self.parts = 2 * layers  # of memory and past
        policy = self.dtype_policy
        self.tokens = keras.layers.Embedding(vocabulary, width, dtype=policy, name="tokens")
        self.positions = keras.layers.Embedding(positions, width, dtype=policy, name="positions")
        sizes = (width, heads, hidden or 4 * width, dropout)
        self.blocks = [DecoderBlock(*sizes, dtype=policy, name=f"block_{i}") for i in range(layers)]
        self.norm = layer_norm("norm", policy)

    def build(self, *shapes):  # all at once, since `memory` and `step` do not go through `call`
        for layer in (self.tokens, self.positions, *self.blocks):
            layer.build()
        self.norm.build((None, None, self.width))

    def memory(self, encoded):
        """Keys and values of the cross-attentions, [2 × layers, batch, steps, width]."""
        encoded = ops.cast(encoded, self.compute_dtype)
        return ops.stack([part for block in self.blocks for part in block.cross_attention.read(encoded)])

    def empty_past(self, batch: int):
        """The past of the first step, [2 × layers, batch, 0, width]."""
        return ops.zeros((2 * len(self.blocks), batch, 0, self.width), self.compute_dtype)

    def step(self, tokens, past, memory, lengths, training=False):
        """Some tokens further.

        Args:
          tokens: [batch, tokens].
          past: self-attention's keys and values of all tokens before, [2 × layers, batch, before, width].
          memory: as from `memory`.
          lengths: [batch] of the encoder's outputs.

        Returns:
          logits, float32 [batch, tokens, vocabulary], and the past with these tokens.
        """
        before, count = ops.shape(past)[2], ops.shape(tokens)[1]
        places = before + ops.arange(count)
        causal = (ops.arange(before + count)[None, :] <= places[:, None])[None, None]
        valid = valid_steps(ops.shape(memory)[2], lengths)[:, None, None, :]
        x = self.tokens(tokens) + self.positions(places)[None]
        presents = []
        for i, block in enumerate(self.blocks):
            pair = slice(2 * i, 2 * i + 2)
            x, own = block(
                x, ops.unstack(past[pair], 2), causal, ops.unstack(memory[pair], 2), valid, training=training
            )
            presents += own
        present = ops.concatenate([past, ops.stack(presents)], axis=2)
        x, embeddings = ops.cast(self.norm(x), "float32"), ops.cast(self.tokens.embeddings, "float32")
        return ops.matmul(x, ops.transpose(embeddings)), present

    def call(self, tokens, encoded, lengths, training=False):
        past = self.empty_past(ops.shape(tokens)[0])
        return self.step(tokens, past, self.memory(encoded), lengths, training=training)[0]
