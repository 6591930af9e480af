import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.scoring.alignment import align
from training.scoring.significance import bootstrap_difference, matched_pairs, segments


def segments_of(reference: str, first: str, second: str) -> list[tuple[int, int]]:
    [one], [other] = align([reference], [first]).operations, align([reference], [second]).operations
    return segments(one, other)


@pytest.mark.parametrize(
    ("reference", "first", "second", "expected"),
    [
        ("a b c d e", "a b c d e", "a b c d e", []),
        ("a b c d e", "a x c d e", "a b c d e", [(1, 0)]),
        # Two good words between errors part them, one does not.
        ("a b c d e", "x b c d y", "a b c d e", [(1, 0), (1, 0)]),
        ("a b c d", "x b c y", "a b c d", [(1, 0), (1, 0)]),
        ("a b c", "x b y", "a b c", [(2, 0)]),
        # A word counts as good only if both systems have it.
        ("a b c d", "x b c d", "a b y d", [(1, 1)]),
        # An insertion between two good words keeps the segment open.
        ("a b c d", "x b z c d", "a b c d", [(2, 0)]),
        ("a b c d", "x b c d", "a b z c d", [(1, 1)]),
        # Deletions, and insertions at both ends.
        ("a b c d e f", "a d e f", "a b c d e f z", [(2, 0), (0, 1)]),
        ("a b", "z a b", "a b z", [(1, 0), (0, 1)]),
        ("", "z z", "z", [(2, 1)]),
        ("a b c", "", "a b c", [(3, 0)]),
        ("", "", "", []),
    ],
)
def test_segments_by_hand(reference, first, second, expected):
    assert segments_of(reference, first, second) == expected


def test_matched_pairs_by_hand():
    # Differences of the segments: 1, 2, -1, 1. Mean 0.75, variance (0.0625 + 1.5625 + 3.0625 + 0.0625) / 3.
    references = ["a b c", "a b c d", "a b c", "a b c"]
    first = ["x b c", "x y c d", "a b c", "a b x"]
    second = ["a b c", "a b c d", "x b c", "a b c"]
    result = matched_pairs(align(references, first).operations, align(references, second).operations)
    assert result.segments == 4
    assert result.mean == 0.75
    assert result.z == pytest.approx(0.75 / np.sqrt(4.75 / 3 / 4))
    assert result.p == pytest.approx(0.2332, abs=1e-4)  # two-sided normal probability of z = 1.1921


def test_equal_systems_do_not_differ():
    operations = align(["a b c"], ["a x c"]).operations
    result = matched_pairs(operations, operations)
    assert (result.mean, result.z, result.p) == (0, 0, 1)
    nothing = align(["a"], ["a"]).operations
    assert matched_pairs(nothing, nothing).segments == 0


words = st.lists(st.sampled_from("abc"), max_size=10).map(" ".join)


@given(words, words, words)
def test_segments_hold_every_error_once_and_are_symmetric(reference, first, second):
    found = segments_of(reference, first, second)
    one, other = align([reference], [first]), align([reference], [second])
    assert sum(a for a, _ in found) == one.words[0, 1:].sum()
    assert sum(b for _, b in found) == other.words[0, 1:].sum()
    assert all(a or b for a, b in found)
    assert segments_of(reference, second, first) == [(b, a) for a, b in found]


def test_bootstrap_difference():
    rng = np.random.default_rng(0)
    resampled = np.column_stack([rng.normal(0.12, 0.01, 5_000), rng.normal(0.10, 0.01, 5_000)])
    result = bootstrap_difference(np.array([0.12, 0.10]), resampled, units=10_000)
    assert result.wer == pytest.approx(0.02)
    assert result.p == pytest.approx(2 * 0.0786, abs=0.02)  # P(N(0.02, 0.0141) <= 0)
    assert (result.low, result.high) == pytest.approx((0.02 - 0.0277, 0.02 + 0.0277), abs=0.002)
    clear = bootstrap_difference(np.array([0.12, 0.10]), resampled + np.array([0.05, 0]), units=10_000)
    assert 0 < clear.p < 0.001


@given(st.integers(2, 60), st.floats(-4, 4))
def test_p_is_small_where_the_interval_leaves_out_zero(units, shift):
    differences = np.random.default_rng(0).normal(size=9_999) + shift
    resampled = np.column_stack([differences, np.zeros_like(differences)])
    result = bootstrap_difference(np.array([shift, 0.0]), resampled, units)
    if min(abs(result.low), abs(result.high)) > 0.05:  # not on the border, where resamples decide
        assert (result.p < 0.05) == (result.low > 0 or result.high < 0) or units < 6


def test_one_unit_says_nothing_about_a_difference():
    result = bootstrap_difference(np.array([0.2, 0.1]), np.array([[0.2, 0.1]]), units=1)
    assert np.isnan([result.low, result.high, result.p]).all()


def test_under_equal_systems_p_is_small_as_often_as_it_says():
    rng = np.random.default_rng(1)
    small = 0
    for _ in range(300):
        references, first, second = [], [], []
        for _ in range(40):
            said = rng.choice(list("abcdefghij"), 12)
            references.append(" ".join(said))
            for recognised in (first, second):
                recognised.append(" ".join(np.where(rng.random(12) < 0.1, "x", said)))
        result = matched_pairs(align(references, first).operations, align(references, second).operations)
        small += result.p < 0.05
    assert 0.02 <= small / 300 <= 0.09
