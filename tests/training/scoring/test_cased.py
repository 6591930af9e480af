"""training/scoring/cased.py: what counts as a word, a sentence end, a comma and a capital."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.scoring.cased import (
    CASED_COLUMNS,
    EQUAL_WORDS,
    cased_counts,
    mark_counts,
    mark_rates,
    written_words,
)
from training.scoring.measures import COUNT_COLUMNS, rates, word_counts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hold on, I'm  coming!", ["Hold", "on,", "I'm", "coming!"]),
        ("“Wait…” – he said", ['"Wait..."-', "he", "said"]),
        ("He\u00a0paid $3.50 .", ["He", "paid", "$3.50."]),
        ("— Well", ["-Well"]),
        ("It’s a well-known “fact”.", ["It's", "a", "well-known", '"fact".']),
        ("... --", []),
        ("", []),
    ],
)
def test_words_as_written(text, words):
    assert written_words(text) == words


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors", "equal", "ends", "commas", "capitals"),
    [  # of each mark: in both texts, recognised, written
        ("Hold on, Anna.", "Hold on, Anna.", 0, 3, [1, 1, 1], [1, 1, 1], [2, 2, 2]),
        ("Hold on, Anna.", "hold on anna", 3, 3, [0, 0, 1], [0, 0, 1], [0, 0, 2]),
        ("Is it?", "Is it.", 1, 2, [1, 1, 1], [0, 0, 0], [1, 1, 1]),  # which of the three does not matter
        ('"Go," she said. "Now!"', '"Go!" she said, now.', 3, 4, [1, 2, 2], [0, 1, 1], [1, 1, 2]),
        ("Ann paid 3.50, you know.", "And paid 3.50, you know.", 1, 4, [1, 1, 1], [1, 1, 1], [0, 0, 0]),
        ("Take 1,000.", "Take 1,000.", 0, 2, [1, 1, 1], [0, 0, 0], [1, 1, 1]),  # a comma inside is none
        ("Nobody.", "", 1, 0, [0, 0, 0], [0, 0, 0], [0, 0, 0]),
        ("", "Thanks.", 1, 0, [0, 0, 0], [0, 0, 0], [0, 0, 0]),
        ("", "", 0, 0, [0, 0, 0], [0, 0, 0], [0, 0, 0]),
    ],
)
def test_counts_by_hand(reference, hypothesis, errors, equal, ends, commas, capitals):
    [counts] = cased_counts([reference], [hypothesis])
    assert word_counts(counts)["errors"] == errors
    assert counts[EQUAL_WORDS] == equal
    assert mark_counts(counts).tolist() == [ends, commas, capitals]


letters = st.sampled_from(["a", "A", "b", "It's", "3.5", "No", "no", "é", "well-known", "“", "–"])
texts = st.lists(st.tuples(letters, st.sampled_from(["", ",", ".", "?", "!”", "…", ";"])), max_size=8).map(
    lambda words: " ".join(word + mark for word, mark in words)
)
pairs = st.lists(
    st.tuples(texts | st.text(max_size=20), texts | st.text(max_size=20)), min_size=1, max_size=5
)


def counted(pairs) -> np.ndarray:
    return cased_counts(*(list(side) for side in zip(*pairs, strict=True)))


@given(pairs)
def test_a_perfect_text_scores_100_percent(pairs):
    counts = counted([(one, one) for one, _ in pairs]).sum(axis=0)
    said = sum(len(written_words(one)) for one, _ in pairs)
    assert counts[EQUAL_WORDS] == word_counts(counts)["hits"] == said
    assert rates(counts[:COUNT_COLUMNS])["wer"] == 0 or not said
    for mark in mark_counts(counts):
        assert all(rate == 1 for rate in mark_rates(mark).values()) or not mark.any()


@given(pairs)
def test_exchanging_the_texts_exchanges_precision_and_recall(pairs):
    counts, exchanged = counted(pairs), counted([pair[::-1] for pair in pairs])
    assert (counts[:, EQUAL_WORDS] == exchanged[:, EQUAL_WORDS]).all()
    there, back = (mark_rates(mark_counts(one.sum(axis=0))) for one in (counts, exchanged))
    np.testing.assert_array_equal(there["precision"], back["recall"])
    np.testing.assert_array_equal(there["recall"], back["precision"])
    np.testing.assert_array_equal(there["f1"], back["f1"])


@given(pairs)
def test_counts_add_up(pairs):
    counts = counted(pairs)
    assert counts.shape == (len(pairs), CASED_COLUMNS)
    assert (counts == np.vstack([counted([pair]) for pair in pairs])).all()  # each utterance by itself
    for row, (reference, hypothesis) in zip(counts, pairs, strict=True):
        words = word_counts(row)
        assert words["words"] == len(written_words(reference))
        assert words["hits"] + words["substitutions"] + words["insertions"] == len(written_words(hypothesis))
        assert row[EQUAL_WORDS] <= min(
            words["words"], words["words"] + words["insertions"] - words["deletions"]
        )
        both, recognised, written = mark_counts(row).T
        assert (both <= np.minimum(recognised, written)).all()
        assert (recognised + written - both <= row[EQUAL_WORDS]).all()
