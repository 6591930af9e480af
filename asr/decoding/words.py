"""Words with times and confidence from the hypothesis of any decoder."""

from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np

from asr.decoding import Hypothesis, WrittenWord
from asr.tokenizer import BLANK_ID, WORD_BOUNDARY, Tokenizer
from asr.transcript import Word

# float32 log-probs near 0 are exact to about 1e-7: outside these bounds a logit is noise or infinite.
_MIN_PROBABILITY = 1e-6
# Confidence is then the posterior of the least certain unit, or of the least certain token.
UNCALIBRATED = {"certainty": 1.0, "shortfall": 0.0, "token": 0.0, "offset": 0.0}
UNCALIBRATED_WRITTEN = {"certainty": 0.0, "shortfall": 0.0, "token": 1.0, "offset": 0.0}


class _Spelling(NamedTuple):
    """A word with its units and their steps, and the log-probability of its least certain token."""

    text: str
    units: list[int]
    steps: list[tuple[int, int]]
    log_prob: float = 0.0


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
      calibration: see `confidences`; None means that of an uncalibrated model.
    """
    evidence = word_evidence(hypothesis, log_probs, tokenizer)
    uncalibrated = UNCALIBRATED_WRITTEN if hypothesis.written else UNCALIBRATED
    found = confidences(evidence, uncalibrated if calibration is None else calibration).tolist()
    return [
        Word(word.text, word.steps[0][0] * step_seconds, (word.steps[-1][1] + 1) * step_seconds, confidence)
        for word, confidence in zip(_spellings(hypothesis, tokenizer), found, strict=True)
    ]


def words_without_steps(hypothesis: Hypothesis, seconds: float) -> list[Word]:
    """The words of a decoder without CTC, spread over the utterance by their letters.

    Their confidence is the probability of the least certain token.
    """
    ends = np.cumsum([len(word.text) for word in hypothesis.written])
    times = [0.0, *(seconds * ends / ends[-1]).tolist()] if len(ends) else []
    return [
        Word(word.text, start, end, float(np.exp(word.log_prob)))
        for word, (start, end) in zip(hypothesis.written, pairwise(times), strict=True)
    ]


def confidences(evidence: np.ndarray, calibration: Mapping[str, float]) -> np.ndarray:
    """Confidence of words, [words] in [0, 1], from their evidence [words, 3].

    Logistic regression on certainty, shortfall and token, with the weights and the "offset" in `calibration`,
    which training.calibrate finds.
    """
    weights = np.array([calibration.get(name, 0.0) for name in ("certainty", "shortfall", "token")])
    return 1 / (1 + np.exp(-(evidence @ weights + calibration["offset"])))


def word_evidence(hypothesis: Hypothesis, log_probs: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Certainty, shortfall and token of each word, [words, 3], the inputs of its confidence.

    Certainty: the logit of the peak posterior of the word's least certain unit. Shortfall: how much less
    probable the word's path is than the best path through the same steps, in nats per letter; 0 in greedy
    decoding, positive if a language model, a hot word or an attention decoder changed the word. Token: the
    logit of the probability of the word's least certain token; 0 without an attention decoder.
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
        token = _logit(np.exp(word.log_prob)) if hypothesis.written else 0.0
        rows.append((_logit(np.exp(certainty)), shortfall, token))
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def _spellings(hypothesis: Hypothesis, tokenizer: Tokenizer) -> list[_Spelling]:
    words = [_Spelling("", [], [])]
    for unit, steps in zip(hypothesis.units, hypothesis.steps, strict=True):
        symbol = tokenizer.symbols[unit]
        if symbol.startswith(WORD_BOUNDARY):
            words.append(_Spelling("", [], []))
        if letters := symbol.strip():
            text, word_units, word_steps, _ = words.pop()
            words.append(_Spelling(text + letters, [*word_units, unit], [*word_steps, steps]))
    words = [word for word in words if word.text]
    return _written(hypothesis.written, words) if hypothesis.written else words


def _written(written: Sequence[WrittenWord], spoken: Sequence[_Spelling]) -> list[_Spelling]:
    """The spellings of written words; one that is not spoken ("–") is joined to its neighbour."""
    found: list[_Spelling] = []
    waiting, rest = "", iter(spoken)
    for word in written:
        parts = list(islice(rest, word.spoken))
        units, steps = ([item for part in parts for item in part[place]] for place in (1, 2))
        if parts:
            found.append(_Spelling(f"{waiting} {word.text}".strip(), units, steps, word.log_prob))
            waiting = ""
        elif found:
            last = found.pop()
            found.append(last._replace(text=f"{last.text} {word.text}"))
        else:
            waiting = f"{waiting} {word.text}".strip()
    return found


def _logit(probability: float) -> float:
    """Log-odds, finite for all of [0, 1]."""
    probability = np.clip(float(probability), _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    return float(np.log(probability) - np.log1p(-probability))
