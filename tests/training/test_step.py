"""training/step.py and objectives/: what is added up, over which utterances, and what stays as it is."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from asr.ctc import ctc_loss
from asr.model import SpeechModel
from training.data import pad
from training.objectives import CTC, Consistency, Distillation
from training.objectives.consistency import consistency_losses
from training.objectives.distillation import soft_losses
from training.step import TrainingStep

UNITS = 5
ENCODERS = [
    {"type": "transformer", "width": 8, "layers": 1, "heads": 2, "subsampling": 2, "final_norm": False},
    {"type": "recurrent", "width": 6, "layers": 1, "stack": 2},
]
LABELS = [[1, 2], [3], [1, 1]]
LENGTHS = (4000, 1700, 1300)  # samples; the third has too few steps for its labels
MASKS = {"frequency_width": 4}


def network() -> SpeechModel:
    keras.utils.set_random_seed(0)
    return SpeechModel(UNITS, ENCODERS, {"mels": 12}).build_for()


def batch() -> tuple[dict, dict]:
    random = np.random.default_rng(0)
    samples = pad([(0.1 * random.standard_normal(n)).astype("float32") for n in LENGTHS], 2)
    labels = pad([np.int32(ids) for ids in LABELS], 4)
    targets = {"labels": labels, "labels_lengths": np.int32([len(ids) for ids in LABELS])}
    return {"inputs": samples, "lengths": np.int32(LENGTHS)}, targets


def ctc_losses(outputs, targets) -> np.ndarray:
    labels, lengths = targets["labels"], targets["labels_lengths"]
    return ops.convert_to_numpy(ctc_loss(outputs["logits"], outputs["lengths"], labels, lengths))


def test_ctc_is_the_mean_over_what_can_be_aligned():
    objective = CTC(LABELS)
    step = TrainingStep(network(), [objective])
    inputs, targets = batch()
    outputs = step(inputs)
    losses = ctc_losses(outputs, targets)
    assert list(np.isfinite(losses)) == [True, True, False]
    loss = step.compute_loss(y=targets, y_pred=outputs)
    np.testing.assert_allclose(loss, losses[:2].mean(), rtol=1e-6)
    assert float(objective.unaligned.result()) == pytest.approx(1 / 3)
    np.testing.assert_array_equal(objective.targets(1, inputs["inputs"][1])["labels"], [3])


def test_rows_of_weight_zero_do_not_count():
    """They fill up a batch for several devices; see training/data.py."""
    inputs, targets = batch()
    model, rows = network(), [0, 1, 2, 1, 1]
    filled = {name: values[rows] for name, values in inputs.items()}
    weighted = {name: values[rows] for name, values in targets.items()}
    weighted["weights"] = np.float32([1, 1, 1, 0, 0])
    found = []
    for x, y in ((inputs, targets), (filled, weighted)):
        step = TrainingStep(model, [CTC(LABELS), Consistency(0.3)])
        step.compile()
        with tf.GradientTape() as tape:
            loss = step.compute_loss(y=y, y_pred=step(x, training=True))
        gradients = tape.gradient(loss, step.trainable_variables)
        logs = {name: float(value) for name, value in step.get_metrics_result().items()}
        assert logs["loss"] == pytest.approx(float(loss)) and logs["unaligned"] == pytest.approx(1 / 3)
        found.append((logs, gradients))
    assert found[0][0] == pytest.approx(found[1][0])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_nothing_aligned_costs_nothing_but_nan_is_not_hidden():
    step = TrainingStep(network(), [CTC(LABELS)])
    inputs, targets = batch()
    outputs = step({name: values[2:] for name, values in inputs.items()})
    last = {name: values[2:] for name, values in targets.items()}
    assert float(step.compute_loss(y=last, y_pred=outputs)) == 0
    broken = {"logits": outputs["logits"] * np.nan, "lengths": outputs["lengths"]}
    assert np.isnan(float(step.compute_loss(y=last, y_pred=broken)))


def test_objectives_are_added_by_their_weights():
    inputs, targets = batch()
    targets["teacher"] = np.full((3, 5, UNITS), 1 / UNITS, "float32")
    model = network()
    outputs = model(inputs)
    ctc = float(TrainingStep(model, [CTC(LABELS)]).compute_loss(y=targets, y_pred=outputs))
    soft = float(ops.mean(soft_losses(outputs["logits"], targets["teacher"])))
    parts = [CTC(LABELS, 0.75), Distillation([], [], 0.5)]
    step = TrainingStep(model, parts)
    assert float(step.compute_loss(y=targets, y_pred=outputs)) == pytest.approx(0.75 * ctc + 0.5 * soft)
    found = {metric.name: float(metric.result()) for metric in step.metrics}
    assert found["ctc"] == pytest.approx(ctc) and found["distillation"] == pytest.approx(soft)


def test_soft_losses_count_the_steps_that_both_have():
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


def test_at_another_speed_there_are_no_soft_targets():
    probabilities = np.full((7, UNITS), 1 / UNITS)
    objective = Distillation([probabilities], [20], 1.0)
    np.testing.assert_array_equal(objective.targets(0, np.zeros(20))["teacher"], probabilities)
    assert objective.targets(0, np.zeros(18))["teacher"].shape == (0, UNITS)
    nothing = np.zeros((1, 7, UNITS), "float32")
    outputs = {"logits": np.ones((1, 7, UNITS), "float32"), "lengths": [7]}
    assert float(objective.losses(outputs, {"teacher": nothing})[0]) == 0


def test_each_view_moves_towards_the_other():
    random = np.random.default_rng(0)
    logits = random.standard_normal((4, 5, UNITS)).astype("float32")  # two utterances, two views
    lengths = np.int32([5, 3, 5, 3])
    probs = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    for i, other in enumerate([2, 3, 0, 1]):
        own, others = probs[i, : lengths[i]], probs[other, : lengths[i]]
        divergence = (others * np.log(others / own)).sum()
        np.testing.assert_allclose(consistency_losses(logits, lengths)[i], divergence, rtol=1e-4)
    with tf.GradientTape() as tape:
        x = tf.Variable(logits)
        total = ops.sum(consistency_losses(x, lengths))
    towards = probs - probs[[2, 3, 0, 1]]
    towards[[1, 3], 3:] = 0
    np.testing.assert_allclose(tape.gradient(total, x), towards, atol=1e-5)
    alike = np.concatenate([logits[:2], logits[:2]])
    np.testing.assert_allclose(consistency_losses(alike, lengths), 0, atol=1e-6)


def test_views_are_made_while_training_only():
    inputs, targets = batch()
    step = TrainingStep(network(), [CTC(LABELS), Consistency(0.5)], MASKS, dropout=0.3)
    once, outputs = step(inputs), step(inputs, training=True)
    assert once["logits"].shape[0] == 3
    first, second = np.split(ops.convert_to_numpy(outputs["logits"]), 2)
    assert first.shape == once["logits"].shape
    assert np.abs(first - second).max() > 0.01  # other masks, other dropout
    np.testing.assert_array_equal(*np.split(ops.convert_to_numpy(outputs["lengths"]), 2))

    both = {name: np.concatenate([values, values]) for name, values in targets.items()}
    losses = ctc_losses(outputs, both)
    apart = consistency_losses(outputs["logits"], outputs["lengths"])
    expected = losses[np.isfinite(losses)].mean() + 0.5 * float(np.mean(apart))
    assert float(step.compute_loss(y=targets, y_pred=outputs)) == pytest.approx(expected, rel=1e-5)


def test_without_training_nothing_is_masked_or_dropped():
    inputs, _ = batch()
    model = network()
    step = TrainingStep(model, [CTC(LABELS)], MASKS, dropout=0.3)
    np.testing.assert_array_equal(step(inputs)["logits"], model(inputs)["logits"])
    assert np.any(ops.convert_to_numpy(step(inputs, training=True)["logits"]) != step(inputs)["logits"])


def test_frozen_encoders_are_not_trained_and_their_outputs_are_the_inputs():
    inputs, targets = batch()
    model = network()
    expected = model(inputs)
    before = [ops.convert_to_numpy(weight) for weight in model.encoders[0].weights]
    step = TrainingStep(model, [CTC(LABELS)], frozen_encoders=1)
    # On JAX even the weight decay of AdamW would change what is trainable and has no gradient.
    trained = [*model.encoders[1].weights, *model.output_layer.weights]
    assert [weight.path for weight in step.trainable_variables] == [weight.path for weight in trained]
    encoded, lengths = model.encode(*model.read(inputs["inputs"], inputs["lengths"]), slice(1))
    encoded = {"inputs": ops.convert_to_numpy(encoded), "lengths": ops.convert_to_numpy(lengths)}
    np.testing.assert_array_equal(step(encoded)["logits"], expected["logits"])
    step.compile(optimizer=keras.optimizers.Adam(0.03), jit_compile=False)
    step.fit(encoded, targets, batch_size=3, epochs=2, verbose=0)
    for weight, value in zip(model.encoders[0].weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert np.any(ops.convert_to_numpy(step(encoded)["logits"]) != expected["logits"])


@pytest.mark.parametrize("parts", [[CTC(LABELS)], [CTC(LABELS), Consistency(0.2)]])
def test_fit_learns(parts):
    inputs, targets = batch()
    step = TrainingStep(network(), parts)
    step.compile(optimizer=keras.optimizers.Adam(0.03), jit_compile=False)
    history = step.fit(inputs, targets, batch_size=3, epochs=20, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["unaligned"] == pytest.approx([1 / 3] * 20)


def test_logits_are_float32_under_mixed_precision():
    inputs, targets = batch()
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        step = TrainingStep(network(), [CTC(LABELS)], MASKS, dropout=0.1)
        outputs = step(inputs, training=True)
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    assert outputs["logits"].dtype == "float32"
    assert step.compute_loss(y=targets, y_pred=outputs).dtype == "float32"
