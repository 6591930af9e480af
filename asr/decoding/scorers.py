"""What else than the sound speaks for a text: scorers of prefixes, as the plain search asks them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

from asr.decoding.ngram import END, NgramModel, narrowed, word_length
from asr.tokenizer import WORD_BOUNDARY


class Scorer(Protocol):
    """Says what a text is worth, in natural logarithms that are added to the sound's.

    States are immutable and of any type. The worth is that of the whole text so far, not of the last unit, so
    that credit given in advance is taken back by no longer counting it.
    """

    def start(self) -> Any:
        """The state of the empty text."""

    def extend(self, state: Any, symbol: str) -> Any:
        """The state after one more unit; `symbol` is its text, where a space ends a word."""

    def score(self, state: Any) -> float:
        """What the text so far is worth if more may follow."""

    def final_score(self, state: Any) -> float:
        """What it is worth if it ends here."""


class WordState(NamedTuple):
    """`settled` is the worth of the finished words. The unfinished one has `letters` bytes; the words from id
    `first` to `last` - 1 begin with them.
    """

    history: tuple[int, ...]
    settled: float
    first: int
    last: int
    letters: int


class WordScorer:
    """A word n-gram model, asked at each word's end, and in advance for what an unfinished word may become.

    A word w is worth alpha · ln P(w | words before) + beta. An unknown word is worth what `<unk>` is, less
    `unknown_penalty` for each of its letters: never impossible, and dearer the longer it is, so that leaving
    out the space between two words does not pay. The first letters of a word are worth
    alpha · ln(sum of the unigram probabilities of all words that begin so) until the word is finished.
    """

    def __init__(self, model: NgramModel, alpha: float, beta: float, unknown_penalty: float):
        self.model, self.alpha, self.beta, self.unknown_penalty = model, alpha, beta, unknown_penalty

    def start(self) -> WordState:
        return WordState((self.model.tables.begin_id,), 0.0, 0, self.model.vocabulary_size, 0)

    def extend(self, state: WordState, symbol: str) -> WordState:
        for letter in symbol.encode():
            if letter == ord(WORD_BOUNDARY):
                state = self._finished(state)
            else:
                first, last = narrowed(self.model.tables, state.first, state.last, state.letters, letter)
                state = state._replace(first=first, last=last, letters=state.letters + 1)
        return state

    def score(self, state: WordState) -> float:
        if state.letters == 0:
            return state.settled
        mass = self.model.mass[state.last] - self.model.mass[state.first]
        if mass > 0:
            return state.settled + self.alpha * math.log(mass)
        tables = self.model.tables
        unknown = float(tables.unigram_log_probs[tables.unknown_id])
        return state.settled + (self.alpha * unknown - self.unknown_penalty * state.letters)

    def final_score(self, state: WordState) -> float:
        state = self._finished(state)
        return state.settled + self.alpha * self.model.log_prob(state.history, self.model.tables.end_id)

    def _finished(self, state: WordState) -> WordState:
        if state.letters == 0:
            return state
        tables = self.model.tables
        known = state.first < state.last and word_length(tables, state.first) == state.letters
        word = state.first if known else tables.unknown_id
        worth = self.alpha * self.model.log_prob(state.history, word) + self.beta
        if not known:
            worth -= self.unknown_penalty * state.letters
        history = (*state.history, word)[-max(1, self.model.order - 1) :]
        return WordState(history, state.settled + worth, 0, self.model.vocabulary_size, 0)


class KenlmScorer:
    """A KenLM model (its binaries too) through the optional package `kenlm`; for the plain, slow search only.

    The worth is that of `WordScorer`, but for unfinished words, which cost nothing: KenLM cannot tell what
    they may become.
    """

    def __init__(self, path: str, alpha: float, beta: float, unknown_penalty: float):
        import kenlm

        self._kenlm, self.model = kenlm, kenlm.Model(path)
        self.alpha, self.beta, self.unknown_penalty = alpha, beta, unknown_penalty

    def start(self) -> tuple:
        state = self._kenlm.State()
        self.model.BeginSentenceWrite(state)
        return state, "", 0.0

    def extend(self, state: tuple, symbol: str) -> tuple:
        history, word, settled = state
        for letter in symbol:
            if letter != WORD_BOUNDARY:
                word += letter
            elif word:
                history, settled = self._scored(history, word, settled)
                word = ""
        return history, word, settled

    def score(self, state: tuple) -> float:
        return state[2]

    def final_score(self, state: tuple) -> float:
        history, _, settled = self.extend(state, WORD_BOUNDARY)
        return settled + self.alpha * math.log(10) * self.model.BaseScore(history, END, self._kenlm.State())

    def _scored(self, history: Any, word: str, settled: float) -> tuple:
        after = self._kenlm.State()
        worth = self.alpha * math.log(10) * self.model.BaseScore(history, word, after) + self.beta
        if word not in self.model:
            worth -= self.unknown_penalty * len(word.encode())
        return after, settled + worth
