"""Rescoring of the N-best texts of the beam search with a recurrent language model: Rescorer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asr.decoding.ngram import NgramModel
from asr.decoding.recurrent_lm import END_ID, UNKNOWN_ID, RecurrentModel


class Rescorer:
    """Replaces the n-gram model's score of a text by that of a mixture of the recurrent and the n-gram model.

    A word scores alpha · ln(share · P(w | all words before) + (1 - share) · P(w | the n-gram's history)).
    The recurrent model's probability of `<unk>` is divided among the n-gram model's words that it does not
    know, in proportion to their unigram probabilities, so that both models predict the same words.

    Args:
      recurrent: the model to rescore with.
      ngram: the model of the beam search.
      first_alpha: its weight there.
      alpha: weight of the mixture's natural logarithms.
      share: weight of the recurrent model in the mixture, in [0, 1].
      texts: how many of the best are rescored.
    """

    def __init__(
        self,
        recurrent: RecurrentModel,
        ngram: NgramModel,
        first_alpha: float,
        alpha: float,
        share: float,
        texts: int = 32,
    ):
        if not 0 <= share <= 1 or alpha < 0 or texts < 1:
            raise ValueError("share must lie in [0, 1], alpha not below 0, texts above 0")
        self.recurrent, self.ngram = recurrent, ngram
        self.first_alpha, self.alpha, self.share, self.texts = first_alpha, alpha, share, texts
        words = ngram.vocabulary()
        self._ngram_ids = {word: id for id, word in enumerate(words)}
        self._recurrent_ids = np.array([recurrent.id(word) for word in words])
        self._recurrent_ids[ngram.tables.end_id] = END_ID
        unigram = ngram.tables.unigram_log_probs.astype(np.float64)
        others = self._recurrent_ids == UNKNOWN_ID
        self._log_parts = np.where(others, unigram - np.log(np.exp(unigram[others]).sum()), 0.0)

    def gains(self, texts: Sequence[str]) -> list[float]:
        """Score of each text by the mixture, less its score by the n-gram model; nats."""
        return [self.gain(*pair, self.alpha, self.share) for pair in self.log_probs(texts)]

    def gain(self, recurrent: np.ndarray, ngram: np.ndarray, alpha: float, share: float) -> float:
        """The same of one text, by what `log_probs` gives for it."""
        mixture = np.log(share * np.exp(recurrent) + (1 - share) * np.exp(ngram))
        return float(alpha * mixture.sum() - self.first_alpha * ngram.sum())

    def log_probs(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """ln P of each word and of the end, by the recurrent and by the n-gram model; [words + 1] each."""
        tables = self.ngram.tables
        ids = [[self._ngram_ids.get(word, tables.unknown_id) for word in text.split()] for text in texts]
        known: dict[tuple[int, ...], float] = {}
        found = []
        recurrent = self.recurrent.log_probs([self._recurrent_ids[numbers] for numbers in ids])
        for numbers, by_recurrent in zip(ids, recurrent, strict=True):
            path = (tables.begin_id, *numbers, tables.end_id)
            by_ngram = np.empty(len(path) - 1)
            for place in range(1, len(path)):
                ngram = path[max(0, place - self.ngram.order + 1) : place + 1]
                if ngram not in known:
                    known[ngram] = self.ngram.log_prob(ngram[:-1], ngram[-1])
                by_ngram[place - 1] = known[ngram]
            found.append((by_recurrent + self._log_parts[list(path[1:])], by_ngram))
        return found
