"""asr/model.py: samples to logits, in one go and encoder by encoder."""

import keras
import numpy as np
import pytest
from keras import ops

from asr.model import SpeechModel

UNITS = 5
ENCODERS = [
    {"type": "transformer", "width": 8, "layers": 1, "heads": 2, "subsampling": 2, "final_norm": False},
    {"type": "recurrent", "width": 6, "layers": 1, "stack": 2},
]


def small_model() -> SpeechModel:
    keras.utils.set_random_seed(0)
    return SpeechModel(UNITS, ENCODERS, {"mels": 12}).build_for()


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


def test_encoders_one_after_the_other_are_the_whole_stack():
    model, inputs = small_model(), batch()
    expected = model(inputs)
    encoded, lengths = model.encode(*model.read(inputs["inputs"], inputs["lengths"]), slice(1))
    encoded, lengths = model.encode(encoded, lengths, slice(1, None))
    np.testing.assert_array_equal(model.output_layer(encoded), expected["logits"])
    np.testing.assert_array_equal(lengths, expected["lengths"])


def test_features_may_be_the_input():
    model = SpeechModel(UNITS, ENCODERS[1:]).build_for(width=3)
    features = np.random.default_rng(0).standard_normal((2, 9, 3)).astype("float32")
    outputs = model({"inputs": features, "lengths": np.int32([9, 4])})
    np.testing.assert_array_equal(outputs["lengths"], [5, 2])
