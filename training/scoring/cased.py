"""How well capitals and punctuation are written: counts on texts as they are, without a normaliser.

WER is that of `written_words`, in which a missing comma or capital makes a word wrong. Sentence ends, commas
and capitals are judged on the words of reference and hypothesis that are aligned with equal letters and
digits, so that a misrecognised word does not count twice:

- sentence end: ".", "?" or "!" after the last letter of the word, whichever of the three it is;
- comma: "," there;
- capital: the first letter of the word is a capital.

Precision is the fraction of the recognised marks that the reference has, recall the fraction of the
reference's that are recognised, F1 their harmonic mean.
"""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from training.scoring.alignment import align
from training.scoring.measures import COUNT_COLUMNS, count_table, ratio

MARKS = ("sentence end", "comma", "capital")
EQUAL_WORDS = COUNT_COLUMNS
CASED_COLUMNS = COUNT_COLUMNS + 1 + 3 * len(MARKS)

_AS_TYPED = str.maketrans("‘’‚‛ʼ“”„‟«»‐‑‒–—―−", "'''''" + '""""""' + "-------")


def written_words(text: str) -> list[str]:
    """Words as written, with the punctuation that touches them.

    The text is split at white space after NFKC ("…" becomes "..."), with quotes, apostrophes and dashes as on
    a keyboard. What has no letter or digit belongs to the word before it, or to the first word: "No - wait"
    is "No-" and "wait".
    """
    words: list[str] = []
    for token in unicodedata.normalize("NFKC", text.translate(_AS_TYPED)).split():
        if words and not (_letters(token) and _letters(words[-1])):
            words[-1] += token
        else:
            words.append(token)
    return [word for word in words if _letters(word)]


def cased_counts(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """[utterances, CASED_COLUMNS] int64: of `count_table`, the words with equal letters, and for each of
    MARKS the number of these words that have it in both texts, in the hypothesis, and in the reference.
    """
    pairs = [tuple(map(written_words, pair)) for pair in zip(references, hypotheses, strict=True)]
    words = count_table(align(*([" ".join(pair[side]) for pair in pairs] for side in (0, 1))))
    letters = [[" ".join(map(_letters, side)) for side in pair] for pair in pairs]
    # Among alignments with equally many errors the choice must not depend on which text is the reference.
    operations = align([min(pair) for pair in letters], [max(pair) for pair in letters]).operations
    marks = np.zeros((len(pairs), CASED_COLUMNS - EQUAL_WORDS), np.int64)
    for row, pair, in_letters, runs in zip(marks, pairs, letters, operations, strict=True):
        first, second = pair if in_letters[0] <= in_letters[1] else pair[::-1]
        for kind, start, end, other_start, other_end in runs:
            if kind == "equal":
                sides = [_marks(first[start:end]), _marks(second[other_start:other_end])]
                written, recognised = sides if first is pair[0] else sides[::-1]
                row[0] += len(written)
                row[1:] += np.stack([written & recognised, recognised, written], axis=-1).sum(axis=0).ravel()
    return np.hstack([words, marks])


def mark_counts(counts: np.ndarray) -> np.ndarray:
    """[..., MARKS, 3] marks in both texts, in the hypothesis and in the reference, from counts [...,
    CASED_COLUMNS].
    """
    return counts[..., EQUAL_WORDS + 1 :].reshape(*counts.shape[:-1], len(MARKS), 3)


def mark_rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1, each [...], from `mark_counts` [..., 3]; NaN for 0 / 0."""
    both, recognised, written = np.moveaxis(counts, -1, 0)
    return {
        "precision": ratio(both, recognised),
        "recall": ratio(both, written),
        "f1": ratio(2 * both, recognised + written),
    }


def _letters(word: str) -> str:
    """What words are compared by: letters and digits, without case."""
    return "".join(filter(str.isalnum, word.casefold()))


def _marks(words: Sequence[str]) -> np.ndarray:
    """bool [words, MARKS]."""
    found = []
    for word in words:
        after = re.search(r"[\W_]*$", word)[0]
        capital = next(filter(str.isalnum, word), "").isupper()
        found.append((bool(set(".?!") & set(after)), "," in after, capital))
    return np.array(found, bool).reshape(-1, len(MARKS))
