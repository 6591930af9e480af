import numpy as np
import pytest
from scipy.stats import norm

from training.scoring.intervals import (
    percentile_interval,
    rate_interval,
    resample,
    sums_by_unit,
)


def test_speakers_are_drawn_where_there_are_enough():
    kind, sums = sums_by_unit(np.array([[1, 10], [2, 20], [4, 40], [8, 0], [16, 0], [32, 0]]), list("abacde"))
    assert kind == "speaker"
    assert sums.tolist() == [[5, 50], [2, 20], [8, 0], [16, 0], [32, 0]]


def test_an_utterance_without_speaker_is_its_own():
    kind, sums = sums_by_unit(np.arange(7)[:, np.newaxis], ["a", "", "b", "", "c", "d", "e"])
    assert kind == "speaker"
    assert sums.tolist() == [[0], [1], [2], [3], [4], [5], [6]]


@pytest.mark.parametrize("speakers", [["", "", ""], ["a", "a", "a"], ["a", "b", "c", "d"]])
def test_utterances_are_drawn_where_speakers_are_too_few(speakers):
    counts = np.arange(len(speakers))[:, np.newaxis]
    kind, sums = sums_by_unit(counts, speakers)
    assert kind == "utterance"
    assert sums.tolist() == counts.tolist()


def test_resamples_are_seeded_and_draw_whole_units():
    sums = np.array([[1, 100], [10, 1000]])
    totals = resample(sums, seed=3, resamples=1000)
    assert np.array_equal(totals, resample(sums, seed=3, resamples=1000))
    assert not np.array_equal(totals, resample(sums, seed=4, resamples=1000))
    assert {tuple(row) for row in totals.tolist()} == {(2, 200), (11, 1100), (20, 2000)}
    assert np.array_equal(totals[:, 1], 100 * totals[:, 0])


def test_many_units_match_the_normal_approximation():
    errors = np.random.default_rng(0).binomial(10, 0.1, size=20_000)
    sums = np.column_stack([errors, np.full_like(errors, 10)])
    totals = resample(sums, resamples=1000)
    half = norm.ppf(0.975) * np.std(errors / 10) / np.sqrt(len(sums))
    rate = errors.mean() / 10
    values = totals[:, 0] / totals[:, 1]
    for low, high in (percentile_interval(values, len(sums)), rate_interval(rate, values, len(sums))):
        assert (high - low) / 2 == pytest.approx(half, rel=0.12)
        assert low < rate < high


@pytest.mark.parametrize(("units", "quantile"), [(2, 12.7062), (5, 2.77645), (30, 2.04523)])
def test_few_units_make_intervals_longer(units, quantile):
    """By the t-distribution's quantile and √(n / (n - 1)), since the bootstrap's deviation divides by n."""
    half = quantile * np.sqrt(units / (units - 1)) * 0.1
    interval = rate_interval(0.2, 0.2 * np.exp([-0.1, 0.1]), units)  # logarithms that deviate by 0.1
    assert interval == pytest.approx((0.2 * np.exp(-half), 0.2 * np.exp(half)), rel=1e-4)
    # Percentiles of normal values lie as many deviations out.
    values = norm.ppf((np.arange(1_000_000) + 0.5) / 1_000_000)
    if units > 2:  # else beyond all values
        low, high = percentile_interval(values, units)
        assert (low, high) == pytest.approx((-10 * half, 10 * half), rel=0.01)


def test_no_interval_of_one_unit():
    assert np.isnan(percentile_interval(np.array([0.1, 0.1]), units=1)).all()
    assert np.isnan(rate_interval(0.1, np.array([0.1, 0.1]), units=1)).all()


def test_undefined_resamples_are_left_out():
    values = np.array([np.nan, 0.2, 0.2])
    assert percentile_interval(values, units=10) == pytest.approx((0.2, 0.2))
    assert rate_interval(0.2, values, units=10) == pytest.approx((0.2, 0.2))


def test_a_resample_without_errors_has_percentiles():
    values = np.array([0.0, 0.1, 0.2])
    assert rate_interval(0.1, values, units=10) == percentile_interval(values, units=10)


def coverage(speakers: int, trials: int) -> float:
    """Share of simulated test sets whose interval holds the true WER; speakers differ in skill and words."""
    rng = np.random.default_rng(speakers)
    covered = 0
    for trial in range(trials):
        words = rng.integers(100, 300, size=speakers)
        skill = rng.beta(4, 36, size=speakers)  # mean 0.1, the true WER
        errors = rng.binomial(words, skill)
        totals = resample(np.column_stack([errors, words]), seed=trial, resamples=1000)
        low, high = rate_interval(errors.sum() / words.sum(), totals[:, 0] / totals[:, 1], speakers)
        covered += low <= 0.1 <= high
    return covered / trials


@pytest.mark.parametrize("speakers", [5, 10, 40, 100])
def test_the_95_percent_interval_covers_the_truth(speakers):
    # 1,000 trials of a true 95 % lie within 93–97 % with a probability of 99.6 %.
    assert 0.93 <= coverage(speakers, trials=1_000) <= 0.97
