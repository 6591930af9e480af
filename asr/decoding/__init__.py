"""Decoding of log-probs, as NumPy arrays, to text: greedy search, beam search, forced alignment."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class WrittenWord(NamedTuple):
    """A word as an attention decoder writes it.

    text: with capitals, punctuation and digits.
    spoken: number of words that are spoken for it: 2 for "21".
    log_prob: of its least certain token.
    """

    text: str
    spoken: int
    log_prob: float


@dataclass(frozen=True)
class Hypothesis:
    """A decoder's result for one utterance.

    Attributes:
      units: unit ids, without blanks and repeats.
      steps: first and last step (inclusive) of each unit, in order of time.
      score: natural logarithm; its terms depend on the decoder.
      text: words joined by single spaces; empty from forced alignment, which knows ids only.
      written: the words of the text where it is not spelt as the units are.
    """

    units: tuple[int, ...]
    steps: tuple[tuple[int, int], ...]
    score: float
    text: str
    written: tuple[WrittenWord, ...] = ()


def check_log_probs(log_probs: np.ndarray) -> None:
    """Raises ValueError unless `log_probs` is [steps, units] and without NaN."""
    if log_probs.ndim != 2:
        raise ValueError(f"log-probs must be [steps, units], not of shape {log_probs.shape}")
    if np.isnan(log_probs).any():
        raise ValueError("the log-probs contain NaN: the model or its input is broken")
