"""Viterbi forced alignment: where in the sound each unit of a known text was said."""

from collections.abc import Sequence

import numpy as np

from asr.decoding import Hypothesis, check_log_probs
from asr.tokenizer import BLANK_ID

# Steps × states; some two hours of speech at 25 steps and 15 characters a second.
MAX_CELLS = 40_000_000_000

# Scores are kept once in so many steps, and the moves between two of those found again on the way back.
_CHECKPOINT_STEPS = 1024


def align(log_probs: np.ndarray, unit_ids: Sequence[int]) -> Hypothesis:
    """The most probable CTC path that spells the units (the lattice of Graves et al. 2006, with the maximum).

    States are the units with a blank before, between and after them. At each step a path stays or moves on by
    one state, or by two to leave out the blank between different units; it begins in one of the first two
    states and ends in one of the last two.

    The result is exact. Time is O(steps × units), all states of a step at once; memory is one row of states
    every 1,024 steps. An hour of speech (90,000 steps, 54,000 units) takes half a minute and 100 MB.

    Args:
      log_probs: [steps, units], natural logarithms.
      unit_ids: what was said, without blanks; may be empty.

    Returns:
      A hypothesis of the same units; its score is the logarithm of the path's probability.

    Raises:
      ValueError: NaN; ids that are blank or no units; fewer steps than the units need (equal neighbours need
        a blank between them); no path of a probability above 0; more than `MAX_CELLS` steps × states.
    """
    check_log_probs(log_probs)
    labels = np.asarray(unit_ids, dtype=np.intp)
    steps, size = log_probs.shape
    if len(labels) and (labels.min() <= BLANK_ID or labels.max() >= size):
        raise ValueError(f"unit ids must lie between {BLANK_ID + 1} and {size - 1}")
    repeats = labels[1:] == labels[:-1]
    needed = len(labels) + int(np.count_nonzero(repeats))
    if steps < needed:
        raise ValueError(f"the text needs at least {needed} steps, but the sound has {steps}")
    if steps == 0:
        return Hypothesis(units=(), steps=(), score=0.0, text="")

    states = np.full(2 * len(labels) + 1, BLANK_ID)
    states[1::2] = labels
    skip_score = np.full(len(states), -np.inf)
    skip_score[3::2][~repeats] = 0.0
    if steps * len(states) > MAX_CELLS:
        raise ValueError(
            f"{steps} steps and {len(labels)} units are too many at once: align the recording in parts"
        )

    path, score = _best_path(log_probs, states, skip_score)
    if score == -np.inf:
        raise ValueError("the text has probability 0 under these log-probs")
    firsts = np.searchsorted(path, np.arange(1, len(states), 2), side="left")
    lasts = np.searchsorted(path, np.arange(1, len(states), 2), side="right") - 1
    return Hypothesis(
        units=tuple(labels.tolist()),
        steps=tuple(zip(firsts.tolist(), lasts.tolist(), strict=True)),
        score=score,
        text="",
    )


def _best_path(log_probs: np.ndarray, states: np.ndarray, skip_score: np.ndarray) -> tuple[np.ndarray, float]:
    """The state at each step, [steps], and the path's score.

    `skip_score` [states] is 0 for a state that a move of two may enter, -inf for the others.
    """
    steps = len(log_probs)
    # Two states in front that are never entered spare the first states a case of their own.
    scores = np.full(2 + len(states), -np.inf)
    scores[2:4] = log_probs[0, states[:2]]
    checkpoints = [scores.copy()]
    for step in range(1, steps):
        # Only states that the start reaches and that reach the end; the others are never read again.
        low = max(0, len(states) - 2 * (steps - step))
        high = min(len(states), 2 * step + 2)
        stay, advance, skip = _moves(scores[low : high + 2], skip_score[low:high])
        best = np.maximum(np.maximum(stay, advance), skip)
        scores[low + 2 : high + 2] = best + log_probs[step, states[low:high]]
        if step % _CHECKPOINT_STEPS == 0:
            checkpoints.append(scores.copy())

    state = len(states) - 1
    if len(states) > 1 and scores[-2] > scores[-1]:
        state -= 1
    score = float(scores[2 + state])
    path = np.empty(steps, dtype=np.intp)
    path[-1] = state
    last = steps - 1
    while checkpoints:
        first = (len(checkpoints) - 1) * _CHECKPOINT_STEPS
        # In these steps the path comes from no further below, so no other states are needed.
        low, high = max(0, state - 2 * (last - first)), state + 1
        scores = checkpoints.pop()[low : high + 2]
        arrived_by = np.empty((last - first, high - low), dtype=np.int8)
        for step in range(first + 1, last + 1):
            stay, advance, skip = _moves(scores, skip_score[low:high])
            best = np.maximum(stay, advance)
            arrived_by[step - first - 1] = np.where(skip > best, 2, advance > stay)
            scores[2:] = np.maximum(best, skip) + log_probs[step, states[low:high]]
        for step in range(last, first, -1):
            state -= int(arrived_by[step - first - 1, state - low])
            path[step - 1] = state
        last = first
    return path, score


def _moves(scores: np.ndarray, skip_score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores [states] of staying in a state, of entering it from the one before, and from two before.

    `scores` begins two states before `skip_score` does.
    """
    return scores[2:], scores[1:-1], scores[:-2] + skip_score
