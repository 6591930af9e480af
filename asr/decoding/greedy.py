"""Greedy CTC decoding."""

import numpy as np

from asr.decoding import Hypothesis, check_log_probs
from asr.tokenizer import BLANK_ID, Tokenizer


def greedy_decode(log_probs: np.ndarray, tokenizer: Tokenizer) -> Hypothesis:
    """The best unit of each step, without repeats and blanks ("best path decoding", Graves et al. 2006).

    Args:
      log_probs: [steps, units], natural logarithms; no steps give an empty text.
      tokenizer: of the model.

    Returns:
      A hypothesis whose score is the log-probability of the best path.

    Raises:
      ValueError: the log-probs contain NaN or are not [steps, units].
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
        text=tokenizer.decode(ids),
    )
