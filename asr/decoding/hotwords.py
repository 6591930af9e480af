"""Names and terms to expect: phrases whose letters are worth more while a text spells them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from asr.text import WORD_BOUNDARY, Units, normalize

# Nats a letter. A letter that was not heard at all costs more, so that no boost can write it.
MAX_WEIGHT = 5.0

_START, _LOST = 0, 1  # states: at a word's start; inside a word that no phrase has in this place


class HotwordError(ValueError):
    """Hot words that could not do anything: one line that names the phrase and the reason."""


class HotwordAutomaton(NamedTuple):
    """A trie of phrases as an automaton over bytes (Aho & Corasick 1975, but matches begin and end at words).

    A phrase counts when the space after its last word is written, or the text ends. Until then its letters
    are worth `credit`, which is gone in the next state if the text goes another way.
    """

    next: np.ndarray  # int32 [states, 256]
    credit: np.ndarray  # float64 [states]: nats, while in the state
    reward: np.ndarray  # float64 [states]: nats for good, on arriving in the state


def spelled(phrases: Sequence[str], units: Units) -> list[str]:
    """The phrases as transcripts would have them: case and accents folded.

    Raises HotwordError for one without letters, and for one that the units cannot write.
    """
    texts = []
    for phrase in phrases:
        text = normalize(phrase)
        if not text:
            raise HotwordError(f"hot word {phrase!r} has no letters: write it as it is spoken")
        if not _spellable(text, units):
            raise HotwordError(f"hot word {phrase!r} cannot be written with the units of this model")
        texts.append(text)
    return list(dict.fromkeys(texts))


def build_automaton(
    texts: Sequence[str], weight: float, unknown_cost: Callable[[str, bool], float]
) -> HotwordAutomaton:
    """The automaton of some phrases.

    Args:
      texts: what `spelled` gave.
      weight: nats for each letter of a phrase, in (0, `MAX_WEIGHT`].
      unknown_cost: (letters of a word, whether it is finished) → nats that the language model takes off
        because it does not know the word; a hot word gets them back.

    Raises HotwordError where the weight is out of its range.
    """
    if texts and not 0 < weight <= MAX_WEIGHT:
        raise HotwordError(f"hot word weight {weight:g} is not above 0 and at most {MAX_WEIGHT:g}")
    children: list[dict[int, int]] = [{}, {}]
    credit, reward = [0.0, 0.0], [0.0, 0.0]
    for text in sorted(texts):  # a phrase before those that it begins
        state, pending, finished = _START, 0.0, 0.0
        word = ""
        for letter in text + WORD_BOUNDARY:
            if letter == WORD_BOUNDARY:
                finished += unknown_cost(word, True)
                word = ""
            else:
                pending += weight
                word += letter
            for byte in letter.encode():
                if byte not in children[state]:
                    children[state][byte] = len(children)
                    children.append({})
                    credit.append(pending + finished + (unknown_cost(word, False) if word else 0.0))
                    reward.append(0.0)
                state = children[state][byte]
            if reward[state]:
                pending = finished = 0.0
        reward[state], credit[state] = pending + finished, 0.0

    next_states = np.full((len(children), 256), _LOST, dtype=np.int32)
    boundary = ord(WORD_BOUNDARY)
    next_states[:2, boundary] = _START
    queue = list(children[_START].items())
    for byte, child in queue:
        next_states[_START, byte] = child
    # Each state with the one of its longest shorter suffix that begins at a word; breadth first.
    pairs = [(child, _LOST, byte) for byte, child in queue]
    for state, suffix, byte in pairs:
        next_states[state] = next_states[suffix]
        for next_byte, child in children[state].items():
            pairs.append((child, int(next_states[suffix, next_byte]), next_byte))
            next_states[state, next_byte] = child
        if byte == boundary and not reward[state]:
            reward[state] = reward[suffix]
    return HotwordAutomaton(next_states, np.array(credit), np.array(reward))


class HotwordScorer:
    """The automaton as a scorer of the plain search; a state is (the automaton's, nats for good)."""

    def __init__(self, automaton: HotwordAutomaton):
        self.automaton = automaton

    def start(self) -> tuple[int, float]:
        return _START, 0.0

    def extend(self, state: tuple[int, float], symbol: str) -> tuple[int, float]:
        place, settled = state
        for byte in symbol.encode():
            place = int(self.automaton.next[place, byte])
            settled += float(self.automaton.reward[place])
        return place, settled

    def score(self, state: tuple[int, float]) -> float:
        return state[1] + float(self.automaton.credit[state[0]])

    def final_score(self, state: tuple[int, float]) -> float:
        return self.extend(state, WORD_BOUNDARY)[1]


def _spellable(text: str, units: Units) -> bool:
    """Whether the text, or the text after a space (subwords have theirs in front), is a row of units."""
    symbols = {symbol for symbol in units.symbols if symbol}
    longest = max(map(len, symbols), default=0)

    def reachable(text: str) -> bool:
        reached = [True] + [False] * len(text)
        for end in range(1, len(text) + 1):
            reached[end] = any(
                reached[start] and text[start:end] in symbols for start in range(max(0, end - longest), end)
            )
        return reached[-1]

    return reachable(text) or reachable(WORD_BOUNDARY + text)
