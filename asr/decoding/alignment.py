"""Viterbi forced alignment: the steps of each unit of a known text."""

from collections.abc import Sequence

import numpy as np

from asr.decoding import Hypothesis, check_log_probs
from asr.decoding.compilation import compiled
from asr.tokenizer import BLANK_ID

# Steps × states; about two hours of speech at 25 steps and 15 characters per second.
MAX_CELLS = 40_000_000_000

# Scores are stored every so many steps; the moves in between are recomputed during backtracking.
_CHECKPOINT_STEPS = 1024


def forced_align(log_probs: np.ndarray, unit_ids: Sequence[int]) -> Hypothesis:
    """The most probable CTC path for the units (Viterbi on the lattice of Graves et al. 2006).

    States are the units with a blank before, between and after them. At each step a path stays, moves on by
    one state, or by two to skip the blank between different units. It begins in one of the first two states
    and ends in one of the last two.

    The result is exact. Time is O(steps × units); memory is one row of states per 1,024 steps. An hour of
    speech (90,000 steps, 54,000 units) takes half a minute and 100 MB.

    Args:
      log_probs: [steps, units], natural logarithms.
      unit_ids: of the text, without blanks; may be empty.

    Returns:
      A hypothesis of these units; its score is the log-probability of the path.

    Raises:
      ValueError: NaN; an id that is blank or out of range; fewer steps than the units need (equal neighbours
        need a blank between them); a text of probability 0; more than `MAX_CELLS` steps × states.
    """
    check_log_probs(log_probs)
    labels = np.asarray(unit_ids, dtype=np.int64)
    steps, size = log_probs.shape
    if len(labels) and (labels.min() <= BLANK_ID or labels.max() >= size):
        raise ValueError(f"unit ids must be between {BLANK_ID + 1} and {size - 1}")
    needed = len(labels) + int(np.count_nonzero(labels[1:] == labels[:-1]))
    if steps < needed:
        raise ValueError(f"the text needs at least {needed} steps, but the sound has {steps}")
    if steps == 0:
        return Hypothesis(units=(), steps=(), score=0.0, text="")

    if steps * (2 * len(labels) + 1) > MAX_CELLS:
        raise ValueError(
            f"{steps} steps and {len(labels)} units are too many at once: align the recording in parts"
        )

    path, score = _best_path(np.ascontiguousarray(log_probs), labels, _CHECKPOINT_STEPS)
    if score == -np.inf:
        raise ValueError("the text has probability 0 under these log-probs")
    firsts = np.searchsorted(path, np.arange(1, 2 * len(labels), 2), side="left")
    lasts = np.searchsorted(path, np.arange(1, 2 * len(labels), 2), side="right") - 1
    return Hypothesis(
        units=tuple(labels.tolist()),
        steps=tuple(zip(firsts.tolist(), lasts.tolist(), strict=True)),
        score=score,
        text="",
    )


@compiled
def _best_path(log_probs, labels, checkpoint_steps):
    """The state at each step, [steps], and the score of the path; for the states see `forced_align`."""
    steps, states = len(log_probs), 2 * len(labels) + 1
    scores = np.full(states, -np.inf)
    scores[0] = 0.0  # before the first step, like after a blank
    moves = np.empty(states, np.int8)
    checkpoints = np.empty(((steps - 1) // checkpoint_steps + 1, states))
    for step in range(steps):
        if step % checkpoint_steps == 0:
            checkpoints[step // checkpoint_steps] = scores
        # Only states that can be reached from the start and can reach the end.
        low, high = max(0, states - 2 * (steps - step)), min(states, 2 * step + 2)
        _advance(scores, log_probs[step], labels, low, high, moves)

    state = states - 1
    if states > 1 and scores[states - 2] > scores[states - 1]:
        state -= 1
    score = scores[state]
    path = np.empty(steps, np.int64)
    end = steps
    for block in range(len(checkpoints) - 1, -1, -1):
        first = block * checkpoint_steps
        # Only states from which the path can have come.
        low, high = max(0, state - 2 * (end - first)), state + 1
        arrived_by = np.empty((end - first, high - low), np.int8)
        for step in range(first, end):
            _advance(checkpoints[block], log_probs[step], labels, low, high, arrived_by[step - first])
        for step in range(end - 1, first - 1, -1):
            path[step] = state
            state -= arrived_by[step - first, state - low]
        end = first
    return path, score


@compiled
def _advance(scores, row, labels, low, high, moves):
    """Advances the states from `low` to `high` - 1 by one step: writes `scores` and `moves` in place."""
    for state in range(high - 1, low - 1, -1):  # downwards, since a state is reached from lower ones
        best, move = scores[state], 0
        if state > 0 and scores[state - 1] > best:
            best, move = scores[state - 1], 1
        unit = BLANK_ID
        if state % 2 == 1:
            unit = labels[state // 2]
            if state > 1 and unit != labels[state // 2 - 1] and scores[state - 2] > best:
                best, move = scores[state - 2], 2
        scores[state] = best + row[unit]
        moves[state - low] = move
