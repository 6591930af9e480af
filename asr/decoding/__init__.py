"""Decoding of log-probs, as NumPy arrays, to text: greedy search, beam search, forced alignment."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Hypothesis:
    """A decoder's result for one utterance.

    Attributes:
      units: unit ids, without blanks and repeats.
      steps: first and last step (inclusive) of each unit, in order of time.
      score: natural logarithm; its terms depend on the decoder.
      text: words joined by single spaces; empty from forced alignment, which knows ids only.
    """

    units: tuple[int, ...]
    steps: tuple[tuple[int, int], ...]
    score: float
    text: str


def check_log_probs(log_probs: np.ndarray) -> None:
    """Raises ValueError unless `log_probs` is [steps, units] and without NaN."""
    if log_probs.ndim != 2:
        raise ValueError(f"log-probs must be [steps, units], not of shape {log_probs.shape}")
    if np.isnan(log_probs).any():
        raise ValueError("the log-probs contain NaN: the model or its input is broken")
