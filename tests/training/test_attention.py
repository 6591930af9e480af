"""training/objectives/attention.py: which tokens count, and that a decoder learns from it."""

import keras
import numpy as np
import pytest
from keras import ops

from asr.model import SpeechModel
from tests.training.toy import VOCABULARY
from training.data import Batches, pad_batch
from training.objectives import CTC, Attention
from training.objectives.attention import token_losses
from training.step import TrainingStep

POSITIONS = 32
TEXTS = ["Hello, you!", None, "", "No."]
ENCODERS = [{"type": "recurrent", "cell": "gru", "width": 8, "layers": 1, "bidirectional": False}]
DECODER = {"type": "transformer", "width": 8, "layers": 1, "heads": 2, "positions": POSITIONS}


def cross_entropy(logits: np.ndarray, tokens: list[int], smoothing: float) -> float:
    """Of the tokens after the prompt, in float64."""
    total = 0.0
    for i in range(len(VOCABULARY.prompt), len(tokens)):
        row = logits[i - 1].astype("float64")
        log_probs = row - np.log(np.exp(row).sum())
        wanted = np.full(len(row), smoothing / len(row))
        wanted[tokens[i]] += 1 - smoothing
        total -= wanted @ log_probs
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_the_cross_entropy_of_the_tokens_after_the_prompt(smoothing):
    objective = Attention(VOCABULARY, TEXTS, POSITIONS, label_smoothing=smoothing)
    inputs = [np.ones(3)] * len(TEXTS)
    _, targets = pad_batch(inputs, [objective.targets(i, x) for i, x in enumerate(inputs)])
    random = np.random.default_rng(0)
    shape = (len(TEXTS), targets["tokens"].shape[1] - 1, VOCABULARY.size)
    logits = (3 * random.standard_normal(shape)).astype("float32")
    losses = np.array(objective.losses({"token_logits": logits}, targets))
    for i, text in enumerate(TEXTS):
        if text is None:
            assert losses[i] == np.inf
        else:
            expected = cross_entropy(logits[i], VOCABULARY.around(text), smoothing)
            np.testing.assert_allclose(losses[i], expected, rtol=1e-5)
    # Neither the prompt nor what follows the end counts.
    other = logits.copy()
    other[:, : len(VOCABULARY.prompt) - 1] += random.standard_normal(VOCABULARY.size)
    for row, length in zip(other, targets["tokens_lengths"], strict=True):
        row[max(0, length - 1) :] = 1e3 * random.standard_normal(VOCABULARY.size)
    np.testing.assert_array_equal(objective.losses({"token_logits": other}, targets), losses)


def test_the_loss_is_float32_of_bfloat16():
    logits = ops.cast(np.random.default_rng(0).standard_normal((1, 3, 7)), "bfloat16")
    assert token_losses(logits, np.int32([[1, 2, 3]])).dtype == "float32"


def test_texts_of_too_many_tokens_are_left_out_and_counted(capsys):
    fits = "a" * (POSITIONS - len(VOCABULARY.prompt) - 2)  # and its space, and the end
    objective = Attention(VOCABULARY, [fits, fits + "a"], POSITIONS)
    lengths = [len(objective.targets(i, np.ones(3))["tokens"]) for i in range(2)]
    assert lengths == [POSITIONS, 0]
    assert capsys.readouterr().err == "1 texts have more than 32 tokens: not for the decoder\n"


def make_step(texts, **options) -> TrainingStep:
    keras.utils.set_random_seed(0)
    network = SpeechModel(3, ENCODERS, decoder={**DECODER, "vocabulary": VOCABULARY.size}).build_for(4)
    return TrainingStep(network, [CTC([[1]] * len(texts), 0.0), Attention(VOCABULARY, texts, POSITIONS)])


def make_batch(step: TrainingStep, utterances: list[int]) -> tuple[dict, dict]:
    inputs = [np.random.default_rng(i).standard_normal((6, 4)).astype("float32") for i in utterances]
    return pad_batch(inputs, [step.targets(i, x) for i, x in zip(utterances, inputs, strict=True)])


def loss_and_gradients(step: TrainingStep, utterances: list[int]) -> tuple[float, list[np.ndarray]]:
    import tensorflow as tf

    x, y = make_batch(step, utterances)
    with tf.GradientTape() as tape:
        loss = step.compute_loss(x, y, step(x, training=True))
    gradients = tape.gradient(loss, step.network.trainable_variables)
    return float(loss), [np.zeros(1) if g is None else np.array(ops.convert_to_numpy(g)) for g in gradients]


def test_utterances_without_written_text_are_left_out_of_the_mean_and_give_no_gradient():
    step = make_step(TEXTS)
    with_others, gradients = loss_and_gradients(step, [0, 1, 3])
    alone, expected = loss_and_gradients(step, [0, 3])
    assert alone > 1
    assert with_others == pytest.approx(alone, rel=1e-5)
    for mine, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    loss, gradients = loss_and_gradients(step, [1])
    assert loss == 0
    assert all(np.isfinite(g).all() and not g.any() for g in gradients)


def greedy(network: SpeechModel, features: np.ndarray) -> str:
    """What the decoder writes, stopped by its own end."""
    encoded, lengths = network.encode(features[None], np.int32([len(features)]))
    decoder = network.decoder
    memory, past, tokens, found = decoder.memory(encoded), decoder.empty_past(1), VOCABULARY.prompt, []
    while len(found) < POSITIONS - 2:
        logits, past = decoder.step(np.int32([tokens]), past, memory, lengths)
        tokens = [int(np.argmax(logits[0, -1]))]
        found += tokens
        if tokens[0] == VOCABULARY.end:
            return VOCABULARY.decode(found)
    raise AssertionError("no end")


def test_three_utterances_are_learnt_by_heart_and_the_one_without_words_ends_at_once():
    texts = ["Hello!", "No, so.", ""]
    step = make_step(texts)
    sounds = [np.random.default_rng(i).standard_normal((6, 4)).astype("float32") for i in range(3)]
    batches = Batches(np.array([6, 6, 6]), lambda i, _: sounds[i], 6.0, 4.0, seed=1, targets=step.targets)
    step.compile(optimizer=keras.optimizers.Adam(0.02))
    log = step.fit(batches, epochs=150, verbose=0)
    assert log.history["attention"][0] > 10
    assert log.history["attention"][-1] < 0.1
    assert [greedy(step.network, sound) for sound in sounds] == [" Hello!", " No, so.", ""]
