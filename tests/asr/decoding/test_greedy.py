"""Greedy decoding on hand-made arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.decoding import Hypothesis
from asr.decoding.alignment import forced_align
from asr.decoding.greedy import greedy_decode
from tests.asr.decoding.certainties import UNITS, log_probs_of, tokenizer_of

SUBWORDS = tokenizer_of("", " the", " c", "at", " ")
STEP_SECONDS = 0.04


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("hheelllloo", "helo"),
        ("hhe_l_ll_o", "hello"),
        ("_a_b_", "ab"),
        ("___", ""),
        ("a", "a"),
        ("aa_a", "aa"),
        ("to  be", "to be"),
        ("_ a _ b _", "a b"),
        ("don't", "don't"),
    ],
)
def test_repeats_and_blanks_are_collapsed(path, text):
    assert greedy_decode(log_probs_of(path), UNITS).text == text


def test_steps_and_score():
    found = greedy_decode(log_probs_of("_aa_a bb"), UNITS)
    assert found.units == tuple(UNITS.encode("aa b"))
    assert found.steps == ((1, 2), (4, 4), (5, 5), (6, 7))
    assert found.score == pytest.approx(8 * np.log(0.9), rel=1e-5)


def test_no_steps_give_no_text():
    assert greedy_decode(np.zeros((0, UNITS.size), np.float32), UNITS) == Hypothesis((), (), 0.0, "")


def test_nan_is_refused():
    broken = log_probs_of("abc")
    broken[1, 4] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        greedy_decode(broken, UNITS)


def test_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"\(1, 3, 29\)"):
        greedy_decode(log_probs_of("abc")[None], UNITS)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 10_000))
def test_the_greedy_path_is_the_best_alignment_of_its_own_units(path, seed):
    log_probs = np.log(np.random.default_rng(seed).dirichlet(np.ones(4), size=len(path)))
    units = tokenizer_of("", " ", "a", "b")
    hypothesis = greedy_decode(log_probs, units)
    aligned = forced_align(log_probs, list(hypothesis.units))
    assert aligned.steps == hypothesis.steps
    assert aligned.score == pytest.approx(hypothesis.score)
