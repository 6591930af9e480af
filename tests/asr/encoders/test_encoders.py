"""Rules that all encoders follow: padding, lengths, precision, configuration."""

import keras
import numpy as np
import pytest
from keras import ops

from asr.encoders import ENCODERS, build_encoder
from asr.encoders.recurrent import reverse_valid
from asr.encoders.subsampling import ConvSubsampling, StackFrames, halved
from asr.encoders.transformer import sinusoids

FEATURES = 6
LENGTHS = np.int32([13, 1, 6])

DESCRIPTIONS = {
    **{
        f"{cell}-{'bi' if both else 'uni'}": [
            {"type": "recurrent", "width": 5, "layers": 2, "cell": cell, "bidirectional": both}
        ]
        for cell in ("simple", "lstm", "gru")
        for both in (False, True)
    },
    "lstm-stacked-frames": [{"type": "recurrent", "width": 5, "layers": 1, "stack": 4}],
    **{
        f"transformer-{factor}": [
            {"type": "transformer", "width": 8, "layers": 2, "heads": 2, "subsampling": factor}
        ]
        for factor in (1, 2, 4, 8)
    },
    **{
        f"conformer-{factor}": [
            {"type": "conformer", "width": 8, "layers": 2, "heads": 2, "kernel": 5, "subsampling": factor}
        ]
        for factor in (1, 4)
    },
    "recurrent on transformer": [
        {"type": "transformer", "width": 8, "layers": 1, "heads": 2, "final_norm": False},
        {"type": "transformer", "width": 8, "layers": 1, "heads": 2, "subsampling": 1, "stem": False},
        {"type": "recurrent", "width": 5, "layers": 1, "stack": 2},
    ],
}


def build(descriptions: list[dict]) -> list:
    """The stack of encoders with random weights and biases: a zero bias would hide wrong padding."""
    encoders, x, lengths = [], np.zeros((1, 1, FEATURES), "float32"), np.int32([1])
    random = np.random.default_rng(0)
    for i, description in enumerate(descriptions):
        encoder = build_encoder(description, f"encoder_{i}")
        x, lengths = encoder(x, lengths)
        for weight in encoder.trainable_weights:
            weight.assign(random.normal(0, 0.4, weight.shape))
        encoders.append(encoder)
    return encoders


def encode(encoders, x, lengths):
    for encoder in encoders:
        x, lengths = encoder(x, lengths)
    return ops.convert_to_numpy(ops.cast(x, "float32")), ops.convert_to_numpy(lengths)


def padded_batch() -> np.ndarray:
    """[batch, 13, FEATURES] with large random values in the padding."""
    random = np.random.default_rng(1)
    x = random.standard_normal((len(LENGTHS), LENGTHS.max(), FEATURES))
    garbage = np.arange(LENGTHS.max()) >= LENGTHS[:, None]
    x[garbage] = 100 * random.standard_normal((garbage.sum(), FEATURES))
    return x.astype("float32")


@pytest.fixture(params=DESCRIPTIONS)
def descriptions(request):
    return DESCRIPTIONS[request.param]


@pytest.fixture(params=["float32", "mixed_bfloat16"])
def policy(request):
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(request.param)
    yield request.param
    keras.mixed_precision.set_dtype_policy(before)


def test_all_kinds_are_tested():
    assert {d["type"] for stack in DESCRIPTIONS.values() for d in stack} == set(ENCODERS)


def test_padding_changes_nothing(descriptions, policy):
    encoders, x = build(descriptions), padded_batch()
    tolerance = 1e-4 if policy == "float32" else 0.05  # bfloat16 has 8 bits, and sums depend on the shape
    together, steps = encode(encoders, x, LENGTHS)
    factor = np.prod([encoder.subsampling for encoder in encoders])
    np.testing.assert_array_equal(steps, -(-LENGTHS // factor))
    assert together.shape[1] == steps.max()
    for i, length in enumerate(LENGTHS):
        alone, _ = encode(encoders, x[i : i + 1, :length], LENGTHS[i : i + 1])
        assert alone.shape[1] == steps[i]
        np.testing.assert_allclose(together[i, : steps[i]], alone[0], atol=tolerance, rtol=tolerance)
        assert not np.any(together[i, steps[i] :])


def test_every_valid_frame_counts(descriptions):
    """A change in an utterance's last frame changes its encoding: not too much is masked."""
    encoders, x = build(descriptions), padded_batch()
    before, _ = encode(encoders, x, LENGTHS)
    for i, length in enumerate(LENGTHS):
        x[i, length - 1] += 1
    after, _ = encode(encoders, x, LENGTHS)
    assert np.all(np.abs(after - before).max(axis=(1, 2)) > 1e-4)


def test_policy_sets_the_precision_of_outputs_and_weights(descriptions, policy):
    encoders = build(descriptions)
    x, lengths = padded_batch(), LENGTHS
    for encoder in encoders:
        x, lengths = encoder(x, lengths)
        assert keras.backend.standardize_dtype(x.dtype) == encoder.compute_dtype
        assert {weight.dtype for weight in encoder.trainable_weights} == {"float32"}


def test_configuration_restores_the_encoder(descriptions):
    x, lengths = padded_batch(), LENGTHS
    for encoder in build(descriptions):
        again = type(encoder).from_config(encoder.get_config())
        again(x, lengths)
        again.set_weights(encoder.get_weights())
        assert [w.path.split("/")[1:] for w in again.weights] == [
            w.path.split("/")[1:] for w in encoder.weights
        ]
        expected, steps = encoder(x, lengths)
        np.testing.assert_array_equal(again(x, lengths)[0], expected)
        x, lengths = expected, steps


def test_no_gradient_reaches_padding(descriptions):
    import tensorflow as tf

    encoders, x = build(descriptions), tf.constant(padded_batch())
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, lengths = x, LENGTHS
        for encoder in encoders:
            y, lengths = encoder(y, lengths)
        loss = tf.reduce_sum(y**2)
    gradient = tape.gradient(loss, x).numpy()
    for i, length in enumerate(LENGTHS):
        assert np.any(gradient[i, length - 1])
        assert not np.any(gradient[i, length:])


@pytest.mark.parametrize("layer", [ConvSubsampling, StackFrames])
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_subsampling_keeps_an_odd_last_frame(layer, factor):
    subsampling = layer(width=4, factor=factor) if layer is ConvSubsampling else layer(factor)
    for frames in (1, 2, 7, 8, 9, 17):
        lengths = np.int32([frames, 1])
        y, steps = subsampling(np.ones((2, frames, 3), "float32"), lengths)
        expected = [-(-frames // factor), 1]
        assert list(ops.convert_to_numpy(steps)) == expected
        assert y.shape[1] == expected[0]
        assert halved(frames, factor.bit_length() - 1) == expected[0]


def test_positions_are_whispers():
    """Wavelengths from 2π to 20,000π steps in a geometric progression; sines, then cosines."""
    positions = ops.convert_to_numpy(sinusoids(50, 8))
    angles = np.arange(50)[:, None] / 10_000.0 ** (np.arange(4) / 3)
    np.testing.assert_allclose(positions, np.hstack([np.sin(angles), np.cos(angles)]), atol=1e-5)


def test_a_conformer_block_adds_its_parts():
    """Equation 1 of Gulati et al. 2020: half a step of each feed-forward, then the norm."""
    [encoder] = build([{"type": "conformer", "width": 8, "layers": 1, "heads": 2, "kernel": 5}])
    block, lengths = encoder.blocks[0], np.int32([13, 6])
    x = np.random.default_rng(0).standard_normal((2, 13, 8)).astype("float32")
    expected = x + block.first(x) / 2
    expected = expected + block.attention(block.attention_norm(expected), lengths)
    expected = expected + block.convolution(expected, lengths)
    expected = block.norm(expected + block.second(expected) / 2)
    np.testing.assert_allclose(block(x, lengths), expected, atol=1e-5)


def test_stacking_concatenates_frames_in_order():
    x = np.arange(10, dtype="float32").reshape(1, 5, 2)
    y, lengths = StackFrames(2)(x, np.int32([5]))
    np.testing.assert_array_equal(y[0], [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 0]])
    assert int(lengths[0]) == 3


def test_reversal_stays_within_each_utterance():
    x = np.arange(8, dtype="float32").reshape(2, 4, 1)
    y = ops.convert_to_numpy(reverse_valid(x, np.int32([3, 1])))
    np.testing.assert_array_equal(y[..., 0], [[2, 1, 0, 3], [4, 5, 6, 7]])


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"type": "perceptron"}, "encoder type 'perceptron' is unknown: use one of recurrent"),
        ({"width": 5}, "encoder type None is unknown"),
        ({"type": "recurrent", "cell": "lstn"}, "cell is 'lstn': use one of simple, lstm, gru"),
        ({"type": "recurrent", "wdith": 5}, "wdith"),
        ({"type": "recurrent", "stack": 3}, "subsampling by 3: use 1, 2, 4 or 8"),
        ({"type": "transformer", "width": 10, "heads": 3}, "width 10 is no multiple of 3 heads"),
        ({"type": "conformer", "kernel": 8}, "kernel is 8: use an odd number"),
        ({"type": "transformer", "stem": False, "subsampling": 2}, "needs the stem"),
    ],
)
def test_wrong_descriptions_are_refused_in_one_line(description, message):
    with pytest.raises(ValueError, match=message) as error:
        build_encoder(description, "encoder_0")
    assert "\n" not in str(error.value)
