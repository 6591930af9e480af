"""Chunks are cut anew without a sample lost, doubled or moved."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asr.chunks import by_kind, dropped, in_blocks

LENGTHS = st.lists(st.integers(0, 50), max_size=12)


def parts_of(lengths: list[int]) -> list[np.ndarray]:
    samples = np.arange(sum(lengths), dtype=np.float32)
    return np.split(samples, np.cumsum(lengths)[:-1]) if lengths else []


@given(LENGTHS, st.integers(1, 40))
def test_blocks_have_their_size_and_come_as_soon_as_they_can(lengths, size):
    taken = 0  # samples

    def parts():
        nonlocal taken
        for part in parts_of(lengths):
            assert taken - size * len(blocks) < size  # all that is complete was given before more is taken
            taken += len(part)
            yield part

    blocks = []
    for block in in_blocks(parts(), size):
        blocks.append(block)
    assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
    assert all(0 < len(block) <= size for block in blocks)
    np.testing.assert_array_equal(np.concatenate([[], *blocks]), np.arange(sum(lengths)))


@given(LENGTHS, st.integers(0, 700))
def test_what_is_dropped_is_the_start(lengths, count):
    chunks = ((100.0, part[:, None]) for part in parts_of(lengths))
    left = [samples[:, 0] for _, samples in dropped(chunks, count / 100)]
    np.testing.assert_array_equal(np.concatenate([[], *left]), np.arange(sum(lengths))[count:])


@given(st.lists(st.tuples(st.sampled_from([8000.0, 16000.0]), st.integers(1, 2), st.integers(1, 5))))
def test_runs_agree_in_rate_and_channels(kinds):
    chunks = [(rate, np.full((length, channels), i)) for i, (rate, channels, length) in enumerate(kinds)]
    runs = [(rate, channels, list(run)) for rate, channels, run in by_kind(iter(chunks))]
    assert all(one[:2] != other[:2] for one, other in pairwise(runs))
    found = [(rate, samples) for rate, channels, run in runs for samples in run]
    assert [(rate, samples.tolist()) for rate, samples in found] == [
        (rate, samples.tolist()) for rate, samples in chunks
    ]
    assert all(samples.shape[1] == channels for _, channels, run in runs for samples in run)
