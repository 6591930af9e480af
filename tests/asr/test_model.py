"""asr/model.py: samples to logits, the loss over what can be aligned, going on from cached encoders."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from asr.ctc import ctc_loss
from asr.model import CTCModel, consistency_losses, soft_losses

UNITS = 5
ENCODERS = [
    {"type": "transformer", "width": 8, "layers": 1, "heads": 2, "subsampling": 2, "final_norm": False},
    {"type": "recurrent", "width": 6, "layers": 1, "stack": 2},
]
OPTIONS = {"features": {"mels": 12}, "spec_augment": {"frequency_width": 4}, "dropout": 0.3}


def small_model(**options) -> CTCModel:
    keras.utils.set_random_seed(0)
    return CTCModel(UNITS, ENCODERS, **{**OPTIONS, **options}).build_for()


def batch(lengths=(4000, 1700, 3000), padding=0) -> dict:
    random = np.random.default_rng(0)
    samples = np.zeros((len(lengths), max(lengths) + padding), "float32")
    for row, length in zip(samples, lengths, strict=True):
        row[:length] = 0.1 * random.standard_normal(length)
    return {"inputs": samples, "lengths": np.int32(lengths)}


def test_output_shapes_and_step_length():
    model = small_model()
    assert model.subsampling == 4
    assert model.step_seconds == pytest.approx(0.04)
    outputs = model(batch())
    frames = np.int32([25, 10, 18])
    np.testing.assert_array_equal(outputs["lengths"], (frames + 3) // 4)
    assert tuple(outputs["logits"].shape) == (3, 7, UNITS)


def test_padding_changes_nothing():
    model, inputs = small_model(), batch(padding=1000)
    together = model.log_probs(inputs)
    for i, length in enumerate(inputs["lengths"]):
        alone = model.log_probs(
            {"inputs": inputs["inputs"][i : i + 1, :length], "lengths": inputs["lengths"][i : i + 1]}
        )
        steps = int(alone["lengths"][0])
        assert int(together["lengths"][i]) == steps
        np.testing.assert_allclose(together["log_probs"][i, :steps], alone["log_probs"][0], atol=1e-4)
    np.testing.assert_allclose(ops.sum(ops.exp(together["log_probs"]), axis=-1), 1, rtol=1e-5)


def test_logits_are_float32_under_mixed_precision():
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        model = small_model()
        outputs = model(batch())
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    assert outputs["logits"].dtype == "float32"
    expected = small_model()(batch())
    np.testing.assert_allclose(outputs["logits"], expected["logits"], atol=0.1)


def test_randomness_only_while_training():
    model, inputs = small_model(), batch()
    first = model(inputs)["logits"]
    np.testing.assert_array_equal(model(inputs)["logits"], first)
    assert np.any(ops.convert_to_numpy(model(inputs, training=True)["logits"]) != first)


def test_cached_encoders_give_the_same_logits():
    model, inputs = small_model(), batch()
    expected = model(inputs)
    encoded, lengths = model.encode(inputs, 1)
    model.cached_encoders = 1
    outputs = model({"inputs": encoded, "lengths": lengths})
    np.testing.assert_array_equal(outputs["logits"], expected["logits"])
    np.testing.assert_array_equal(outputs["lengths"], expected["lengths"])


def test_features_may_be_the_input():
    model = CTCModel(UNITS, ENCODERS[1:]).build_for(width=3)
    features = np.random.default_rng(0).standard_normal((2, 9, 3)).astype("float32")
    outputs = model({"inputs": features, "lengths": np.int32([9, 4])})
    np.testing.assert_array_equal(outputs["lengths"], [5, 2])


def test_loss_is_the_mean_over_what_can_be_aligned():
    model = small_model()
    outputs = model(batch())
    labels = {"labels": np.int32([[1, 2, 3, 0], [1, 1, 1, 1], [4, 0, 0, 0]]), "label_lengths": [3, 4, 1]}
    labels["label_lengths"] = np.int32(labels["label_lengths"])
    losses = ops.convert_to_numpy(
        ctc_loss(outputs["logits"], outputs["lengths"], labels["labels"], labels["label_lengths"])
    )
    assert list(np.isfinite(losses)) == [True, False, True]
    loss = model.compute_loss(y=labels, y_pred=outputs)
    np.testing.assert_allclose(loss, losses[[0, 2]].mean(), rtol=1e-6)
    assert float(model.unaligned.result()) == 1


def test_a_teacher_is_heard_on_the_steps_that_both_have():
    random = np.random.default_rng(0)
    logits = random.standard_normal((2, 4, UNITS)).astype("float32")
    targets = random.dirichlet(np.ones(UNITS), (2, 6)).astype("float32")
    targets[1, 2:] = 0  # the second utterance is shorter
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = [-(targets[0, :4] * log_probs[0]).sum(), -(targets[1, :2] * log_probs[1, :2]).sum()]
    np.testing.assert_allclose(soft_losses(logits, targets), expected, rtol=1e-5)
    np.testing.assert_allclose(
        soft_losses(logits, targets[:, :3])[0], -(targets[0, :3] * log_probs[0, :3]).sum(), rtol=1e-5
    )


def test_the_teacher_has_its_share_of_the_loss():
    model = small_model()
    outputs = model(batch())
    labels = {"labels": np.int32([[1, 2], [1, 2], [4, 0]]), "label_lengths": np.int32([2, 2, 1])}
    ctc = float(model.compute_loss(y=labels, y_pred=outputs))
    targets = np.full((3, 5, UNITS), 1 / UNITS, "float32")
    soft = float(ops.mean(soft_losses(outputs["logits"], targets)))
    model.teacher_share = 0.25
    loss = float(model.compute_loss(y={**labels, "targets": targets}, y_pred=outputs))
    assert loss == pytest.approx(0.75 * ctc + 0.25 * soft, rel=1e-5)


def test_without_targets_an_utterance_counts_by_ctc_alone():
    model = small_model()
    outputs = model(batch())
    labels = {"labels": np.int32([[1, 2], [1, 2], [4, 0]]), "label_lengths": np.int32([2, 2, 1])}
    ctc = float(model.compute_loss(y=labels, y_pred=outputs))
    model.teacher_share = 0.25
    nothing = np.zeros((3, 5, UNITS), "float32")
    assert float(model.compute_loss(y={**labels, "targets": nothing}, y_pred=outputs)) == ctc


def test_two_readings_learn_from_each_other():
    random = np.random.default_rng(0)
    logits = random.standard_normal((4, 5, UNITS)).astype("float32")  # two utterances, read twice
    lengths = np.int32([5, 3, 5, 3])
    probs = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    for i, other in enumerate([2, 3, 0, 1]):
        own, others = probs[i, : lengths[i]], probs[other, : lengths[i]]
        divergence = (others * np.log(others / own)).sum()
        np.testing.assert_allclose(consistency_losses(logits, lengths)[i], divergence, rtol=1e-4)
    with tf.GradientTape() as tape:  # each reading moves towards the other, and moves it not
        x = tf.Variable(logits)
        total = ops.sum(consistency_losses(x, lengths))
    towards = probs - probs[[2, 3, 0, 1]]
    towards[[1, 3], 3:] = 0
    np.testing.assert_allclose(tape.gradient(total, x), towards, atol=1e-5)
    alike = np.concatenate([logits[:2], logits[:2]])
    np.testing.assert_allclose(consistency_losses(alike, lengths), 0, atol=1e-6)


def test_only_training_reads_twice():
    labels = {"labels": np.int32([[1, 2], [3, 0], [1, 1]]), "label_lengths": np.int32([2, 1, 2])}
    inputs = batch(lengths=(4000, 1700, 1300))
    model = small_model()
    model.consistency = 0.5
    once, outputs = model(inputs), model(inputs, training=True)
    assert once["logits"].shape[0] == 3
    first, second = np.split(ops.convert_to_numpy(outputs["logits"]), 2)
    assert first.shape == once["logits"].shape
    assert np.abs(first - second).max() > 0.01  # other masks, other dropout
    np.testing.assert_array_equal(*np.split(ops.convert_to_numpy(outputs["lengths"]), 2))

    both = {name: np.concatenate([values, values]) for name, values in labels.items()}
    apart = consistency_losses(outputs["logits"], outputs["lengths"])
    loss = float(model.compute_loss(y=labels, y_pred=outputs))
    assert float(model.unaligned.result()) == 1
    model.consistency = 0
    ctc = float(model.compute_loss(y=both, y_pred=outputs))
    aligned = np.bool_([True, True, False] * 2)
    assert loss == pytest.approx(ctc + 0.5 * float(np.mean(apart[aligned])), rel=1e-5)


def test_fit_learns_from_two_readings():
    model = small_model(spec_augment=None, dropout=0.1)
    model.consistency = 0.2
    labels = {"labels": np.int32([[1, 2], [3, 0], [1, 1]]), "label_lengths": np.int32([2, 1, 2])}
    model.compile(optimizer=keras.optimizers.Adam(0.03), jit_compile=False)
    inputs = batch(lengths=(4000, 1700, 1300))
    history = model.fit(inputs, labels, batch_size=3, epochs=20, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["unaligned"] == [1] * 20
    assert model.evaluate(inputs, labels, batch_size=3, verbose=0, return_dict=True)["unaligned"] == 1


def test_nothing_aligned_costs_nothing():
    model = small_model()
    labels = {"labels": np.int32([[1, 1, 1, 1]]), "label_lengths": np.int32([4])}
    outputs = model(batch(lengths=(1700,)))
    assert float(model.compute_loss(y=labels, y_pred=outputs)) == 0


def test_fit_learns_and_counts_the_unaligned():
    model = small_model(spec_augment=None, dropout=0.0)
    labels = {"labels": np.int32([[1, 2], [3, 0], [1, 1]]), "label_lengths": np.int32([2, 1, 2])}
    inputs = batch(lengths=(4000, 1700, 1300))
    model.compile(optimizer=keras.optimizers.Adam(0.03), jit_compile=False)
    history = model.fit(inputs, labels, batch_size=3, epochs=8, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["unaligned"] == [1] * 8


def test_configuration_and_weights_survive_saving(tmp_path):
    model, inputs = small_model(), batch()
    expected = model(inputs)["logits"]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert again.get_config() == model.get_config()
    np.testing.assert_array_equal(again(inputs)["logits"], expected)
