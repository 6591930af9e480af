"""training/benchmarks/training.py: the smallest of its measurements, on whatever device there is."""

import keras
import numpy as np
import pytest

from training.benchmarks.training import Forward, keras_lstm, measure, peak_memory_bytes, seconds_each


def test_a_row_has_the_parts_of_a_step_and_its_memory():
    name, parameters, forward, loss, backward, step, hours, reading, memory = measure(
        "recurrent", batch=2, seconds=1, bfloat16=False
    )
    assert name == "recurrent" and parameters == "4,119,709"
    assert float(forward) > 0 and float(step) == pytest.approx(
        sum(map(float, (forward, loss, backward))), abs=2
    )
    assert float(hours) == pytest.approx(2 * 1 / float(step) * 1000, rel=0.3)  # audio seconds a second
    assert float(reading) >= 0 and float(memory) > 100


def test_forward_is_a_loss_that_is_small_whatever_the_outputs():
    outputs = {"logits": np.ones((2, 3, 4), "float32"), "token_logits": 2 * np.ones((2, 5, 6), "float32")}
    np.testing.assert_allclose(keras.ops.convert_to_numpy(Forward(1.0).losses(outputs, {})), [3.0, 3.0])


def test_our_lstm_takes_a_step():
    loss = keras_lstm(1)()
    assert np.isfinite(loss)


def test_times_are_medians_of_calls_in_turn():
    order = []
    times = seconds_each(lambda: order.append("a"), lambda: order.append("b"))
    assert order[:4] == ["a", "b", "a", "b"] and all(0 <= seconds < 1 for seconds in times)
    assert peak_memory_bytes() > 1e7
