"""asr/decoders: what a token's logits depend on, and that token by token is the same as all at once."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from asr.decoders import build_decoder
from asr.decoders.recurrent import RecurrentDecoder
from asr.decoders.transformer import TransformerDecoder
from asr.model import SpeechModel

VOCABULARY, WIDTH, TOKENS = 11, 8, 7
LENGTHS = np.int32([9, 4])


DECODERS = {
    "transformer": lambda **options: TransformerDecoder(VOCABULARY, WIDTH, layers=2, heads=2, **options),
    "recurrent": lambda **options: RecurrentDecoder(VOCABULARY, WIDTH, **options),
}


@pytest.fixture(scope="module", params=DECODERS)
def decoder(request) -> keras.layers.Layer:
    keras.utils.set_random_seed(0)
    decoder = DECODERS[request.param]()
    decoder.build()
    for weight in decoder.weights:
        weight.assign(0.5 * keras.random.normal(weight.shape))
    return decoder


@pytest.fixture(scope="module")
def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Tokens [2, TOKENS] and encoder outputs [2, steps, WIDTH]."""
    random = np.random.default_rng(0)
    encoded = random.standard_normal((2, max(LENGTHS), WIDTH)).astype("float32")
    return random.integers(0, VOCABULARY, (2, TOKENS)).astype("int32"), encoded


def close(one, other) -> None:
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


def test_padding_of_the_encoder_outputs_changes_nothing(decoder, inputs):
    tokens, encoded = inputs
    logits = np.array(decoder(tokens, encoded, LENGTHS))
    assert logits.std() > 0.1
    noise = np.pad(encoded, [(0, 0), (0, 5), (0, 0)], constant_values=100.0)
    noise[1, LENGTHS[1] :] = -100.0
    close(decoder(tokens, noise, LENGTHS), logits)
    close(decoder(tokens[1:], encoded[1:, : LENGTHS[1]], LENGTHS[1:])[0], logits[1])
    assert np.abs(decoder(tokens, encoded, LENGTHS - 1) - logits).max() > 0.01  # each step counts


def test_a_later_token_never_changes_an_earlier_logit(decoder, inputs):
    tokens, encoded = inputs
    logits = np.array(decoder(tokens, encoded, LENGTHS))
    for at in range(TOKENS):
        other = tokens.copy()
        other[:, at:] = (other[:, at:] + 1) % VOCABULARY
        changed = np.abs(np.array(decoder(other, encoded, LENGTHS)) - logits).max(axis=(0, 2))
        assert changed[:at].max(initial=0) < 1e-4
        assert changed[at] > 0.01


@settings(max_examples=15, deadline=None)
@given(cuts=st.sets(st.integers(1, TOKENS - 1)))
def test_step_by_step_is_the_same_as_all_at_once(decoder, inputs, cuts):
    tokens, encoded = inputs
    past, memory, found = decoder.empty_past(2), decoder.memory(encoded), []
    assert memory.shape == (len(past), 2, max(LENGTHS), WIDTH)
    for part in np.split(tokens, sorted(cuts), axis=1):
        logits, past = decoder.step(part, past, memory, LENGTHS)
        found.append(np.array(logits))
    assert past.shape == (len(memory), 2, TOKENS, WIDTH)
    close(np.concatenate(found, axis=1), decoder(tokens, encoded, LENGTHS))


@pytest.mark.parametrize("kind", DECODERS)
def test_logits_are_float32_in_bfloat16(inputs, kind):
    tokens, encoded = inputs
    decoder = DECODERS[kind](dtype="mixed_bfloat16")
    decoder.build()
    assert decoder(tokens, encoded, LENGTHS).dtype == "float32"
    assert decoder.empty_past(2).dtype == decoder.memory(encoded).dtype == "bfloat16"
    logits, past = decoder.step(tokens, decoder.empty_past(2), decoder.memory(encoded), LENGTHS)
    assert (logits.dtype, past.dtype) == ("float32", "bfloat16")
    np.testing.assert_allclose(logits, decoder(tokens, encoded, LENGTHS), rtol=0, atol=0.01)  # of 8 bits


def test_the_gradient_reaches_the_encoder_up_to_each_end(decoder, inputs):
    import tensorflow as tf

    tokens, encoded = inputs
    encoded = tf.constant(encoded)
    with tf.GradientTape() as tape:
        tape.watch(encoded)
        loss = ops.sum(decoder(tokens, encoded, LENGTHS) ** 2)
    gradient = tape.gradient(loss, encoded).numpy()
    valid = np.arange(max(LENGTHS)) < LENGTHS[:, None]
    assert (np.abs(gradient[valid]).max(axis=1) > 0).all()
    assert not gradient[~valid].any()


def test_a_decoder_in_the_middle_of_the_stack_does_not_use_the_encoders_above():
    encoders = [{"type": "recurrent", "width": WIDTH, "layers": 1, "bidirectional": False}] * 2
    description = {"type": "transformer", "vocabulary": VOCABULARY, "width": WIDTH, "heads": 2, "layers": 1}
    model = SpeechModel(5, encoders, {"mels": 8}, {**description, "encoders": 1}).build_for()
    samples = np.random.default_rng(0).standard_normal((1, 1600)).astype("float32")
    batch = {"inputs": samples, "lengths": np.int32([1600]), "tokens": np.int32([[1, 2]])}
    before = model(batch)
    assert {"logits", "lengths", "encoded", "encoded_lengths", "token_logits"} == before.keys()
    assert before["token_logits"].shape == (1, 2, VOCABULARY)
    for weight in model.encoders[1].weights:
        weight.assign(weight + 1)
    after = model(batch)
    np.testing.assert_array_equal(after["token_logits"], before["token_logits"])
    assert np.abs(after["logits"] - before["logits"]).max() > 1e-3
    alone = SpeechModel(None, encoders, {"mels": 8}, description).build_for()
    assert "logits" not in alone(batch)
    for count in (0, 3):
        with pytest.raises(ValueError, match=f"decoder encoders: {count} of the 2 encoders"):
            SpeechModel(5, encoders, {"mels": 8}, {**description, "encoders": count})


def test_unknown_decoders_and_options_are_refused():
    with pytest.raises(ValueError, match="decoder type 'rnn' is unknown: use one of transformer, recurrent"):
        build_decoder({"type": "rnn"}, "decoder")
    with pytest.raises(ValueError, match=r"transformer decoder: .* 'vocabulary'"):
        build_decoder({"type": "transformer"}, "decoder")
    with pytest.raises(ValueError, match="'depth'"):
        build_decoder({"type": "transformer", "vocabulary": 3, "depth": 3}, "decoder")
