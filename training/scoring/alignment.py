"""Which reference word became which: the alignment with the fewest errors, and its counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import jiwer
import numpy as np

HITS, SUBSTITUTIONS, DELETIONS, INSERTIONS = range(4)
COLUMNS = {"equal": HITS, "substitute": SUBSTITUTIONS, "delete": DELETIONS, "insert": INSERTIONS}
_BLOCK = 5_000  # utterances that go to jiwer at once: its alignments of characters are large


class Operation(NamedTuple):
    """A run of words of one kind: "equal", "substitute", "delete" or "insert"; ends are exclusive."""

    kind: str
    reference_start: int
    reference_end: int
    hypothesis_start: int
    hypothesis_end: int

    @property
    def length(self) -> int:
        """How many words the run counts."""
        return max(self.reference_end - self.reference_start, self.hypothesis_end - self.hypothesis_start)


@dataclass(frozen=True)
class Alignments:
    """Utterances aligned one by one.

    Attributes:
      operations: for each utterance its runs of words, in order.
      words: int64 [utterances, 4], hits, substitutions, deletions and insertions of words.
      characters: int64 [utterances, 4], the same of characters, spaces between words included.
    """

    operations: list[tuple[Operation, ...]]
    words: np.ndarray
    characters: np.ndarray


def align(references: Sequence[str], hypotheses: Sequence[str]) -> Alignments:
    """Aligns texts whose words are separated by single spaces; either may be empty.

    Every error costs 1, as in the definition of WER. NIST sclite aligns with 4 for a substitution and 3 for a
    deletion or insertion: it may count an error more, or a deletion and an insertion for two substitutions.
    """
    operations: list[tuple[Operation, ...]] = []
    words = np.zeros((len(references), 4), np.int64)
    characters = np.zeros_like(words)
    for start in range(0, len(references), _BLOCK):
        block = slice(start, start + _BLOCK)
        pair = list(references[block]), list(hypotheses[block])
        operations += _operations(jiwer.process_words(*pair), words[block])
        _operations(jiwer.process_characters(*pair), characters[block])
    return Alignments(operations, words, characters)


def _operations(
    output: jiwer.WordOutput | jiwer.CharacterOutput, counts: np.ndarray
) -> list[tuple[Operation, ...]]:
    """Of each utterance; adds their lengths to counts [utterances, 4]."""
    found = [tuple(Operation(*vars(chunk).values()) for chunk in chunks) for chunks in output.alignments]
    for row, operations in zip(counts, found, strict=True):
        for operation in operations:
            row[COLUMNS[operation.kind]] += operation.length
    return found


def side_by_side(
    operations: Sequence[Operation], reference: Sequence[str], hypothesis: Sequence[str]
) -> Iterator[tuple[str, str | None, str | None]]:
    """The aligned words as (kind, reference word, hypothesis word); None where a side has no word."""
    for operation in operations:
        said = reference[operation.reference_start : operation.reference_end]
        recognised = hypothesis[operation.hypothesis_start : operation.hypothesis_end]
        for pair in zip_longest(said, recognised):
            yield operation.kind, *pair
