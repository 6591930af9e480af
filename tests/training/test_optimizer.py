"""training/optimizer.py: the learning rate rises, falls to zero, and is what the weights are moved by."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from training.optimizer import ScaledAdamW, WarmupLinearDecay

PEAK, WARMUP_STEPS, STEPS = 0.1, 4, 12
RATES = [0.025, 0.05, 0.075, 0.1, 0.0875, 0.075, 0.0625, 0.05, 0.0375, 0.025, 0.0125, 0.0, 0.0, 0.0]


def test_the_schedule_rises_to_its_peak_and_falls_to_zero():
    schedule = WarmupLinearDecay(PEAK, WARMUP_STEPS, STEPS)
    np.testing.assert_allclose([float(schedule(step)) for step in range(len(RATES))], RATES, atol=1e-7)
    again = WarmupLinearDecay.from_config(schedule.get_config())
    np.testing.assert_allclose([float(again(step)) for step in range(len(RATES))], RATES, atol=1e-7)


@pytest.mark.parametrize(("warmup_steps", "first", "second"), [(0, 0.075, 0.05), (4, 0.025, 0.05)])
def test_the_first_steps(warmup_steps, first, second):
    schedule = WarmupLinearDecay(PEAK, warmup_steps, 4)
    assert float(schedule(0)) == pytest.approx(first)
    assert float(schedule(1)) == pytest.approx(second)


def test_weights_move_by_the_rate_times_the_multiplier_of_their_part():
    """Under a constant gradient Adam moves every weight by the learning rate."""
    parts = {"encoder_0": 0.1, "encoder_1": 1.0, "output": 0.5}  # of "encoder_10" nothing is said
    layers = [keras.layers.Dense(1, use_bias=False, name=name) for name in [*parts, "encoder_10"]]
    for layer in layers:
        layer.build((None, 1))
    kernels = [layer.kernel for layer in layers]
    multipliers = {name: value for name, value in parts.items() if value != 1.0}
    optimizer = ScaledAdamW(
        WarmupLinearDecay(PEAK, WARMUP_STEPS, STEPS), multipliers=multipliers, weight_decay=0.0
    )
    optimizer.build(kernels)
    moves = []
    for _ in RATES:
        before = [kernel.numpy().item() for kernel in kernels]
        optimizer.apply([np.ones((1, 1), "float32")] * len(kernels), kernels)
        moves.append(np.array(before) - [kernel.numpy().item() for kernel in kernels])
    expected = np.outer(RATES, [*parts.values(), 1.0])
    np.testing.assert_allclose(moves, expected, rtol=1e-3, atol=1e-6)


def weights_after_training(batch_size: int, accumulate: int | None) -> list[float]:
    """After two epochs of 16 rows, with all that the optimizer does: decay, clipping, rates by part."""
    random = np.random.default_rng(0)
    layer = keras.layers.Dense(3, name="output", kernel_initializer=keras.initializers.GlorotUniform(seed=1))
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1, kernel_initializer="ones")])
    batches = 2 * 16 // batch_size
    optimizer = ScaledAdamW(
        WarmupLinearDecay(PEAK, batches // 4, batches),
        multipliers={"output": 0.5},
        weight_decay=0.1,
        global_clipnorm=0.5,
        gradient_accumulation_steps=accumulate,
    )
    model.compile(optimizer, "mse")
    x, y = random.standard_normal((16, 4)), random.standard_normal((16, 1))
    model.fit(x, y, batch_size=batch_size, epochs=2, shuffle=False, verbose=0)
    return [float(value) for weight in model.get_weights() for value in weight.ravel()]


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_accumulated_halves_are_one_batch(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip("needs JAX: pip install jax")
    code = (
        "import json; from tests.training.test_optimizer import weights_after_training as run\n"
        "print(json.dumps([run(4, None), run(2, 2), run(2, None)]))"
    )
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    command, root = [sys.executable, "-c", code], Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, check=True, timeout=280)
    whole, halves, others = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(halves, whole, rtol=1e-5, atol=1e-6)
    assert np.abs(np.array(others) - whole).max() > 1e-3
