"""asr/encoders/recurrence.py equals Keras' LSTM in value and gradient."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from asr.encoders.recurrence import lstm

STEPS, BATCH, FEATURES, WIDTH = 9, 3, 4, 5
TOLERANCE = 1e-5


def stock_layer(seed: int) -> keras.layers.LSTM:
    layer = keras.layers.LSTM(WIDTH, return_sequences=True)
    layer.build((None, None, FEATURES))
    random = np.random.default_rng(seed)
    layer.set_weights([random.normal(0, 0.5, w.shape).astype("float32") for w in layer.get_weights()])
    return layer


def ours(layers, x):
    """Hidden states [batch, steps, width] of each layer."""
    projected = [tf.transpose(x @ layer.cell.kernel + layer.cell.bias, (1, 0, 2)) for layer in layers]
    recurrent = tf.stack([tf.convert_to_tensor(layer.cell.recurrent_kernel) for layer in layers])
    hidden = lstm(tf.stack(projected, axis=1), recurrent)
    return [tf.transpose(hidden[:, i], (1, 0, 2)) for i in range(len(layers))]


def stock(layers, x):
    return [layer(x) for layer in layers]


def value_and_gradients(run, layers, x, upstream):
    weights = [variable.value for layer in layers for variable in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = run(layers, x)
        loss = tf.add_n([tf.reduce_sum(y * upstream[i]) for i, y in enumerate(outputs)])
    return outputs, tape.gradient(loss, [x, *weights])


@pytest.mark.parametrize("directions", [1, 2])
def test_equals_the_stock_layer(directions):
    random = np.random.default_rng(0)
    x = tf.constant(random.standard_normal((BATCH, STEPS, FEATURES)), "float32")
    upstream = random.standard_normal((directions, BATCH, STEPS, WIDTH)).astype("float32")
    layers = [stock_layer(seed) for seed in range(directions)]
    outputs, gradients = value_and_gradients(ours, layers, x, upstream)
    their_outputs, their_gradients = value_and_gradients(stock, layers, x, upstream)
    for mine, theirs in zip([*outputs, *gradients], [*their_outputs, *their_gradients], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=TOLERANCE, atol=TOLERANCE)


def test_shapes_may_be_unknown_when_traced():
    layers = [stock_layer(0)]
    traced = tf.function(
        lambda x, upstream: value_and_gradients(ours, layers, x, upstream),
        input_signature=[
            tf.TensorSpec((None, None, FEATURES), "float32"),
            tf.TensorSpec((1, None, None, WIDTH), "float32"),
        ],
    )
    random = np.random.default_rng(1)
    for batch, steps in ((1, 1), (2, 6)):
        x = tf.constant(random.standard_normal((batch, steps, FEATURES)), "float32")
        upstream = tf.constant(random.standard_normal((1, batch, steps, WIDTH)), "float32")
        outputs, gradients = traced(x, upstream)
        their_outputs, their_gradients = value_and_gradients(stock, layers, x, upstream)
        for mine, theirs in zip([*outputs, *gradients], [*their_outputs, *their_gradients], strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=TOLERANCE, atol=TOLERANCE)
