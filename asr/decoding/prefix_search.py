"""CTC prefix beam search, to be read: plain dictionaries, any scorers.

Hannun et al. 2014, "First-pass large vocabulary continuous speech recognition using bi-directional recurrent
DNNs": a prefix keeps the probability of all paths that spell it, those that end in a blank apart from those
that end in its last unit. `compiled_search.py` does the same, fast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from asr.decoding.scorers import Scorer
from asr.tokenizer import BLANK_ID, Tokenizer


class Pruning(NamedTuple):
    """What is not looked at.

    Attributes:
      beam: prefixes kept after each step.
      score_margin: nats below the best prefix; what is further down is dropped.
      least_unit_log_prob: units below that are not appended (the best unit of a step always is).
    """

    beam: int
    score_margin: float
    least_unit_log_prob: float


class _Entry:
    """A prefix in the beam: logarithms of its paths' probabilities, and what the scorers think of it."""

    def __init__(self, units: tuple[int, ...], states: list[Any], language: float):
        self.units, self.states, self.language = units, states, language
        self.blank = self.unit = -math.inf

    @property
    def sound(self) -> float:
        return log_add(self.blank, self.unit)

    @property
    def score(self) -> float:
        return self.sound + self.language


def search(
    log_probs: np.ndarray, tokenizer: Tokenizer, scorers: Sequence[Scorer], pruning: Pruning
) -> list[tuple[float, tuple[int, ...]]]:
    """The prefixes that the beam holds after the last step, best first, with their scores.

    A score is ln P(units | sound) plus what each scorer gives for the whole text.

    Args:
      log_probs: [steps, units], natural logarithms.
      tokenizer: of the model that gave the log-probs.
      scorers: what else speaks for a text.
      pruning: how much to keep.
    """
    states = [scorer.start() for scorer in scorers]
    root = _Entry((), states, _language(scorers, states))
    root.blank = 0.0
    beam = [root]
    for row in log_probs.astype(np.float64):
        beam = _step(beam, row, tokenizer, scorers, pruning)

    finals = [
        entry.sound
        + sum(scorer.final_score(state) for scorer, state in zip(scorers, entry.states, strict=True))
        for entry in beam
    ]
    order = sorted(range(len(beam)), key=lambda i: -finals[i])
    return [(finals[i], beam[i].units) for i in order]


def _step(
    beam: list[_Entry], row: np.ndarray, tokenizer: Tokenizer, scorers: Sequence[Scorer], pruning: Pruning
) -> list[_Entry]:
    best_unit = row.max()
    likely = [u for u in range(1, len(row)) if row[u] >= min(pruning.least_unit_log_prob, best_unit)]
    limit = beam[0].score + best_unit - pruning.score_margin

    candidates: dict[tuple[int, ...], _Entry] = {}
    for entry in beam:  # the same text as before
        stay = candidates[entry.units] = _Entry(entry.units, entry.states, entry.language)
        stay.blank = entry.sound + row[BLANK_ID]
        if entry.units:
            stay.unit = entry.unit + row[entry.units[-1]]
    for entry in beam:  # one unit more
        for unit in likely:
            # A unit is repeated only after a blank.
            before = entry.blank if entry.units[-1:] == (unit,) else entry.sound
            arrival = before + row[unit]
            if arrival + entry.language < limit or arrival == -math.inf:
                continue
            text = (*entry.units, unit)
            if text not in candidates:
                states = [
                    scorer.extend(state, tokenizer.symbols[unit])
                    for scorer, state in zip(scorers, entry.states, strict=True)
                ]
                candidates[text] = _Entry(text, states, _language(scorers, states))
            candidates[text].unit = log_add(candidates[text].unit, arrival)

    ranked = sorted(candidates.values(), key=lambda entry: -entry.score)
    least = ranked[0].score - pruning.score_margin
    return [entry for entry in ranked[: pruning.beam] if entry.score >= least]


def _language(scorers: Sequence[Scorer], states: Sequence[Any]) -> float:
    return sum(scorer.score(state) for scorer, state in zip(scorers, states, strict=True))


def log_add(a: float, b: float) -> float:
    """ln(e^a + e^b)."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))
