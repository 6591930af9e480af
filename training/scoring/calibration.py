"""Does a confidence of 0.8 mean that 80 % of such words are right?"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Words with confidence in [low, high): their number, mean confidence, and the fraction that is right."""

    low: float
    high: float
    words: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Confidence of words against whether they are right.

    Attributes:
      words: how many.
      ece: expected calibration error (Naeini et al. 2015): mean |confidence - accuracy| of the bins, by
        words.
      auc: probability that a right word has more confidence than a wrong one, ties counting half; NaN where
        all words are right, or all wrong.
      bins: those of the `BINS` equal ranges of [0, 1] that hold words.
    """

    words: int
    ece: float
    auc: float
    bins: tuple[Bin, ...]


def calibration(confidence: np.ndarray, is_right: np.ndarray) -> Calibration:
    """From confidences [words] in [0, 1], and whether each word is right, [words] bool; at least one word."""
    rows = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = []
    for row in np.unique(rows).tolist():
        inside = rows == row
        means = float(confidence[inside].mean()), float(is_right[inside].mean())
        bins.append(Bin(row / BINS, (row + 1) / BINS, int(inside.sum()), *means))
    gaps = sum(bin.words * abs(bin.confidence - bin.accuracy) for bin in bins)
    # The area under the ROC curve, as the rank statistic of Mann & Whitney.
    right = int(is_right.sum())
    pairs = right * (len(is_right) - right)
    above = rankdata(confidence)[is_right].sum() - right * (right + 1) / 2
    auc = float(above / pairs) if pairs else float("nan")
    return Calibration(len(confidence), gaps / len(confidence), auc, tuple(bins))
