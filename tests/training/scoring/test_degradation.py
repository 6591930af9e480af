import numpy as np
import pytest

from training.scoring.degradation import CLEAN, degrade

SOUND = np.random.default_rng(0).normal(0, 0.1, 16_000).astype("float32")


def test_clean_changes_nothing():
    assert degrade(SOUND, "a", CLEAN) is SOUND


def test_depends_on_seed_and_utterance_alone():
    once = degrade(SOUND, "a", "reverb", seed=1)
    np.testing.assert_array_equal(once, degrade(SOUND, "a", "reverb", seed=1))
    assert not np.array_equal(once, degrade(SOUND, "b", "reverb", seed=1))
    assert not np.array_equal(once, degrade(SOUND, "a", "reverb", seed=2))


@pytest.mark.parametrize("condition", ["fog", "noise:10"])
def test_refuses_unknown_conditions_and_noise_without_recordings(condition):
    with pytest.raises(ValueError):
        degrade(SOUND, "a", condition)
