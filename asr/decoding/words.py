"""Words with times and confidence from the hypothesis of any decoder."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from asr.decoding import Hypothesis
from asr.tokenizer import BLANK_ID, WORD_BOUNDARY, Tokenizer
from asr.transcript import Word

# float32 log-probs near 0 are exact to about 1e-7: outside these bounds a logit is noise or infinite.
_MIN_PROBABILITY = 1e-6
# Confidence is then the posterior of the least certain unit.
UNCALIBRATED = {"certainty": 1.0, "shortfall": 0.0, "offset": 0.0}


class _Spelling(NamedTuple):
    """A word with its units and their steps."""

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

    A word lasts from the start of its first unit's first step to the end of its last unit's last step.

    Args:
      hypothesis: units and their steps in `log_probs`.
      log_probs: [steps, units], natural logarithms.
      tokenizer: of the model.
      step_seconds: length of a step in seconds.
      calibration: see `confidences`; None means UNCALIBRATED.
    """
    evidence = word_evidence(hypothesis, log_probs, tokenizer)
    found = confidences(evidence, UNCALIBRATED if calibration is None else calibration).tolist()
    return [
        Word(word.text, word.steps[0][0] * step_seconds, (word.steps[-1][1] + 1) * step_seconds, confidence)
        for word, confidence in zip(_spellings(hypothesis, tokenizer), found, strict=True)
    ]


def confidences(evidence: np.ndarray, calibration: Mapping[str, float]) -> np.ndarray:
    """Confidence of words, [words] in [0, 1], from their evidence [words, 2].

    Logistic regression on certainty and shortfall, with the weights and the "offset" in `calibration`, which
    training.calibrate finds.
    """
    weights = np.array([calibration["certainty"], calibration["shortfall"]])
    return 1 / (1 + np.exp(-(evidence @ weights + calibration["offset"])))


def word_evidence(hypothesis: Hypothesis, log_probs: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Certainty and shortfall of each word, [words, 2], the inputs of its confidence.

    Certainty: the logit of the peak posterior of the word's least certain unit. Shortfall: how much less
    probable the word's path is than the best path through the same steps, in nats per letter; 0 in greedy
    decoding, positive if a language model or a hot word changed the word.
    """
    rows = []
    for word in _spellings(hypothesis, tokenizer):
        begin, end = word.steps[0][0], word.steps[-1][1] + 1
        span, path = log_probs[begin:end], np.full(end - begin, BLANK_ID)
        certainty = 0.0
        for unit, (first, last) in zip(word.units, word.steps, strict=True):
            path[first - begin : last + 1 - begin] = unit
            certainty = min(certainty, log_probs[first : last + 1, unit].max())
        along_path = span[np.arange(end - begin), path]
        shortfall = np.sum(span.max(axis=1) - along_path, dtype=np.float64) / len(word.text)
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
    """Log-odds, finite for all of [0, 1]."""
    probability = np.clip(float(probability), _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    return float(np.log(probability) - np.log1p(-probability))
