"""Beam search with a language model and hot words: BeamDecoder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from asr.decoding import Hypothesis, check_log_probs, prefix_search
from asr.decoding.alignment import forced_align
from asr.decoding.hotwords import build_automaton, spelled
from asr.decoding.ngram import BEGIN, END, UNKNOWN, LanguageModelError, NgramLevel, NgramModel
from asr.tokenizer import WORD_BOUNDARY, Tokenizer

if TYPE_CHECKING:
    from asr.bundle import Bundle

LANGUAGE_MODEL_NAME = "lm/ngram.bin"
SETTINGS_NAME = "lm/config.json"

# Prefixes kept in the search for a draft: what is shown while one speaks, or checked by an attention decoder.
# With 512, as for a text that is read, joint decoding has the same WER and takes a fifth longer.
DRAFT_BEAM = 64

# Settings that training.tune_decoder writes into a bundle.
TUNED = ("alpha", "beta", "unknown_penalty", "beam")


class BeamDecoder:
    """CTC prefix beam search with a word n-gram model and hot words.

        decoder = BeamDecoder(tokenizer, NgramModel.load("lm/ngram.bin"), hotwords=["Quillan"])
        text = decoder.decode(log_probs)[0].text

    Args:
      tokenizer: of the model that gives the log-probs.
      language_model: a word n-gram, or None.
      hotwords: names and phrases to expect; upper case and accents do not matter.
      beam: prefixes kept after each step.
      alpha: weight of the language model's natural logarithms.
      beta: nats added for each word, since the language model favours short texts.
      unknown_penalty: nats for each letter of a word that the language model does not know.
      hotword_weight: nats for each letter of a hot word; `hotwords.MAX_BOOST` bounds their sum.
      score_margin: prefixes this many nats below the best are dropped.
      least_unit_log_prob: less probable units are skipped in a step, except the best.

    Raises:
      ValueError: numbers out of range, or units that hold a space elsewhere than in front.
      HotwordError: a hot word without letters, or that the units cannot write.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        language_model: NgramModel | None = None,
        hotwords: Sequence[str] = (),
        beam: int = 64,
        *,
        alpha: float = 0.5,
        beta: float = 1.0,
        unknown_penalty: float = 1.0,
        hotword_weight: float = 0.6,
        score_margin: float = 10.0,
        least_unit_log_prob: float = -6.0,
    ):
        if beam < 1:
            raise ValueError(f"a beam of {beam} keeps nothing: it must be at least 1")
        if score_margin <= 0 or unknown_penalty < 0 or alpha < 0:
            raise ValueError("score_margin must be above 0, alpha and unknown_penalty not below")
        if any(WORD_BOUNDARY in symbol[1:] for symbol in tokenizer.symbols):
            raise ValueError("units may have a space in front only")
        self.tokenizer = tokenizer
        self.language_model = language_model
        self.beam, self.score_margin, self.least_unit_log_prob = beam, score_margin, least_unit_log_prob
        self.alpha, self.beta, self.unknown_penalty = alpha, beta, unknown_penalty
        self.automaton = build_automaton(spelled(hotwords, tokenizer), hotword_weight, self._unknown_cost)

    @classmethod
    def from_bundle(cls, bundle: Bundle, hotwords: Sequence[str] = ()) -> BeamDecoder:
        """The decoder of a trained model, with its language model and tuned settings if it has them.

        Raises LanguageModelError for a damaged language model or invalid settings.
        """
        if not bundle.has_language_model:
            return cls(bundle.tokenizer, hotwords=hotwords)
        path = bundle.directory / SETTINGS_NAME
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            tuned = {name: settings[name] for name in TUNED}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LanguageModelError(f"{path}: no decoder settings; run training.tune_decoder") from error
        model = NgramModel.load(bundle.directory / LANGUAGE_MODEL_NAME)
        return cls(bundle.tokenizer, model, hotwords, **tuned)

    def decode(self, log_probs: np.ndarray, n_best: int = 1, beam: int | None = None) -> list[Hypothesis]:
        """Up to `n_best` different texts, best first; at least one.

        Args:
          log_probs: [steps, units], natural logarithms; no steps at all give the empty text.
          beam: prefixes kept after each step, in place of the decoder's own number.

        Returns:
          Hypotheses whose score is ln P(units | sound) plus the scores of language model and hot words;
          their steps are those of the most probable path (`forced_align`).

        Raises:
          ValueError: NaN or infinity in the log-probs, a step where nothing is possible, or a wrong shape.
        """
        log_probs = np.ascontiguousarray(log_probs, dtype=np.float32)
        check_log_probs(log_probs)
        if log_probs.shape[1] != self.tokenizer.size:
            raise ValueError(
                f"log-probs for {log_probs.shape[1]} units, but the model has {self.tokenizer.size}"
            )
        if len(log_probs) and not np.isfinite(log_probs.max(axis=1)).all():
            raise ValueError("the log-probs of a step are infinite: the model or its input is broken")
        found: dict[str, tuple[float, tuple[int, ...]]] = {}  # each text once, with its best units
        for score, ids in self.results(log_probs, beam):
            found.setdefault(self.tokenizer.decode(ids), (score, ids))
            if len(found) == n_best:
                break
        return [
            Hypothesis(units=ids, steps=forced_align(log_probs, ids).steps, score=score, text=text)
            for text, (score, ids) in found.items()
        ]

    def results(
        self, log_probs: np.ndarray, beam: int | None = None
    ) -> Iterator[tuple[float, tuple[int, ...]]]:
        """Scores and units of the last beam, best first; unlike in `decode`, a text may come twice."""
        encoded = [symbol.encode() for symbol in self.tokenizer.symbols]
        unit_text = np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)])
        pruning = beam or self.beam, self.score_margin, self.least_unit_log_prob
        scores, ids, begin = prefix_search.search(log_probs, unit_text, self._language(), *pruning)
        for score, (first, last) in zip(scores.tolist(), pairwise(begin.tolist()), strict=True):
            yield score, tuple(ids[first:last].tolist())

    def _language(self) -> prefix_search.Language:
        model = self.language_model or _EMPTY_MODEL
        return prefix_search.Language(
            tables=model.tables,
            cumulative_probability=model.cumulative_probability,
            has_words=self.language_model is not None,
            alpha=float(self.alpha),
            beta=float(self.beta),
            unknown_penalty=float(self.unknown_penalty),
            hot_next=self.automaton.next,
            hot_credit=self.automaton.credit,
            hot_reward=self.automaton.reward,
        )

    def _unknown_cost(self, letters: str, finished: bool) -> float:
        """Penalty for an unknown word, or for letters that begin no known word; nats."""
        if self.language_model is None or self.language_model.knows(letters, finished):
            return 0.0
        return self.unknown_penalty * len(letters.encode())


# Without a language model, so that numba compiles one signature.
_EMPTY_MODEL = NgramModel.from_levels(
    [END, BEGIN, UNKNOWN], [NgramLevel(np.zeros(3, int), np.arange(3), np.zeros(3), np.zeros(3))]
).quantised()
