"""From log-probs to text on plain NumPy arrays: greedy, beam search, forced alignment."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Hypothesis:
    """What a decoder heard in one utterance.

    Attributes:
      units: ids of the units, blanks and repeats already collapsed.
      steps: first and last step (both inclusive) of each unit; as many as `units`, in order of time.
      score: natural logarithm; what it sums up is said by the decoder that made it.
      text: the units as words with single spaces; empty where the decoder knows ids only (forced alignment).
    """

    units: tuple[int, ...]
    steps: tuple[tuple[int, int], ...]
    score: float
    text: str


def check_log_probs(log_probs: np.ndarray) -> None:
    """Raises ValueError unless `log_probs` is [steps, units] and free of NaN, which no path outscores."""
    if log_probs.ndim != 2:
        raise ValueError(f"log-probs must be [steps, units], not of shape {log_probs.shape}")
    if np.isnan(log_probs).any():
        raise ValueError("the log-probs hold NaN: the model or its input is broken")
