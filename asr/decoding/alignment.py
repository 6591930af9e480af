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

    Time is O(steps × units); memory is one row of states per 1,024 steps. An hour of speech (90,000 steps,
    54,000 units) takes 5 seconds and 100 MB.

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

    units = np.append(labels, BLANK_ID)  # so that the last blank has a unit behind it, which is never used
    skip_scores = np.full(len(units), -np.inf)  # 0 where the blank before a unit may be left out
    skip_scores[1:-1] = np.where(labels[1:] == labels[:-1], -np.inf, 0.0)
    path, score = _best_path(np.ascontiguousarray(log_probs), units, skip_scores, _CHECKPOINT_STEPS)
    if score == -np.inf:
        raise ValueError("the text has probability 0 under these log-probs")
    states = np.arange(1, 2 * len(labels), 2)
    firsts, ends = np.searchsorted(path, states, side="left"), np.searchsorted(path, states, side="right")
    steps_of_units = tuple(zip(firsts.tolist(), (ends - 1).tolist(), strict=True))
    return Hypothesis(units=tuple(labels.tolist()), steps=steps_of_units, score=score, text="")


@compiled
def _best_path(log_probs, units, skip_scores, checkpoint_steps):
    """The state at each step, [steps], and the path's score; states are numbered as in `forced_align`."""
    steps, states = len(log_probs), 2 * len(units) - 1
    scores = np.full(states + 1, -np.inf)
    scores[0] = 0.0  # before the first step, as after a blank
    moves = np.empty(states + 1, np.int8)
    checkpoints = np.empty(((steps - 1) // checkpoint_steps + 1, states + 1))
    for step in range(steps):
        if step % checkpoint_steps == 0:
            for i in range(len(scores)):  # an assignment takes numba seconds to compile
                checkpoints[step // checkpoint_steps, i] = scores[i]
        # Only states that can be reached from the start and from which the end can be reached.
        low, high = max(0, states - 2 * (steps - step)), min(states, 2 * step + 2)
        _advance(scores, log_probs[step], units, skip_scores, low // 2, (high - 1) // 2, moves)

    state = states - 1
    if states > 1 and scores[states - 2] > scores[states - 1]:
        state -= 1
    score = scores[state]
    path = np.empty(steps, np.int64)
    end = steps
    for block in range(len(checkpoints) - 1, -1, -1):
        first = block * checkpoint_steps
        # In these steps the path comes from no further below, so no other states are needed.
        low, high = max(0, state - 2 * (end - first)) // 2, state // 2
        arrived_by = np.empty((end - first, 2 * (high - low + 1)), np.int8)
        for step in range(first, end):
            _advance(
                checkpoints[block], log_probs[step], units, skip_scores, low, high, arrived_by[step - first]
            )
        for step in range(end - 1, first - 1, -1):
            path[step] = state
            state -= arrived_by[step - first, state - 2 * low]
        end = first
    return path, score


@compiled
def _advance(scores, row, units, skip_scores, low, high, moves):
    """One step further for the units from `low` to `high`, each with the blank before it, in place."""
    for i in range(high, low - 1, -1):  # from above: a state is reached from those below it
        before = scores[2 * i - 1] if i > 0 else -np.inf
        blank, unit = scores[2 * i], scores[2 * i + 1]
        best = blank if blank > unit else unit
        skip = before + skip_scores[i]
        scores[2 * i + 1] = (skip if skip > best else best) + row[units[i]]
        moves[2 * (i - low) + 1] = 2 if skip > best else (1 if blank > unit else 0)
        scores[2 * i] = (before if before > blank else blank) + row[BLANK_ID]
        moves[2 * (i - low)] = 1 if before > blank else 0
