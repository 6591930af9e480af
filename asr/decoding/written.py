"""Words as an attention decoder writes them, and the words that are spoken for them."""

import difflib
from collections.abc import Iterator, Sequence

import numpy as np

from asr.decoding import WrittenWord
from asr.tokenizer import WORD_BOUNDARY, Tokenizer

ALIKE = 0.5  # fraction of the letters of a phrase that words like it have


def joined(words: Sequence[WrittenWord]) -> str:
    """The words as a text."""
    return WORD_BOUNDARY.join(word.text for word in words)


def with_capitals(words: Sequence[str], at_start: bool) -> str:
    """English words in lower case as a sentence has them: a capital first, "I" and "I'm"."""
    written = [word.capitalize() if word == "i" or word.startswith("i'") else word for word in words]
    if at_start and written:
        written[0] = written[0].capitalize()
    return WORD_BOUNDARY.join(written)


def spoken_words(written: Sequence[str], by_ctc: Sequence[str], tokenizer: Tokenizer) -> list[list[str]]:
    """The spoken words of each written one: its letters, or of "1984" and "$5" what CTC has in their place.

    Args:
      written: words with capitals, punctuation and digits.
      by_ctc: the words of CTC.
    """
    forms = [None if tokenizer.lost(word) else tokenizer.normalize(word).split() for word in written]
    ours = [word for form in forms for word in ([None] if form is None else form)]
    found, place, end = [], 0, 0
    for form in forms:
        if form is None:
            start, end_there = counterpart(ours, by_ctc, place, place + 1)
            form = list(by_ctc[max(start, end) : end_there])
            end, place = end_there, place + 1
        else:
            place += len(form)
        found.append(form)
    return found


def alike(phrase: Sequence[str], words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """First and last + 1 of the words that have ALIKE of the letters of a phrase."""
    matcher = difflib.SequenceMatcher(None, b="".join(phrase), autojunk=False)
    for length in range(1, len(phrase) + 3):
        for first in range(len(words) - length + 1):
            matcher.set_seq1("".join(words[first : first + length]))
            ratios = matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio  # from fast to right
            if all(ratio() >= ALIKE for ratio in ratios):
                yield first, first + length


def places_of(phrase: Sequence[str], words: Sequence[str]) -> list[int]:
    """Where the phrase stands in the words: the place of its first word each time."""
    count = len(phrase)
    return [i for i in range(len(words) - count + 1) if [*words[i : i + count]] == [*phrase]]


def counterpart(ours: Sequence, theirs: Sequence, first: int, last: int) -> tuple[int, int]:
    """First and last + 1 of the words of `theirs` in place of ours[first:last].

    Where the two differ, words are counted off from both ends of the stretch.
    """
    start = end = 0
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=False)
    for _, our_first, our_last, their_first, their_last in matcher.get_opcodes():
        count = their_last - their_first
        if our_first <= first < our_last:
            start = their_first + min(first - our_first, count)
        if our_first < last <= our_last:
            end = their_last - min(our_last - last, count)
    return start, max(start, end)


def replaced(
    words: Sequence[WrittenWord], first: int, last: int, text: str, spoken: int
) -> tuple[WrittenWord, ...]:
    """Written words with `text` in place of those whose spoken words are first, …, last - 1."""
    ends = np.cumsum([word.spoken for word in words])
    begin, end = (int(np.searchsorted(ends, place, side="right")) for place in (first, last - 1))
    end = max(begin, end + 1) if last > first else begin
    marks = words[end - 1].text[len(words[end - 1].text.rstrip(".,?!;:")) :] if end > begin else ""
    least = min((word.log_prob for word in words[begin:end]), default=0.0)
    return (*words[:begin], WrittenWord(text + marks, spoken, least), *words[end:])
