"""How accurate the times and the confidence of single words are."""

from collections.abc import Callable, Sequence

import numpy as np

from training.scoring.alignment import Operation
from training.scoring.transcripts import TimedWord


def normalized_words(
    words: Sequence[TimedWord], text: str, normalize: Callable[[str], str]
) -> list[TimedWord] | None:
    """The words of a normalised text with the time and confidence of the words they come from.

    None where the words, normalised one by one, are not those of the text: a normaliser may join words, as in
    "twenty one", and a confidence then belongs to no one word.
    """
    split = [
        TimedWord(part, word.start, word.end, word.confidence)
        for word in words
        for part in normalize(word.text).split()
    ]
    return split if [word.text for word in split] == text.split() else None


def judged_confidences(
    operations: Sequence[Operation], recognised: Sequence[TimedWord]
) -> list[tuple[float, bool]]:
    """(confidence, whether the word is right) of every word recognised that has a confidence."""
    return [
        (word.confidence, operation.kind == "equal")
        for operation in operations
        for word in recognised[operation.hypothesis_start : operation.hypothesis_end]
        if word.confidence is not None
    ]


def time_errors(
    operations: Sequence[Operation], said: Sequence[TimedWord], recognised: Sequence[TimedWord]
) -> np.ndarray:
    """[right words, 2]: seconds by which start and end of each come too late (negative: too early)."""
    errors = [
        (late.start - true.start, late.end - true.end)
        for operation in operations
        if operation.kind == "equal"
        for true, late in zip(
            said[operation.reference_start : operation.reference_end],
            recognised[operation.hypothesis_start : operation.hypothesis_end],
            strict=True,
        )
    ]
    return np.array(errors, np.float64).reshape(-1, 2)
