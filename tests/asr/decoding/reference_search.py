"""CTC prefix beam search on dictionaries of texts, to compare the compiled search with: exact and slow."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from asr.decoding.beam import BeamDecoder


class Text(NamedTuple):
    """What the language model and the hot words know of a text."""

    history: tuple[int, ...] = ()  # ids of its words
    word: str = ""  # letters of the unfinished one
    words_score: float = 0.0
    hotword_state: int = 0
    hotword_score: float = 0.0


class Prefix:
    """Log-probabilities of a prefix's paths, ending in a blank and in its last unit, and its text's score."""

    def __init__(self, text: Text, score: float):
        self.text, self.text_score = text, score
        self.blank = self.unit = -math.inf

    @property
    def acoustic(self) -> float:
        return log_add(self.blank, self.unit)

    @property
    def score(self) -> float:
        return self.acoustic + self.text_score


def search(log_probs: np.ndarray, decoder: BeamDecoder) -> list[tuple[float, tuple[int, ...]]]:
    """Scores and units of the last beam, best first: what `decoder.results` should give."""
    beam = {(): Prefix(Text(), 0.0)}
    beam[()].blank = 0.0
    for row in log_probs.astype(np.float64):
        beam = _step(beam, row, decoder)
    found = []
    for units, prefix in beam.items():
        text = _extend(prefix.text, " ", decoder)
        end = 0.0
        if model := decoder.language_model:
            end = decoder.alpha * model.log_prob((model.tables.begin_id, *text.history), model.tables.end_id)
        found.append((prefix.acoustic + text.words_score + end + text.hotword_score, units))
    return sorted(found, key=lambda one: -one[0])


def _step(beam: dict[tuple[int, ...], Prefix], row: np.ndarray, decoder: BeamDecoder):
    likely = [unit for unit in range(1, len(row)) if row[unit] >= min(decoder.least_unit_log_prob, row.max())]
    limit = next(iter(beam.values())).score + row.max() - decoder.score_margin
    candidates = {}
    for units, prefix in beam.items():
        same = candidates[units] = Prefix(prefix.text, prefix.text_score)
        same.blank = prefix.acoustic + row[0]
        same.unit = prefix.unit + row[units[-1]] if units else -math.inf
    for units, prefix in beam.items():
        for unit in likely:
            # A unit is repeated only after a blank.
            path = row[unit] + (prefix.blank if units[-1:] == (unit,) else prefix.acoustic)
            if path + prefix.text_score < limit or path == -math.inf:
                continue
            longer = (*units, unit)
            if longer not in candidates:
                text = _extend(prefix.text, decoder.tokenizer.symbols[unit], decoder)
                candidates[longer] = Prefix(text, _score(text, decoder))
            candidates[longer].unit = log_add(candidates[longer].unit, path)
    ranked = sorted(candidates.items(), key=lambda one: -one[1].score)[: decoder.beam]
    return {u: prefix for u, prefix in ranked if prefix.score >= ranked[0][1].score - decoder.score_margin}


def _extend(text: Text, symbol: str, decoder: BeamDecoder) -> Text:
    model = decoder.language_model
    for letter in symbol:
        state, score = walk(decoder.automaton, letter, text.hotword_state)
        text = text._replace(hotword_state=state, hotword_score=text.hotword_score + score)
        if letter != " ":
            text = text._replace(word=text.word + letter)
        elif text.word and model:
            score = decoder.alpha * model.log_prob(
                (model.tables.begin_id, *text.history), model.id(text.word)
            )
            score += decoder.beta - decoder.unknown_penalty * len(text.word) * (not model.knows(text.word))
            history = (*text.history, model.id(text.word))[-model.order :]
            text = text._replace(history=history, word="", words_score=text.words_score + score)
    return text


def _score(text: Text, decoder: BeamDecoder) -> float:
    """Score of a text that may go on: an unfinished word counts as all that it may become."""
    hotwords = text.hotword_score + float(decoder.automaton.credit[text.hotword_state])
    return text.words_score + _unfinished(text.word, decoder) + hotwords


def _unfinished(word: str, decoder: BeamDecoder) -> float:
    model = decoder.language_model
    if not (word and model):
        return 0.0
    possible = [id for id in range(model.vocabulary_size) if model.word(id).startswith(word)]
    if possible:  # neighbours: words are sorted
        below, above = model.cumulative_probability[[possible[0], possible[-1] + 1]]
        return decoder.alpha * math.log(above - below)
    unknown = float(model.tables.unigram_log_probs[model.tables.unknown_id])
    return decoder.alpha * unknown - decoder.unknown_penalty * len(word)


def log_add(a: float, b: float) -> float:
    """ln(e^a + e^b), rounded as the compiled search rounds it, so that ties are broken alike."""
    a, b = max(a, b), min(a, b)
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))


def walk(automaton, text: str, state: int = 0) -> tuple[int, float]:
    """The state of the hot words' automaton after a text, and the rewards on the way."""
    total = 0.0
    for byte in text.encode():
        state = int(automaton.next[state, byte])
        total += float(automaton.reward[state])
    return state, total
