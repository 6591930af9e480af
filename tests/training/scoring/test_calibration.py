import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.scoring.calibration import calibration


def test_by_hand():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.15, 0.15])
    result = calibration(confidence, np.array([True, True, True, False, False, False]))
    assert [(bin.low, bin.words, bin.accuracy) for bin in result.bins] == [(0.1, 2, 0.0), (0.9, 4, 0.75)]
    assert result.ece == pytest.approx((4 * 0.2 + 2 * 0.15) / 6)
    # Of 9 pairs of a right and a wrong word, 6 are in order and 3 tie.
    assert result.auc == pytest.approx((6 + 3 / 2) / 9)


def test_honest_confidence_has_no_error():
    rng = np.random.default_rng(0)
    confidence = rng.random(50_000)
    result = calibration(confidence, rng.random(50_000) < confidence)
    assert result.ece < 0.01
    assert result.auc == pytest.approx(5 / 6, abs=0.01)  # of confidence spread evenly over [0, 1]


def test_no_wrong_words():
    result = calibration(np.array([1.0, 0.5]), np.array([True, True]))
    assert np.isnan(result.auc)
    assert result.ece == pytest.approx(0.25)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=30))
def test_auc_counts_pairs(words):
    confidence, is_right = (np.array(column) for column in zip(*words, strict=True))
    pairs = [(a > b) + (a == b) / 2 for a in confidence[is_right] for b in confidence[~is_right]]
    result = calibration(confidence, is_right)
    assert sum(bin.words for bin in result.bins) == len(words)
    assert 0 <= result.ece <= 1
    assert result.auc == pytest.approx(np.mean(pairs)) if pairs else np.isnan(result.auc)
