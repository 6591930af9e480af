"""Forced alignment against results by hand and against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.decoding import alignment
from asr.decoding.alignment import forced_align

BLANK, A, B = 0, 1, 2


def log_probs_of(*rows: tuple[float, ...]) -> np.ndarray:
    """Rows of probabilities, one per step, as float32 log-probs."""
    with np.errstate(divide="ignore"):
        return np.log(np.array(rows, dtype=np.float32))


def random_log_probs(steps: int, units: int, seed: int) -> np.ndarray:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(units), size=steps)
    return np.log(probabilities.reshape(steps, units)).astype(np.float32)


def collapse(path: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Unit, first and last step of each run of a non-blank unit in a path."""
    runs, step = [], 0
    for unit, run in itertools.groupby(path):
        length = len(list(run))
        if unit != BLANK:
            runs.append((unit, step, step + length - 1))
        step += length
    return runs


def test_follows_the_peaks():
    peaks = log_probs_of(
        (0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.8, 0.1, 0.1), (0.1, 0.1, 0.8), (0.1, 0.2, 0.7), (0.8, 0.1, 0.1)
    )
    found = forced_align(peaks, [A, B])
    assert found.units == (A, B)
    assert found.steps == ((1, 1), (3, 4))
    assert found.score == pytest.approx(np.log(0.8**5 * 0.7), abs=1e-6)


def test_finds_a_unit_that_greedy_would_miss():
    assert forced_align(log_probs_of((0.9, 0.05, 0.05), (0.8, 0.05, 0.15), (0.9, 0.05, 0.05)), [B]).steps == (
        (1, 1),
    )


def test_equal_neighbours_keep_a_blank_between_them():
    sure_of_a = log_probs_of((0.1, 0.9), (0.1, 0.9), (0.1, 0.9), (0.1, 0.9))
    first, second = forced_align(sure_of_a, [A, A]).steps
    assert second[0] - first[1] == 2
    assert forced_align(sure_of_a, [A]).steps == ((0, 3),)


def test_different_neighbours_need_no_blank():
    assert forced_align(log_probs_of((0.2, 0.7, 0.1), (0.2, 0.1, 0.7)), [A, B]).steps == ((0, 0), (1, 1))


def test_one_step():
    assert forced_align(log_probs_of((0.4, 0.6)), [A]).steps == ((0, 0),)


def test_an_empty_text_is_all_blank():
    found = forced_align(log_probs_of((0.5, 0.5), (0.25, 0.75)), [])
    assert (found.units, found.steps) == ((), ())
    assert found.score == pytest.approx(np.log(0.125))


def test_no_text_and_no_steps():
    assert forced_align(np.zeros((0, 3), np.float32), []).score == 0.0


@pytest.mark.parametrize(("unit_ids", "needed"), [([A, B, A], 3), ([A, A], 3), ([A, A, A], 5)])
def test_too_few_steps_are_refused_with_both_numbers(unit_ids, needed):
    with pytest.raises(ValueError, match=f"at least {needed} steps, but the sound has {needed - 1}"):
        forced_align(random_log_probs(needed - 1, 3, seed=0), unit_ids)
    assert forced_align(random_log_probs(needed, 3, seed=0), unit_ids).units == tuple(unit_ids)


@pytest.mark.parametrize("unit_ids", [[BLANK], [A, 3], [-1]])
def test_invalid_ids_are_refused(unit_ids):
    with pytest.raises(ValueError, match="between 1 and 2"):
        forced_align(random_log_probs(5, 3, seed=0), unit_ids)


def test_nan_is_refused():
    broken = random_log_probs(5, 3, seed=0)
    broken[2, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        forced_align(broken, [A])


def test_a_text_of_probability_zero_is_refused():
    with pytest.raises(ValueError, match="probability 0"):
        forced_align(log_probs_of((1.0, 0.0), (1.0, 0.0)), [A])


def test_too_long_a_recording_is_refused(monkeypatch):
    monkeypatch.setattr(alignment, "MAX_CELLS", 1000)
    with pytest.raises(ValueError, match="100 steps and 20 units are too many"):
        forced_align(random_log_probs(100, 3, seed=0), [A, B] * 10)


def brute_force(log_probs: np.ndarray, unit_ids: list[int]) -> float:
    """Score of the best of all paths that collapse to the units."""
    steps, units = log_probs.shape
    return max(
        sum(float(log_probs[step, unit]) for step, unit in enumerate(path))
        for path in itertools.product(range(units), repeat=steps)
        if [unit for unit, _, _ in collapse(path)] == unit_ids
    )


@given(st.integers(1, 6), st.lists(st.integers(1, 2), max_size=4), st.integers(0, 10_000))
def test_no_path_is_better(steps, unit_ids, seed):
    log_probs = random_log_probs(steps, 3, seed)
    needed = len(unit_ids) + sum(before == after for before, after in itertools.pairwise(unit_ids))
    if steps < needed:
        with pytest.raises(ValueError, match=f"at least {needed} steps"):
            forced_align(log_probs, unit_ids)
        return
    found = forced_align(log_probs, unit_ids)
    assert found.score == pytest.approx(brute_force(log_probs, unit_ids), abs=1e-5)
    assert path_score(found, log_probs) == pytest.approx(found.score, abs=1e-5)


def path_score(found, log_probs: np.ndarray) -> float:
    """Score of the path of a hypothesis, which must collapse to its units."""
    path = np.full(len(log_probs), BLANK)
    for unit, (first, last) in zip(found.units, found.steps, strict=True):
        path[first : last + 1] = unit
    assert collapse(tuple(path.tolist())) == [
        (unit, *steps) for unit, steps in zip(found.units, found.steps, strict=True)
    ]
    return float(log_probs[np.arange(len(path)), path].sum(dtype=np.float64))


@given(st.integers(1, 60), st.integers(0, 30), st.integers(1, 9), st.integers(0, 10_000))
def test_checkpoints_change_nothing(steps, count, checkpoint_steps, seed):
    unit_ids = np.random.default_rng(seed).integers(1, 4, size=count).tolist()
    log_probs = random_log_probs(steps, 4, seed)
    with pytest.MonkeyPatch.context() as patch:
        try:
            whole = forced_align(log_probs, unit_ids)
        except ValueError:
            return
        patch.setattr(alignment, "_CHECKPOINT_STEPS", checkpoint_steps)
        assert forced_align(log_probs, unit_ids) == whole


def test_long_recordings_use_checkpoints():
    unit_ids = np.random.default_rng(1).integers(1, 8, size=900).tolist()
    log_probs = random_log_probs(3000, 8, seed=1)
    found = forced_align(log_probs, unit_ids)
    assert path_score(found, log_probs) == pytest.approx(found.score, rel=1e-6)
