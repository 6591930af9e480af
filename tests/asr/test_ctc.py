"""asr/ctc.py against TensorFlow's loss, and against the definition as a sum over all paths."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.ctc import ctc_loss, required_steps

RELATIVE = 1e-4


def loss_and_gradient(logits, lengths, labels, label_lengths, loss=ctc_loss):
    """Losses [batch] and the gradient of their sum with respect to the logits."""
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = loss(logits, np.int32(lengths), np.int32(labels), np.int32(label_lengths))
    return losses.numpy(), tape.gradient(losses, logits).numpy()


def tensorflow_loss(logits, lengths, labels, label_lengths):
    return tf.nn.ctc_loss(labels, logits, label_lengths, lengths, logits_time_major=False, blank_index=0)


def collapse(path) -> tuple:
    """A path without repeats and blanks (0)."""
    return tuple(unit for unit, _ in itertools.groupby(path) if unit != 0)


def sum_over_paths(logits, labels):
    """Loss and gradient of one utterance [steps, units] in float64, from every possible path."""
    steps, units = logits.shape
    logits = logits.astype("float64")
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs /= probs.sum(1, keepdims=True)
    total, counts = 0.0, np.zeros_like(probs)
    for path in itertools.product(range(units), repeat=steps):
        if collapse(path) == tuple(labels):
            probability = np.prod(probs[range(steps), path])
            total += probability
            counts[range(steps), path] += probability
    if total == 0:
        return np.inf, np.zeros_like(probs)
    return -np.log(total), probs - counts / total


def assert_close(ours, theirs):
    assert np.max(np.abs(ours - theirs)) <= RELATIVE * np.max(np.abs(theirs))


def random_batch(batch, steps, units, labels, seed=0):
    """Logits, lengths, labels and label lengths; every utterance can be aligned."""
    random = np.random.default_rng(seed)
    logits = 3 * random.standard_normal((batch, steps, units)).astype("float32")
    ids = random.integers(1, units, (batch, labels))
    label_lengths = random.integers(1, labels + 1, batch)
    needed = [required_steps(row[:n]) for row, n in zip(ids, label_lengths, strict=True)]
    lengths = [int(random.integers(n, steps + 1)) for n in needed]
    return logits, np.array(lengths), ids, label_lengths


def test_equals_tensorflow():
    batch = random_batch(batch=8, steps=120, units=30, labels=40)
    losses, gradient = loss_and_gradient(*batch)
    their_losses, their_gradient = loss_and_gradient(*batch, loss=tensorflow_loss)
    np.testing.assert_allclose(losses, their_losses, rtol=RELATIVE)
    assert_close(gradient, their_gradient)


@settings(max_examples=40)
@given(
    steps=st.integers(1, 5),
    labels=st.lists(st.integers(1, 3), max_size=3),
    scale=st.sampled_from([0.1, 3.0, 30.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_sum_over_all_paths(steps, labels, scale, seed):
    logits = scale * np.random.default_rng(seed).standard_normal((steps, 4)).astype("float32")
    expected, expected_gradient = sum_over_paths(logits, labels)
    padded = np.array([labels + [0] * (3 - len(labels))])
    losses, gradient = loss_and_gradient(logits[None], [steps], padded, [len(labels)])
    np.testing.assert_allclose(losses[0], expected, rtol=RELATIVE, atol=1e-5)
    np.testing.assert_allclose(gradient[0], expected_gradient, rtol=RELATIVE, atol=1e-5)


def test_float64_stays_float64():
    logits, lengths, labels, label_lengths = random_batch(2, 5, 4, 2, seed=1)
    losses, _ = loss_and_gradient(logits.astype("float64"), lengths, labels, label_lengths)
    assert losses.dtype == np.float64
    for i in range(2):
        expected, _ = sum_over_paths(logits[i, : lengths[i]], labels[i, : label_lengths[i]])
        np.testing.assert_allclose(losses[i], expected, rtol=1e-12)


def test_half_precision_is_computed_in_float32():
    batch = random_batch(3, 20, 6, 5)
    rounded = tf.cast(batch[0], "bfloat16")
    losses, _ = loss_and_gradient(tf.cast(rounded, "float32"), *batch[1:])
    half_losses, gradient = loss_and_gradient(rounded, *batch[1:])
    assert half_losses.dtype == np.float32
    np.testing.assert_array_equal(half_losses, losses)
    assert gradient.dtype == rounded.numpy().dtype


@pytest.mark.parametrize("width", [0, 3])
def test_no_labels_means_all_blank(width):
    logits = np.random.default_rng(2).standard_normal((1, 6, 4)).astype("float32")
    losses, gradient = loss_and_gradient(logits, [4], np.zeros((1, width)), [0])
    log_probs = tf.nn.log_softmax(logits).numpy()
    np.testing.assert_allclose(losses[0], -log_probs[0, :4, 0].sum(), rtol=1e-5)
    expected = np.exp(log_probs[0]) - np.eye(4)[0]
    expected[4:] = 0
    np.testing.assert_allclose(gradient[0], expected, atol=1e-6)


@pytest.mark.parametrize(("labels", "needed"), [([], 0), ([1, 2, 3], 3), ([1, 1], 3), ([2, 2, 2, 1], 6)])
def test_required_steps_is_where_the_loss_becomes_finite(labels, needed):
    assert required_steps(labels) == needed
    logits = np.random.default_rng(3).standard_normal((1, 8, 4)).astype("float32")
    for steps in range(1, 8):
        losses, gradient = loss_and_gradient(logits, [steps], np.array([[*labels, 0]]), [len(labels)])
        assert np.isfinite(losses[0]) == (steps >= needed)
        assert np.all(np.isfinite(gradient))
        assert np.any(gradient) == (steps >= needed)


def test_an_infeasible_utterance_leaves_the_others_alone():
    logits, lengths, labels, label_lengths = random_batch(3, 12, 5, 4)
    losses, gradient = loss_and_gradient(logits, lengths, labels, label_lengths)
    lengths[1], label_lengths[1] = 1, 4
    mixed_losses, mixed_gradient = loss_and_gradient(logits, lengths, labels, label_lengths)
    assert np.isinf(mixed_losses[1])
    assert not np.any(mixed_gradient[1])
    for i in (0, 2):
        np.testing.assert_array_equal(mixed_losses[i], losses[i])
        np.testing.assert_array_equal(mixed_gradient[i], gradient[i])


def test_padding_changes_nothing():
    logits, lengths, labels, label_lengths = random_batch(5, 30, 8, 7)
    losses, gradient = loss_and_gradient(logits, lengths, labels, label_lengths)
    for i in range(5):
        steps, count = lengths[i], label_lengths[i]
        alone = loss_and_gradient(logits[i : i + 1, :steps], [steps], labels[i : i + 1, :count], [count])
        np.testing.assert_allclose(alone[0][0], losses[i], rtol=1e-5)
        np.testing.assert_allclose(alone[1][0], gradient[i, :steps], atol=1e-5)
        assert not np.any(gradient[i, steps:])


def test_long_and_certain_utterances_stay_finite():
    steps, labels = 300, np.tile([1, 2], 50)[None]
    logits = np.full((1, steps, 4), -50, "float32")
    logits[0, :, 3] = 50  # a unit that is not in the labels
    losses, gradient = loss_and_gradient(logits, [steps], labels, [100])
    paths_at_most = steps * np.log(3)
    assert steps * 100 - paths_at_most <= losses[0] <= steps * 100
    np.testing.assert_allclose(gradient[0, :, 3], 1)
    np.testing.assert_allclose(gradient[0].sum(axis=1), 0, atol=1e-3)


def test_shapes_may_be_unknown_when_traced():
    signature = [
        tf.TensorSpec((None, None, 6), "float32"),
        tf.TensorSpec((None,), "int32"),
        tf.TensorSpec((None, None), "int32"),
        tf.TensorSpec((None,), "int32"),
    ]

    @tf.function(input_signature=signature)
    def traced(logits, lengths, labels, label_lengths):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = ctc_loss(logits, lengths, labels, label_lengths)
        return losses, tape.gradient(losses, logits)

    for batch in (random_batch(2, 9, 6, 3), random_batch(4, 17, 6, 5)):
        losses, gradient = traced(batch[0], *(tf.constant(x, "int32") for x in batch[1:]))
        expected, expected_gradient = loss_and_gradient(*batch)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)


def test_upstream_gradients_weight_the_utterances():
    logits, *rest = random_batch(3, 10, 5, 3)
    _, gradient = loss_and_gradient(logits, *rest)
    weights = np.float32([0.5, 0.0, -2.0])
    _, weighted = loss_and_gradient(logits, *rest, loss=lambda *batch: weights * ctc_loss(*batch))
    np.testing.assert_allclose(weighted, gradient * weights[:, None, None], atol=1e-6)
