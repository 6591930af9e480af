"""Hot words: names and terms to expect, whose letters score more while a text spells them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from asr.tokenizer import WORD_BOUNDARY, Tokenizer

MAX_WEIGHT = 2.0  # nats a letter
# Nats a phrase, however long. A letter that the model is sure to be another one costs some 7: no boost makes
# up for two of them, so a word that only resembles a hot word is not replaced.
MAX_BOOST = 10.0

_START, _LOST = 0, 1  # states: at a word's start; inside a word that no phrase has here


class HotwordError(ValueError):
    """A hot word that cannot work: one line that names the phrase and the reason."""


class HotwordAutomaton(NamedTuple):
    """A trie of phrases as an automaton over bytes (Aho & Corasick 1975, but matches begin and end at words).

    A phrase counts when the space after its last word is written, or the text ends. Until then its letters
    score `credit`, which is gone in the next state if the text goes another way.
    """

    next: np.ndarray  # int32 [states, 256]
    credit: np.ndarray  # float64 [states]: nats, while in the state
    reward: np.ndarray  # float64 [states]: nats for good, on arriving in the state


def spelled(phrases: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """The phrases as transcripts would have them: case and accents folded. A string alone is one phrase.

    Raises HotwordError for one without letters, or with letters or digits that the model does not write.
    """
    texts = []
    for phrase in [phrases] if isinstance(phrases, str) else phrases:
        text = tokenizer.normalize(phrase)
        if not text:
            raise HotwordError(f"hot word {phrase!r} has no letters: write it as it is spoken")
        if lost := tokenizer.lost(phrase):
            raise HotwordError(
                f"hot word {phrase!r} has {' '.join(lost)}, which this model does not write: "
                "write it as it is spoken"
            )
        texts.append(text)
    return list(dict.fromkeys(texts))


def build_automaton(
    texts: Sequence[str], weight: float, unknown_cost: Callable[[str, bool], float]
) -> HotwordAutomaton:
    """The automaton of some phrases.

    Args:
      texts: what `spelled` gave.
      weight: nats for each letter of a phrase, in (0, `MAX_WEIGHT`]; `MAX_BOOST` bounds their sum.
      unknown_cost: (letters of a word, whether it is finished) → nats that the language model takes off
        because it does not know the word; a hot word gets them back.

    Raises HotwordError where the weight is out of its range.
    """
    if texts and not 0 < weight <= MAX_WEIGHT:
        raise HotwordError(f"hot word weight {weight:g} is not above 0 and at most {MAX_WEIGHT:g}")
    children: list[dict[int, int]] = [{}, {}]
    scores = [0.0, 0.0]  # of the letters so far, if they are all of a phrase
    ends = {_add(text, children, scores, weight, unknown_cost) for text in sorted(texts, key=len)}

    next_states = np.full((len(children), 256), _LOST, dtype=np.int32)
    next_states[[_START, _LOST], ord(WORD_BOUNDARY)] = _START
    reward, credit = np.zeros(len(children)), np.zeros(len(children))
    granted = np.zeros(len(children))  # all rewards on the way from the start
    for byte, child in children[_START].items():
        next_states[_START, byte] = child
    # Each state with its longest shorter suffix that begins at a word, and the state before; breadth first.
    queue = [(child, _LOST, _START) for child in children[_START].values()]
    for state, suffix, before in queue:
        next_states[state] = next_states[suffix]
        for byte, child in children[state].items():
            queue.append((child, int(next_states[suffix, byte]), state))
            next_states[state, byte] = child
        reward[state] = scores[state] - granted[before] if state in ends else reward[suffix]
        granted[state] = granted[before] + reward[state]
        credit[state] = scores[state] - granted[state]
    return HotwordAutomaton(next_states, credit, reward)


def _add(
    text: str,
    children: list[dict[int, int]],
    scores: list[float],
    weight: float,
    unknown_cost: Callable[[str, bool], float],
) -> int:
    """Adds a phrase to the trie; returns the state after the space that ends it."""
    letters = len(text.replace(WORD_BOUNDARY, ""))
    weight = min(weight, MAX_BOOST / letters)
    state, letters_score, word = _START, 0.0, ""
    for letter in text + WORD_BOUNDARY:
        if letter == WORD_BOUNDARY:
            letters_score += unknown_cost(word, True)
            word = ""
        else:
            letters_score += weight
            word += letter
        for byte in letter.encode():
            if byte not in children[state]:
                children[state][byte] = len(children)
                children.append({})
                scores.append(letters_score + (unknown_cost(word, False) if word else 0.0))
            state = children[state][byte]
    return state
