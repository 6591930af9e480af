"""Does a confidence of 0.8 mean that 80 % of such words are right?"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Words whose confidence lies in [low, high): how many, their mean confidence, and the fraction that is
    right.
    """

    low: float
    high: float
    words: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Confidence of words held against whether they are right.

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
    for row in range(BINS):
        inside = rows == row
        if inside.any():
            means = float(confidence[inside].mean()), float(is_right[inside].mean())
            bins.append(Bin(row / BINS, (row + 1) / BINS, int(inside.sum()), *means))
    gaps = sum(bin.words * abs(bin.confidence - bin.accuracy) for bin in bins)
    return Calibration(len(confidence), gaps / len(confidence), _auc(confidence, is_right), tuple(bins))


def _auc(confidence: np.ndarray, is_right: np.ndarray) -> float:
    """Area under the ROC curve, as the rank statistic of Mann & Whitney."""
    right = int(is_right.sum())
    wrong = len(is_right) - right
    if not right or not wrong:
        return float("nan")
    ranks = rankdata(confidence)[is_right].sum()
    return float((ranks - right * (right + 1) / 2) / (right * wrong))
