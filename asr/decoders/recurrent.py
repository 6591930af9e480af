"""LSTM decoder with additive attention."""

import keras
from keras import ops

from asr.encoders.subsampling import valid_steps


class RecurrentDecoder(keras.layers.Layer):
    """An LSTM that attends to the encoder's outputs anew for each token.

    The LSTM is given a token's embedding and the context before it. Its state h asks each output e of the
    encoder how much it matters, v · tanh(W h + U e); the softmax of these energies weighs the mean of the e,
    the new context. From h and context come the scores of the next token, by the same embeddings (Bahdanau et
    al. 2015, arXiv:1409.0473; for speech Chan et al. 2016, arXiv:1508.01211).

    Args:
      vocabulary: number of tokens.
      width: of the LSTM, the embeddings, and the encoder's outputs.
      positions: most tokens of an utterance.
      dropout: rate on the embeddings, and on what the scores are computed from.

    Call, `memory`, `empty_past` and `step` are those of `TransformerDecoder`. The past has the states h and c
    after each token, of which only the last are used: any number of tokens can be taken back.
    """

    heads, parts = 1, 2

    def __init__(
        self, vocabulary: int, width: int = 320, positions: int = 448, dropout: float = 0.0, **kwargs
    ):
        super().__init__(**kwargs)
        self.vocabulary, self.width, self.max_tokens = vocabulary, width, positions
        policy = self.dtype_policy
        self.tokens = keras.layers.Embedding(vocabulary, width, dtype=policy, name="tokens")
        self.cell = keras.layers.LSTMCell(width, dtype=policy, name="cell")
        self.query = keras.layers.Dense(width, dtype=policy, name="query")
        self.key = keras.layers.Dense(width, use_bias=False, dtype=policy, name="key")
        self.energy = keras.layers.Dense(1, use_bias=False, dtype=policy, name="energy")
        self.joined = keras.layers.Dense(width, activation="tanh", dtype=policy, name="joined")
        self.drop = keras.layers.Dropout(dropout, dtype=policy)

    def build(self, *shapes):  # all at once, as in `TransformerDecoder`
        self.tokens.build()
        for layer in (self.query, self.key, self.energy):
            layer.build((None, self.width))
        for layer in (self.cell, self.joined):
            layer.build((None, 2 * self.width))

    def memory(self, encoded):
        """Keys and values of the attention, [2, batch, steps, width]."""
        encoded = ops.cast(encoded, self.compute_dtype)
        return ops.stack([self.key(encoded), encoded])

    def empty_past(self, batch: int):
        """The past of the first step, [2, batch, 0, width]."""
        return ops.zeros((2, batch, 0, self.width), self.compute_dtype)

    def weights_of(self, hidden, keys, valid):
        """How much h [batch, width] attends to each step: float32 [batch, steps], zeros after the end."""
        energies = self.energy(ops.tanh(self.query(hidden)[:, None] + keys))[:, :, 0]
        energies = ops.where(valid, ops.cast(energies, "float32"), -1e9)
        return ops.exp(energies - ops.logsumexp(energies, axis=-1, keepdims=True))

    def step(self, tokens, past, memory, lengths, training=False):
        """Some tokens further; see `TransformerDecoder.step`."""
        keys, values = ops.unstack(memory, 2)
        valid = valid_steps(ops.shape(values)[1], lengths)

        def attended(hidden):
            weights = ops.cast(self.weights_of(hidden, keys, valid), values.dtype)
            return ops.sum(weights[:, :, None] * values, axis=1)

        def next_state(state, x):
            hidden, cell, context = ops.unstack(state, 3)
            hidden, (_, cell) = self.cell(ops.concatenate([x, context], axis=-1), [hidden, cell])
            state = ops.stack([hidden, cell, attended(hidden)])
            return state, state

        start = ops.zeros((2, ops.shape(tokens)[0], 1, self.width), past.dtype)
        hidden, cell = ops.unstack(ops.concatenate([start, past], axis=2)[:, :, -1], 2)
        x = ops.transpose(self.drop(self.tokens(tokens), training=training), (1, 0, 2))
        _, states = ops.scan(next_state, ops.stack([hidden, cell, attended(hidden)]), x)
        hidden, cell, context = ops.unstack(ops.transpose(states, (1, 2, 0, 3)), 3)  # of all tokens
        present = ops.concatenate([past, ops.stack([hidden, cell])], axis=2)
        joined = self.joined(ops.concatenate([hidden, context], axis=-1))
        joined = ops.cast(self.drop(joined, training=training), "float32")
        return ops.matmul(joined, ops.transpose(ops.cast(self.tokens.embeddings, "float32"))), present

    def call(self, tokens, encoded, lengths, training=False):
        past = self.empty_past(ops.shape(tokens)[0])
        return self.step(tokens, past, self.memory(encoded), lengths, training=training)[0]
