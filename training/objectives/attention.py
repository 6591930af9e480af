"""The cross-entropy of the written text, token by token."""

import sys
from collections.abc import Sequence

import numpy as np
from keras import ops

from asr.encoders.subsampling import valid_steps
from asr.vocabulary import Vocabulary
from training.objectives.objective import Objective


class Attention(Objective):
    """Cross-entropy of the decoder's next tokens with those of the text (Chan et al. 2016).

    Beside CTC it is half of joint training (Watanabe et al. 2017). The network is given the right tokens
    before each one.

    Args:
      texts: of each utterance as it is written, "" where nothing is said, and None where only its letters are
        known: it is left out of the mean. So are texts of more tokens than the decoder has positions.
      positions: of the decoder.
      label_smoothing: part of the target's probability that is spread over the whole vocabulary, 0 to 1.
    """

    name = "attention"

    def __init__(
        self,
        vocabulary: Vocabulary,
        texts: Sequence[str | None],
        positions: int,
        weight: float = 1.0,
        label_smoothing: float = 0.0,
    ):
        super().__init__(weight)
        self.label_smoothing = label_smoothing
        self.first = len(vocabulary.prompt)  # token that is counted
        tokens = [[] if text is None else vocabulary.around(text) for text in texts]
        self.tokens = [np.array(ids if len(ids) <= positions else [], dtype="int32") for ids in tokens]
        if too_long := sum(len(ids) > positions for ids in tokens):
            print(f"{too_long} texts have more than {positions} tokens: not for the decoder", file=sys.stderr)

    def targets(self, utterance, inputs):
        return {"tokens": self.tokens[utterance]}

    def losses(self, outputs, targets):
        tokens, lengths = targets["tokens"], targets["tokens_lengths"]
        losses = token_losses(outputs["token_logits"], tokens[:, 1:], self.label_smoothing)
        # The loss at i is of token i + 1, and tokens of the prompt are given.
        count = ops.shape(losses)[1]
        counted = ops.logical_and(
            valid_steps(count, lengths - 1), ops.arange(count)[None, :] >= self.first - 1
        )
        total = ops.sum(ops.where(counted, losses, ops.zeros_like(losses)), axis=1)
        return ops.where(lengths > 0, total, float("inf"))


def token_losses(logits, tokens, label_smoothing: float = 0.0):
    """Cross-entropy with the tokens, [batch, tokens], in nats.

    Args:
      logits: [batch, tokens, vocabulary].
      tokens: int [batch, tokens].
      label_smoothing: part of the target that is uniform (Szegedy et al. 2016).
    """
    logits = ops.cast(logits, "float32")
    normalizer = ops.logsumexp(logits, axis=-1)
    right = ops.squeeze(ops.take_along_axis(logits, tokens[:, :, None], axis=-1), axis=-1)
    smoothed = (1 - label_smoothing) * right + label_smoothing * ops.mean(logits, axis=-1)
    return normalizer - smoothed
