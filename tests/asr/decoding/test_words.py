"""Words with times and confidence, on hand-made arrays."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.decoding import Hypothesis
from asr.decoding.greedy import greedy_decode
from asr.decoding.words import word_evidence, words_of
from asr.tokenizer import Tokenizer
from asr.transcript import Word
from tests.asr.decoding.certainties import UNITS, log_probs_of, peaks, tokenizer_of

SUBWORDS = tokenizer_of("", " the", " c", "at", " ")
STEP_SECONDS = 0.04


def words(log_probs: np.ndarray, units: Tokenizer = UNITS, calibration=None) -> list[Word]:
    return words_of(greedy_decode(log_probs, units), log_probs, units, STEP_SECONDS, calibration)


def test_word_times_are_those_of_the_first_and_last_unit():
    found = words(log_probs_of("__hi_  _yo_u__"))
    assert [(word.text, word.start, word.end) for word in found] == [
        ("hi", pytest.approx(2 * STEP_SECONDS), pytest.approx(4 * STEP_SECONDS)),
        ("you", pytest.approx(8 * STEP_SECONDS), pytest.approx(12 * STEP_SECONDS)),
    ]


def test_confidence_is_the_peak_of_the_least_certain_unit():
    found = words(peaks([("a", 0.5), ("a", 0.8), ("b", 0.95), (" ", 0.3), ("c", 0.99), ("", 0.2)]))
    assert [word.text for word in found] == ["ab", "c"]
    assert [word.confidence for word in found] == pytest.approx([0.8, 0.99], abs=1e-6)


CALIBRATION = {"certainty": 0.5, "shortfall": -2.0, "offset": -1.0}


def test_calibration_keeps_the_order_and_the_bounds():
    log_probs = peaks([("a", 0.5), (" ", 0.9), ("b", 0.9), (" ", 0.9), ("c", 1 - 1e-9)])
    calibrated = [word.confidence for word in words(log_probs, calibration=CALIBRATION)]
    assert calibrated[0] == pytest.approx(1 / (1 + np.e), abs=1e-6)  # logit 0 becomes -1
    assert 0 < calibrated[0] < calibrated[1] < calibrated[2] < 1


def test_evidence_of_a_word_that_differs_from_the_best_path():
    log_probs = peaks([("c", 0.9), ("a", 0.9), ("p", 0.9), ("", 0.9), (" ", 0.9), ("a", 0.9)])
    cat = Hypothesis(tuple(UNITS.encode("cat a")), ((0, 0), (1, 1), (2, 2), (4, 4), (5, 5)), 0.0, "cat a")
    least = 0.1 / (UNITS.size - 1)
    expected = [[np.log(least / (1 - least)), np.log(0.9 / least) / 3, 0], [np.log(9), 0, 0]]
    np.testing.assert_allclose(word_evidence(cat, log_probs, UNITS), expected, rtol=1e-5, atol=1e-6)
    found = words_of(cat, log_probs, UNITS, STEP_SECONDS, CALIBRATION)
    assert found[0].confidence < 0.01 < found[1].confidence


def test_evidence_is_finite_and_greedy_decoding_has_no_shortfall():
    log_probs = np.log(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], np.float32) + 1e-30)
    units = tokenizer_of("", "a", "b")
    [[certainty, shortfall, token]] = word_evidence(greedy_decode(log_probs, units), log_probs, units)
    assert np.isfinite(certainty)
    assert shortfall == token == 0


def test_no_words_have_no_evidence():
    assert word_evidence(Hypothesis((), (), 0.0, ""), np.zeros((0, UNITS.size)), UNITS).shape == (0, 3)


def test_subwords_with_a_leading_space_begin_words():
    steps = [(" the", 0.9), ("", 0.9), (" c", 0.9), ("at", 0.7), (" ", 0.9)]
    found = words(peaks(steps, SUBWORDS), SUBWORDS)
    assert [(word.text, round(word.start, 2), round(word.end, 2)) for word in found] == [
        ("the", 0.0, 0.04),
        ("cat", 0.08, 0.16),
    ]
    assert found[1].confidence == pytest.approx(0.7)


@given(st.lists(st.integers(0, 4), max_size=30), st.integers(0, 10_000))
def test_words_match_the_text_and_are_in_order(path, seed):
    noise = np.random.default_rng(seed).normal(size=(len(path), 5))
    noise[np.arange(len(path)), path] += 3
    log_probs = (noise - np.log(np.exp(noise).sum(axis=1, keepdims=True))).astype(np.float32)
    units = tokenizer_of("", " ", "'", "a", "b")
    hypothesis = greedy_decode(log_probs, units)
    found = words_of(hypothesis, log_probs, units, STEP_SECONDS)
    assert " ".join(word.text for word in found) == hypothesis.text
    assert all(0 <= word.start < word.end <= len(path) * STEP_SECONDS + 1e-9 for word in found)
    assert all(before.end <= after.start for before, after in itertools.pairwise(found))
    assert all(0 <= word.confidence <= 1 for word in found)
