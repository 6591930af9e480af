"""training/spec_augment.py: the masks keep within their bounds and follow their seed."""

import numpy as np
from keras import ops

from training.spec_augment import SpecAugment


def longest_run(flags) -> int:
    runs = np.flatnonzero(np.diff(np.concatenate([[0], np.int8(flags), [0]])))
    return int(max(runs[1::2] - runs[::2], default=0))


def test_masks_are_bounded():
    layer = SpecAugment(
        frequency_masks=1, frequency_width=5, time_masks=1, time_width=12, time_fraction=0.2, seed=1
    )
    lengths = np.int32([100, 40] * 100)
    y = ops.convert_to_numpy(layer(np.ones((200, 100, 16), "float32"), lengths))
    masked_steps, masked_mels = np.all(y == 0, axis=2), np.all(y == 0, axis=1)
    np.testing.assert_array_equal(y == 0, masked_steps[:, :, None] | masked_mels[:, None, :])
    for i, length in enumerate(lengths):
        widest = min(12, 0.2 * length)
        assert longest_run(masked_steps[i]) <= np.ceil(widest)
        assert not np.any(masked_steps[i, length:])
        assert longest_run(masked_mels[i]) <= 5
    assert {longest_run(row) for row in masked_mels} == {0, 1, 2, 3, 4, 5}
    assert max(longest_run(row) for row in masked_steps[::2]) >= 11
    assert len(np.unique(masked_steps, axis=0)) > 100  # masks differ between utterances


def test_masks_follow_the_seed():
    features, lengths = np.ones((4, 60, 16), "float32"), np.int32([60] * 4)
    first, second = SpecAugment(seed=3), SpecAugment(seed=3)
    one = ops.convert_to_numpy(first(features, lengths))
    np.testing.assert_array_equal(second(features, lengths), one)
    assert np.any(ops.convert_to_numpy(first(features, lengths)) != one)
