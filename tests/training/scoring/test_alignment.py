import time

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.scoring.alignment import align, side_by_side
from training.scoring.measures import count_table, rates, tally, word_counts


@pytest.mark.parametrize(
    ("reference", "hypothesis", "hits", "substitutions", "deletions", "insertions"),
    [
        ("the cat sat", "the cat sat", 3, 0, 0, 0),
        ("the cat sat", "the bat sat", 2, 1, 0, 0),
        ("the cat sat", "the sat", 2, 0, 1, 0),
        ("the cat sat", "the fat cat sat", 3, 0, 0, 1),
        ("the cat sat", "", 0, 0, 3, 0),
        ("", "the cat", 0, 0, 0, 2),
        ("", "", 0, 0, 0, 0),
        ("a", "i", 0, 1, 0, 0),
        ("a b c", "b c a", 2, 0, 1, 1),
        ("naïve 東京 ☕", "naive 東京 ☕", 2, 1, 0, 0),
    ],
)
def test_counts_of_words_by_hand(reference, hypothesis, hits, substitutions, deletions, insertions):
    alignments = align([reference], [hypothesis])
    assert alignments.words.tolist() == [[hits, substitutions, deletions, insertions]]


def test_characters_include_spaces():
    # "ab c" → "abc": the space is lost; "ab" → "xb": one letter is another.
    assert align(["ab c", "ab"], ["abc", "xb"]).characters.tolist() == [[3, 0, 1, 0], [1, 1, 0, 0]]


def test_words_side_by_side():
    said, recognised = "the cat sat right down", "a cat right down low"
    [operations] = align([said], [recognised]).operations
    assert list(side_by_side(operations, said.split(), recognised.split())) == [
        ("substitute", "the", "a"),
        ("equal", "cat", "cat"),
        ("delete", "sat", None),
        ("equal", "right", "right"),
        ("equal", "down", "down"),
        ("insert", None, "low"),
    ]


texts = st.lists(st.sampled_from(["a", "b", "cat", "dog", "é", "x'y"]), max_size=8).map(" ".join)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6))
def test_rates_are_those_of_jiwer(pairs):
    references, hypotheses = (list(side) for side in zip(*pairs, strict=True))
    measured = rates(count_table(align(references, hypotheses)).sum(axis=0))
    words = jiwer.process_words(references, hypotheses)
    if any(references):
        assert measured["wer"] == pytest.approx(words.wer)
        assert measured["mer"] == pytest.approx(words.mer)
        assert measured["wil"] == pytest.approx(words.wil)
        assert measured["cer"] == pytest.approx(jiwer.cer(references, hypotheses))
    else:
        assert np.isnan(measured["wer"])
    wrong = sum(one != other for one, other in pairs)
    assert measured["ser"] == pytest.approx(wrong / len(pairs))


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6))
def test_an_alignment_spells_both_texts(pairs):
    references, hypotheses = (list(side) for side in zip(*pairs, strict=True))
    for operations, (reference, hypothesis) in zip(
        align(references, hypotheses).operations, pairs, strict=True
    ):
        rows = list(side_by_side(operations, reference.split(), hypothesis.split()))
        assert [said for _, said, _ in rows if said is not None] == reference.split()
        assert [recognised for _, _, recognised in rows if recognised is not None] == hypothesis.split()
        assert all((kind == "equal") == (said == recognised) for kind, said, recognised in rows)


def test_rates_of_nothing_are_undefined_but_counted():
    counts = count_table(align(["", ""], ["made up", ""])).sum(axis=0)
    measured = rates(counts)
    assert np.isnan(measured["wer"]) and np.isnan(measured["cer"])
    assert measured["ser"] == 0.5
    assert measured["mer"] == 1.0
    assert tally(word_counts(counts)) == "[2 / 0, 2 ins, 0 del, 0 sub]"


def test_rates_by_hand():
    counts = count_table(align(["one two three four"], ["one too three four five"])).sum(axis=0)
    measured = rates(counts)
    assert measured["wer"] == 2 / 4
    assert measured["mer"] == 2 / 5
    assert measured["wil"] == pytest.approx(1 - (3 / 4) * (3 / 5))
    assert tally(word_counts(counts)) == "[2 / 4, 1 ins, 0 del, 1 sub]"


def test_ten_thousand_words_in_one_utterance():
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in rng.integers(2_000, size=10_000)]
    recognised = [word for number, word in enumerate(words) if number % 10]  # every tenth is dropped
    began = time.perf_counter()
    alignments = align([" ".join(words)], [" ".join(recognised)])
    assert alignments.words.tolist() == [[9_000, 0, 1_000, 0]]
    assert time.perf_counter() - began < 30
