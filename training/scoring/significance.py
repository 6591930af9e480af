"""Is one system better than another on the same speech, or was it luck?"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtr

from training.scoring.alignment import Operation
from training.scoring.intervals import percentile_interval

MIN_GOOD_WORDS = 2  # words right in both systems that end a segment; sclite's number


@dataclass(frozen=True)
class MatchedPairs:
    """Result of the matched-pairs test.

    Attributes:
      segments: how many segments of speech were compared.
      mean: errors of the first system less those of the second, a segment.
      z: the mean in standard errors; 0 where all differences are equal, which leaves no scale.
      p: two-sided probability of a |z| as large if the systems were equal.
    """

    segments: int
    mean: float
    z: float
    p: float


def matched_pairs(
    first: Iterable[Sequence[Operation]], second: Iterable[Sequence[Operation]]
) -> MatchedPairs:
    """The matched-pairs sentence-segment word error test (MAPSSWE) on alignments of two systems to one
    reference.

    Gillick & Cox 1989, "Some statistical issues in the comparison of speech recognition algorithms"; segments
    as in NIST's sclite. Errors within a segment may depend on each other; segments count as independent.
    """
    differences = [a - b for one, other in zip(first, second, strict=True) for a, b in segments(one, other)]
    if not differences:
        return MatchedPairs(0, 0.0, 0.0, 1.0)
    mean = float(np.mean(differences))
    deviation = float(np.std(differences, ddof=1)) if len(differences) > 1 else 0.0
    z = mean / (deviation / math.sqrt(len(differences))) if deviation else 0.0
    return MatchedPairs(len(differences), mean, z, float(2 * ndtr(-abs(z))))


def segments(first: Sequence[Operation], second: Sequence[Operation]) -> list[tuple[int, int]]:
    """Errors of both systems in each segment of one utterance.

    A segment begins at an error of either system and ends where both have `MIN_GOOD_WORDS` reference words
    running right, with nothing inserted between these, or at the end of the utterance.
    """
    if all(operation.kind == "equal" for operation in (*first, *second)):
        return []
    slots = np.column_stack([_errors_by_slot(first), _errors_by_slot(second)])
    found: list[tuple[int, int]] = []
    errors = np.zeros(2, np.int64)
    good_words = 0
    for slot, slot_errors in enumerate(slots):
        if slot_errors.any():
            errors += slot_errors
            good_words = 0
        elif slot % 2:  # a word; gaps are no words
            good_words += 1
            if good_words >= MIN_GOOD_WORDS and errors.any():
                found.append((int(errors[0]), int(errors[1])))
                errors[:] = 0
    if errors.any():
        found.append((int(errors[0]), int(errors[1])))
    return found


def _errors_by_slot(operations: Sequence[Operation]) -> np.ndarray:
    """[2 · words + 1]: even slots are the gaps around reference words and hold insertions, odd slots the
    words.
    """
    words = max((operation.reference_end for operation in operations), default=0)
    slots = np.zeros(2 * words + 1, np.int64)
    for operation in operations:
        if operation.kind == "insert":
            slots[2 * operation.reference_start] += operation.length
        elif operation.kind != "equal":
            slots[2 * operation.reference_start + 1 : 2 * operation.reference_end : 2] = 1
    return slots


@dataclass(frozen=True)
class Difference:
    """WER of the first system less that of the second, its 95 % interval and two-sided bootstrap p."""

    wer: float
    low: float
    high: float
    p: float


def bootstrap_difference(wers: np.ndarray, resampled: np.ndarray, units: int) -> Difference:
    """Compares two systems on common resamples.

    Args:
      wers: [2], of the two systems on all of the speech.
      resampled: [resamples, 2], of both systems on each resample.
      units: how many speakers (or utterances) were drawn.
    """
    differences = resampled[:, 0] - resampled[:, 1]
    differences = differences[np.isfinite(differences)]
    # One more than counted, of one more than drawn: a p of 0 cannot be known from finitely many resamples.
    against = 1 + min((differences <= 0).sum(), (differences >= 0).sum())
    one_sided = min(0.5, float(against) / (len(differences) + 1))
    p = float("nan")
    if units > 1:
        # What `percentile_interval` does, turned round: p is below 0.05 where the interval leaves out 0.
        p = 2 * float(stdtr(units - 1, ndtri(one_sided) / math.sqrt(units / (units - 1))))
    return Difference(float(wers[0] - wers[1]), *percentile_interval(differences, units), p)
