"""training/optimizer.py: the learning rate rises, falls to zero, and is what the weights are moved by."""

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
