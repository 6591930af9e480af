"""The words of a hypothesis of any decoder, with their times and confidence."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from asr.decoding import Hypothesis
from asr.tokenizer import BLANK_ID, WORD_BOUNDARY, Tokenizer
from asr.transcript import Word

# In float32 a log-prob near 0 is exact to some 1e-7: beyond these bounds a logit would be noise or infinite.
_LEAST_CONFIDENCE = 1e-6
# The posterior of the least certain unit as it is.
UNCALIBRATED = {"certainty": 1.0, "shortfall": 0.0, "offset": 0.0}


class _Spelling(NamedTuple):
    """A word as its units write it."""

    text: str
    units: list[int]
    steps: list[tuple[int, int]]


def words_of(
    hypothesis: Hypothesis,
    log_probs: np.ndarray,
    tokenizer: Tokenizer,
    step_seconds: float,
    calibration: Mapping[str, float] | None = None,
) -> list[Word]:
    """The words of a hypothesis, in order of time, in seconds from the first step.

    A word lasts from the start of its first unit's first step to the end of its last unit's last step. Its
    confidence is made of `word_evidence`, as training.calibrate has found it to be right most often.

    Args:
      hypothesis: units and their steps in `log_probs`.
      log_probs: [steps, units], natural logarithms.
      tokenizer: of the model that gave the log-probs.
      step_seconds: length of a step in seconds.
      calibration: see `confidences`; None stands for UNCALIBRATED.
    """
    words = _spellings(hypothesis, tokenizer)
    found = confidences(_evidence(words, log_probs), UNCALIBRATED if calibration is None else calibration)
    return [
        Word(
            text=word.text,
            start=word.steps[0][0] * step_seconds,
            end=(word.steps[-1][1] + 1) * step_seconds,
            confidence=confidence,
        )
        for word, confidence in zip(words, found.tolist(), strict=True)
    ]


def confidences(evidence: np.ndarray, calibration: Mapping[str, float]) -> np.ndarray:
    """The confidence of words, [words] in [0, 1], from their evidence [words, 2].

    Its logit is the certainty and the shortfall, each times its weight in `calibration`, and the "offset".
    """
    weights = np.array([calibration["certainty"], calibration["shortfall"]])
    return 1 / (1 + np.exp(-(evidence @ weights + calibration["offset"])))


def word_evidence(hypothesis: Hypothesis, log_probs: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """What speaks for each word of a hypothesis and against it, [words, 2].

    Certainty: the logit of the posterior, at its peak, of the word's least certain unit. Shortfall: nats a
    letter by which the word's path is less probable than the best path through the same steps; 0 in greedy
    decoding, above it where a language model or a hot word has changed what was heard.
    """
    return _evidence(_spellings(hypothesis, tokenizer), log_probs)


def _evidence(words: list[_Spelling], log_probs: np.ndarray) -> np.ndarray:
    rows = []
    for word in words:
        begin, end = word.steps[0][0], word.steps[-1][1] + 1
        heard = log_probs[begin:end]
        path = np.full(end - begin, BLANK_ID)
        certainty = 0.0
        for unit, (first, last) in zip(word.units, word.steps, strict=True):
            path[first - begin : last + 1 - begin] = unit
            certainty = min(certainty, log_probs[first : last + 1, unit].max())
        along_path = heard[np.arange(end - begin), path]
        shortfall = np.sum(heard.max(axis=1) - along_path, dtype=np.float64) / len(word.text)
        rows.append((_logit(np.exp(certainty)), shortfall))
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _spellings(hypothesis: Hypothesis, tokenizer: Tokenizer) -> list[_Spelling]:
    words = [_Spelling("", [], [])]
    for unit, steps in zip(hypothesis.units, hypothesis.steps, strict=True):
        symbol = tokenizer.symbols[unit]
        if symbol.startswith(WORD_BOUNDARY):
            words.append(_Spelling("", [], []))
        if letters := symbol.strip():
            text, word_units, word_steps = words.pop()
            words.append(_Spelling(text + letters, [*word_units, unit], [*word_steps, steps]))
    return [word for word in words if word.text]


def _logit(probability: float) -> float:
    """Logarithm of the odds, finite for all of [0, 1]."""
    probability = np.clip(float(probability), _LEAST_CONFIDENCE, 1 - _LEAST_CONFIDENCE)
    return float(np.log(probability) - np.log1p(-probability))
