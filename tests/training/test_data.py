"""training/data.py and cache.py: batches follow from (seed, epoch, batch); nothing is lost or doubled."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.cache import RaggedCache
from training.data import ONE_SHAPE_SECONDS, PAD_TARGETS, PAD_TARGETS_COMPILED, Batches, pad_batch

RATE = 10.0  # frames a second


def make_batches(lengths, seed=1, batch_seconds=6.0, **options) -> Batches:
    """Each utterance i holds its own number, plus randomness in the second column."""

    def read(i, random):
        return np.stack([np.full(lengths[i], i), random.random(lengths[i])], axis=1).astype("float32")

    def targets(i, inputs):
        return {"labels": np.array([1 + i % 5] * (i % 3), "int32"), "own": inputs[:, :1] + len(inputs)}

    return Batches(np.array(lengths), read, RATE, batch_seconds, seed=seed, targets=targets, **options)


def numbers(batch) -> list[int]:
    return [int(row[0, 0]) for row in batch[0]["inputs"]]


LENGTHS = [int(n) for n in np.random.default_rng(0).integers(1, 60, 50)]


def test_every_utterance_once_an_epoch_in_another_order():
    batches = make_batches(LENGTHS)
    orders = []
    for _ in range(3):
        orders.append([i for b in range(len(batches)) for i in numbers(batches[b])])
        batches.on_epoch_end()
    for order in orders:
        assert sorted(order) == list(range(50))
    assert orders[0] != orders[1] != orders[2]


def test_batches_are_a_function_of_seed_epoch_and_number():
    batches = make_batches(LENGTHS)
    batches.on_epoch_end()
    expected = [batches[i] for i in range(len(batches))]
    again = make_batches(LENGTHS)
    again.start_at(epoch=1, batch=4)
    assert len(again) == len(expected) - 4
    for i in reversed(range(len(again))):  # in any order of asking
        for mine, theirs in zip(again[i], expected[i + 4], strict=True):
            for name in mine:
                np.testing.assert_array_equal(mine[name], theirs[name])
    again.on_epoch_end()
    assert (again.epoch, len(again)) == (2, len(expected))
    other = make_batches(LENGTHS, seed=2)
    assert [numbers(other[i]) for i in range(len(other))] != [numbers(b) for b in expected]


def test_every_utterance_of_every_epoch_has_its_own_randomness():
    batches = make_batches(LENGTHS)
    drawn = []
    for _ in range(2):
        drawn += [row[0, 1] for i in range(len(batches)) for row in batches[i][0]["inputs"]]
        batches.on_epoch_end()
    assert len(set(drawn)) == 2 * len(LENGTHS)


def test_without_seed_the_order_is_fixed():
    batches = make_batches(LENGTHS, seed=None)
    first = [batches[i] for i in range(len(batches))]
    batches.on_epoch_end()
    second = [batches[i] for i in range(len(batches))]
    assert [numbers(b) for b in first] == [numbers(b) for b in second]
    seconds = [int(np.ceil(max(b[0]["lengths"]) / RATE)) for b in first]
    assert seconds == sorted(seconds)


@settings(max_examples=50)
@given(lengths=st.lists(st.integers(1, 80), min_size=1, max_size=40), batch_seconds=st.floats(0.5, 30))
def test_batches_are_no_longer_than_asked(lengths, batch_seconds):
    batches = make_batches(lengths, batch_seconds=batch_seconds)
    seen = []
    for i in range(len(batches)):
        inputs, _ = batches[i]
        size, frames, _ = inputs["inputs"].shape
        assert size == 1 or size * (frames - 2) / RATE <= batch_seconds
        assert max(inputs["lengths"]) - min(inputs["lengths"]) < RATE  # of similar length
        seen += numbers(batches[i])
    assert sorted(seen) == list(range(len(lengths)))


def labels(*sequences) -> list[dict]:
    return [{"labels": np.array(ids, "int32")} for ids in sequences]


def test_padding_is_zero_and_labels_have_few_shapes():
    inputs, targets = pad_batch([np.ones((3, 2)), np.ones((5, 2))], labels([], [4, 5]))
    assert inputs["inputs"].dtype == np.float32
    np.testing.assert_array_equal(inputs["lengths"], [3, 5])
    assert inputs["inputs"].sum() == 16
    assert not inputs["inputs"][0, 3:].any()
    np.testing.assert_array_equal(targets["labels_lengths"], [0, 2])
    np.testing.assert_array_equal(targets["labels"][1, :2], [4, 5])
    assert targets["labels"].shape == (2, PAD_TARGETS)
    assert pad_batch([np.ones(1)], labels([1] * (PAD_TARGETS + 1)))[1]["labels"].shape == (1, 2 * PAD_TARGETS)
    assert pad_batch([np.ones(1)], labels([]))[1]["labels"].shape == (1, PAD_TARGETS)


def test_tokens_are_inputs_too():
    tokens = [{"tokens": np.array(ids, "int32")} for ids in ([5, 6, 7], [])]
    inputs, targets = pad_batch([np.ones(3), np.ones(2)], tokens)
    np.testing.assert_array_equal(inputs["tokens"], targets["tokens"])
    np.testing.assert_array_equal(targets["tokens_lengths"], [3, 0])
    assert "tokens" not in pad_batch([np.ones(1)], labels([]))[0]


def test_targets_go_with_their_utterances():
    batches = make_batches(LENGTHS)
    for index in range(len(batches)):
        inputs, y = batches[index]
        assert y["labels"].dtype == np.int32 and y["own"].dtype == np.float32
        np.testing.assert_array_equal(y["own_lengths"], inputs["lengths"])
        for row, labels, i in zip(y["own"], y["labels_lengths"], numbers((inputs, y)), strict=True):
            assert (row[: LENGTHS[i]] == i + LENGTHS[i]).all()
            assert (row[LENGTHS[i] :] == 0).all()
            assert labels == i % 3


def test_neighbouring_batches_differ_in_every_padded_dimension():
    """Else Keras on TensorFlow may take the length of two batches for that of all, and stop at the third."""
    batches = make_batches([20] * 9 + [45] * 4, batch_seconds=6.0)
    for i in range(len(batches) - 1):
        (one, one_labels), (two, two_labels) = batches[i], batches[i + 1]
        assert one["inputs"].shape[1] != two["inputs"].shape[1]
        assert one_labels["labels"].shape[1] != two_labels["labels"].shape[1]


def test_on_jax_the_inputs_of_a_bucket_have_one_length(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    batches = make_batches(LENGTHS, batch_seconds=12.0)
    lengths = {batches[i][0]["inputs"].shape[1] for i in range(len(batches))}
    assert lengths == {int(RATE * np.ceil(length / RATE)) for length in LENGTHS}
    targets = {batches[i][1]["labels"].shape[1] for i in range(len(batches))}
    assert targets == {PAD_TARGETS_COMPILED}


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 200), min_size=1, max_size=40), batch_seconds=st.floats(0.5, 60))
def test_all_batches_of_a_bucket_have_one_shape_where_asked(lengths, batch_seconds):
    shapes, seen = {}, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.backend, "backend", lambda: "jax")
        batches = make_batches(lengths, batch_seconds=batch_seconds, one_shape=True)
        whole = [batches[i] for i in range(len(batches))]
    for inputs, targets in whole:
        counted = targets["weights"] > 0
        bucket = int(np.ceil(max(inputs["lengths"]) / RATE / ONE_SHAPE_SECONDS))
        shape = {name: array.shape for part in (inputs, targets) for name, array in part.items()}
        assert shapes.setdefault(bucket, shape) == shape
        # What fills up a batch is an utterance of it that is counted once.
        rows = numbers((inputs, targets))
        seen += [row for row, counts in zip(rows, counted, strict=True) if counts]
        assert set(rows) == {row for row, counts in zip(rows, counted, strict=True) if counts}
    assert sorted(seen) == list(range(len(lengths)))
    assert len(shapes) == len({int(np.ceil(n / RATE / ONE_SHAPE_SECONDS)) for n in lengths})


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
@settings(max_examples=20)
def test_ragged_arrays_come_back(tmp_path_factory, lengths):
    folder = tmp_path_factory.mktemp("ragged")
    arrays = [np.full((n, 3), i, "float16") for i, n in enumerate(lengths)]
    ragged = RaggedCache.create(folder, "key", iter(arrays))
    assert list(ragged.lengths) == lengths
    for mine, theirs in zip(ragged, arrays, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == np.float16


def test_ragged_is_written_anew_for_other_content_and_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "cache"
    first = RaggedCache.create(folder, "one", [np.ones(3)])
    assert RaggedCache.create(folder, "one", iter(())).key == first.key  # not read again
    second = RaggedCache.create(folder, "two", [np.zeros(2)])
    assert list(second.lengths) == [2]

    def breaks():
        yield np.ones(4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RaggedCache.create(folder, "three", breaks())
    assert list(RaggedCache.create(folder, "two", iter(())).lengths) == [2]
    assert list(RaggedCache.create(folder, "three", [np.ones(5)]).lengths) == [5]
