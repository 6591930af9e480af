"""Error rates from counts of words, characters and sentences."""

from collections.abc import Mapping

import numpy as np

from training.scoring.alignment import DELETIONS, SUBSTITUTIONS, Alignments

# Columns of a table of counts: one row an utterance, a speaker, a resample or a whole set.
WORDS = slice(0, 4)
CHARACTERS = slice(4, 8)
WRONG_SENTENCES, SENTENCES = 8, 9
COUNT_COLUMNS = 10

RATES = {
    "wer": "word error rate: (substitutions + deletions + insertions) / reference words",
    "cer": "the same of characters, spaces included",
    "ser": "sentence error rate: utterances with any error / utterances",
    "mer": "match error rate: errors / (reference words + insertions)",
    "wil": "word information lost: 1 - hits² / (reference words · hypothesis words)",
}


def count_table(alignments: Alignments) -> np.ndarray:
    """[utterances, COUNT_COLUMNS] int64: everything that a rate is made of, additive over utterances."""
    wrong = alignments.words[:, SUBSTITUTIONS:].any(axis=1)
    return np.column_stack(
        [alignments.words, alignments.characters, wrong, np.ones(len(wrong), np.int64)]
    ).astype(np.int64)


def rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Rates from counts [..., COUNT_COLUMNS], each [...]; the keys are those of `RATES`.

    NaN where there is nothing to divide by: no rate is defined on empty references, whose insertions the
    counts show. MER and WIL after Morris, Maier & Green 2004, "From WER and RIL to MER and WIL".
    """
    hits, substitutions, deletions, insertions = np.moveaxis(counts[..., WORDS], -1, 0)
    errors = substitutions + deletions + insertions
    said = hits + substitutions + deletions
    recognised = hits + substitutions + insertions
    characters = counts[..., CHARACTERS]
    # Without a hypothesis every word is lost, though hits / recognised is 0 / 0.
    kept = ratio(hits, said) * np.where(recognised == 0, 0.0, ratio(hits, recognised))
    return {
        "wer": ratio(errors, said),
        "cer": ratio(
            characters[..., SUBSTITUTIONS:].sum(axis=-1), characters[..., : DELETIONS + 1].sum(axis=-1)
        ),
        "ser": ratio(counts[..., WRONG_SENTENCES], counts[..., SENTENCES]),
        "mer": ratio(errors, said + insertions),
        "wil": 1 - kept,
    }


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Elementwise quotient; NaN where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0, np.nan, np.divide(numerator, denominator))


def word_counts(counts: np.ndarray) -> dict[str, int]:
    """By name, from one row of a table of counts."""
    hits, substitutions, deletions, insertions = map(int, counts[WORDS])
    return {
        "hits": hits,
        "substitutions": substitutions,
        "deletions": deletions,
        "insertions": insertions,
        "errors": substitutions + deletions + insertions,
        "words": hits + substitutions + deletions,
    }


def tally(counts: Mapping[str, int]) -> str:
    """`word_counts` in short: [errors / words, ins, del, sub]."""
    return "[{errors} / {words}, {insertions} ins, {deletions} del, {substitutions} sub]".format_map(counts)
