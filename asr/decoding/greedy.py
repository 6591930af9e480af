"""Greedy CTC decoding, and the words of a hypothesis with their times and confidence."""

from collections.abc import Mapping

import numpy as np

from asr.decoding import Hypothesis, check_log_probs
from asr.text import BLANK_ID, WORD_BOUNDARY, Units
from asr.transcript import Word

# In float32 a log-prob near 0 is exact to some 1e-7: beyond these bounds a logit would be noise or infinite.
_LEAST_CONFIDENCE = 1e-6


def greedy_decode(log_probs: np.ndarray, units: Units) -> Hypothesis:
    """The best unit of each step, repeats merged, blanks dropped: Graves et al. 2006, "best path decoding".

    Args:
      log_probs: [steps, units], natural logarithms; no steps at all give an empty text.
      units: of the model that gave the log-probs.

    Returns:
      A hypothesis whose score is the logarithm of the best path's probability.

    Raises:
      ValueError: the log-probs hold NaN or are not [steps, units].
    """
    check_log_probs(log_probs)
    best = log_probs.argmax(axis=1)
    firsts = np.flatnonzero(np.diff(best, prepend=-1))
    lasts = np.append(firsts, len(best))[1:] - 1
    spoken = best[firsts] != BLANK_ID
    ids = tuple(best[firsts[spoken]].tolist())
    return Hypothesis(
        units=ids,
        steps=tuple(zip(firsts[spoken].tolist(), lasts[spoken].tolist(), strict=True)),
        score=float(log_probs.max(axis=1).sum(dtype=np.float64)),
        text=WORD_BOUNDARY.join(units.decode(ids).split()),
    )


def words_of(
    hypothesis: Hypothesis,
    log_probs: np.ndarray,
    units: Units,
    step_seconds: float,
    calibration: Mapping[str, float] | None = None,
) -> list[Word]:
    """The words of a hypothesis of any decoder.

    A word lasts from the start of its first unit's first step to the end of its last unit's last step. A unit
    is as certain as its posterior at its peak, a word as its least certain unit; `calibration` maps that to
    the share of such words that are right (Platt 1999).

    Args:
      hypothesis: units and their steps in `log_probs`.
      log_probs: [steps, units], natural logarithms.
      units: of the model that gave the log-probs.
      step_seconds: length of a step in seconds.
      calibration: `scale` and `offset` on the logit of the confidence; None leaves the confidence as it is.

    Returns:
      Words in order of time, in seconds from the first step.
    """
    spellings: list[list[tuple[str, int, int, float]]] = [[]]
    for id, (first, last) in zip(hypothesis.units, hypothesis.steps, strict=True):
        symbol = units.symbols[id]
        if symbol.startswith(WORD_BOUNDARY):
            spellings.append([])
        if letters := symbol.strip():
            peak = float(np.exp(log_probs[first : last + 1, id].max()))
            spellings[-1].append((letters, first, last, peak))
    return [
        Word(
            text="".join(letters for letters, _, _, _ in spelling),
            start=spelling[0][1] * step_seconds,
            end=(spelling[-1][2] + 1) * step_seconds,
            confidence=_calibrated(min(peak for _, _, _, peak in spelling), calibration),
        )
        for spelling in spellings
        if spelling
    ]


def confidence_logit(confidence: float | np.ndarray) -> float | np.ndarray:
    """Logarithm of the odds, finite for all of [0, 1]: what `calibration` scales and shifts."""
    confidence = np.clip(confidence, _LEAST_CONFIDENCE, 1 - _LEAST_CONFIDENCE)
    return np.log(confidence) - np.log1p(-confidence)


def _calibrated(confidence: float, calibration: Mapping[str, float] | None) -> float:
    if calibration is None:
        return min(confidence, 1.0)  # a log-softmax may round to a hair above 0
    logit = calibration["scale"] * confidence_logit(confidence) + calibration["offset"]
    return float(1 / (1 + np.exp(-logit)))
