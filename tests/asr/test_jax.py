"""The acoustic model gives the same results on JAX as on TensorFlow.

A process has one backend, so this file is also a program that saves its results under any KERAS_BACKEND.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from asr.ctc import ctc_loss
from asr.decoders import build_decoder
from asr.encoders import build_encoder
from asr.features import SCALES, LogMel
from training.objectives.attention import token_losses
from training.objectives.consistency import consistency_losses
from training.objectives.distillation import soft_losses

ROOT = Path(__file__).parents[2]
FEATURES = 6
LENGTHS = np.int32([13, 1, 6])
ENCODERS = {
    "simple": {"type": "recurrent", "cell": "simple", "width": 4, "layers": 1},
    "gru": {"type": "recurrent", "cell": "gru", "width": 4, "layers": 1, "stack": 2},
    "lstm": {"type": "recurrent", "cell": "lstm", "width": 4, "layers": 2},
    "transformer": {"type": "transformer", "width": 8, "layers": 2, "heads": 2},
    "conformer": {"type": "conformer", "width": 8, "layers": 2, "heads": 2, "kernel": 5},
}
QUANTITIES = [
    *SCALES,
    "ctc loss",
    "ctc gradient",
    "consistency loss",
    "consistency gradient",
    "teacher loss",
    "teacher gradient",
    "lstm gradient",
    "token loss",
    "token gradient",
    "decoder",
    "decoder gradient",
    *ENCODERS,
]


def gradient(function, x):
    """Derivative of a scalar function of an array; on JAX compiled, as in training."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(jax.grad(function))(x)
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x)


def numbers() -> dict[str, np.ndarray]:
    """Everything that is compared, on the backend of this process."""
    random = np.random.default_rng(0)
    found = {}
    samples = 0.1 * random.standard_normal((2, 3000)).astype("float32")
    samples[1, 1700:] = 0
    for scale in SCALES:
        found[scale], _ = LogMel(mels=40, scale=scale)(samples, np.int32([3000, 1700]))

    logits = 3 * random.standard_normal((4, 20, 6)).astype("float32")
    steps, labels = np.int32([20, 9, 2, 7]), random.integers(1, 6, (4, 5)).astype("int32")
    label_lengths = np.int32([5, 4, 5, 0])  # the third cannot be aligned, the last has no labels

    def loss(logits):
        return ops.sum(ctc_loss(logits, steps, labels, label_lengths))

    found["ctc loss"] = ctc_loss(logits, steps, labels, label_lengths)
    found["ctc gradient"] = gradient(loss, logits)
    twice = np.int32([20, 9, 20, 9])
    found["consistency loss"] = consistency_losses(logits, twice)
    found["consistency gradient"] = gradient(lambda x: ops.sum(consistency_losses(x, twice)), logits)
    targets = random.random((4, 17, 6)).astype("float32")  # three steps shorter
    found["teacher loss"] = soft_losses(logits, targets)
    found["teacher gradient"] = gradient(lambda x: ops.sum(soft_losses(x, targets)), logits)

    x = random.standard_normal((3, 13, FEATURES)).astype("float32")
    for name, description in ENCODERS.items():
        encoder = build_encoder(description, name)
        encoder(x, LENGTHS)
        for weight in encoder.trainable_weights:
            weight.assign(random.normal(0, 0.4, weight.shape))
        found[name], _ = encoder(x, LENGTHS)
        if name == "lstm":
            found["lstm gradient"] = gradient(
                lambda x, encoder=encoder: ops.sum(encoder(x, LENGTHS)[0] ** 2), x
            )
    right = random.integers(0, 6, (4, 20)).astype("int32")
    found["token loss"] = token_losses(logits, right, 0.1)
    found["token gradient"] = gradient(lambda x: ops.sum(token_losses(x, right, 0.1)), logits)
    description = {"type": "transformer", "vocabulary": 9, "width": FEATURES, "layers": 2, "heads": 2}
    decoder = build_decoder({**description, "positions": 32}, "decoder")
    decoder.build()
    for weight in decoder.weights:
        weight.assign(random.normal(0, 0.4, weight.shape))
    tokens = random.integers(0, 9, (3, 5)).astype("int32")
    found["decoder"] = decoder(tokens, x, LENGTHS)
    found["decoder gradient"] = gradient(lambda x: ops.mean(decoder(tokens, x, LENGTHS) ** 2), x)
    return {name: ops.convert_to_numpy(value) for name, value in found.items()}


@pytest.fixture(scope="module")
def on_tensorflow():
    return numbers()


@pytest.fixture(scope="module")
def on_jax(tmp_path_factory):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("needs JAX: pip install jax")
    path = tmp_path_factory.mktemp("jax") / "numbers.npz"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, __file__, path], env=environment, check=True, timeout=300)
    return np.load(path)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_same_numbers(on_tensorflow, on_jax, quantity):
    assert keras.backend.backend() == "tensorflow"
    assert str(on_jax["backend"]) == "jax"
    np.testing.assert_allclose(on_jax[quantity], on_tensorflow[quantity], rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    np.savez(sys.argv[1], backend=keras.backend.backend(), **numbers())
