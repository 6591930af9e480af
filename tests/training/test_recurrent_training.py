"""Noise contrastive training of a recurrent language model, on sentences of a small grammar."""

import json

import keras
import numpy as np
import pytest

from training import recurrent_training
from training.commands import main
from training.language_model import measure
from training.recurrent_lm import END_ID, RecurrentModel
from training.recurrent_training import NoiseContrastiveLM, read, train

VERBS = {"cat": "sleeps", "dog": "barks", "bird": "sings"}


def grammar(sentences, seed=0):
    """ "the cat sleeps": the verb follows from the noun, two words before it where there is "loudly"."""
    generator = np.random.default_rng(seed)
    lines = []
    for _ in range(sentences):
        noun = generator.choice(list(VERBS))
        lines.append(" ".join(["the", noun, *["loudly"] * generator.integers(0, 2), VERBS[noun]]))
    return lines


def test_states_are_those_of_keras_and_of_numpy():
    lines = grammar(5)
    vocabulary, sentences, frequencies = read([lines], 9)
    model = NoiseContrastiveLM(frequencies, width=8)
    model.build()
    words = np.zeros((5, 7), np.float32)
    for row, sentence in zip(words, sentences, strict=True):
        row[: len(sentence)] = sentence
    lengths = np.array([len(sentence) for sentence in sentences])
    states = keras.ops.convert_to_numpy(model({"inputs": words, "lengths": lengths}))

    tensors = model.tensors()
    layer = keras.layers.LSTM(8, return_sequences=True)
    embedded = tensors["embedding"][words[:, :-1].astype(int)]
    layer.build(embedded.shape)
    layer.set_weights([tensors[name] for name in ("kernel", "recurrent_kernel", "bias")])
    expected = keras.ops.convert_to_numpy(layer(embedded))
    expected[np.arange(words.shape[1] - 1)[None] >= lengths[:, None] - 1] = 0
    np.testing.assert_allclose(states, expected, atol=1e-5)

    plain = RecurrentModel(vocabulary, **tensors)
    for row, sentence in zip(states, sentences, strict=True):
        ids = sentence[1:].astype(int)
        logits = row[: len(ids)] @ plain.embedding.T + plain.word_bias
        expected = keras.ops.convert_to_numpy(keras.ops.log_softmax(logits))[range(len(ids)), ids]
        assert ids[-1] == END_ID
        np.testing.assert_allclose(plain.log_probs(ids[:-1]), expected, atol=1e-5)


def test_padding_is_not_learnt_from():
    _, sentences, frequencies = read([["the cat sleeps"]], 6)
    model = NoiseContrastiveLM(frequencies, width=8)
    model.build()
    losses = []
    for places in (5, 9):
        words = np.full((1, places), 2, np.float32)
        words[0, :5] = sentences[0]
        inputs = {"inputs": words, "lengths": np.array([5])}
        model.noise.state.assign(keras.ops.zeros_like(model.noise.state))  # the same noise
        losses.append(float(model.compute_loss(x=inputs, y_pred=model(inputs))))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_it_learns_what_follows_from_what(tmp_path, monkeypatch):
    monkeypatch.setattr(recurrent_training, "BATCH_WORDS", 256)
    monkeypatch.setattr(recurrent_training, "LEARNING_RATE", 0.02)
    options = {"output": tmp_path, "words": 20, "width": 16, "epochs": 4}
    model = train([grammar(3000)], **options)
    # Three nouns, and whether "loudly" comes, are chance: 6 texts of four words and a half with their ends.
    perfect = 6 ** (1 / 4.5)
    assert measure(model, [grammar(200, seed=1)]).perplexity < 1.1 * perfect
    again = train([grammar(3000)], **options)  # finished: only loaded
    np.testing.assert_array_equal(model.embedding, again.embedding)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


def test_the_command_trains_and_measures(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(grammar(40)))
    call = [
        "recurrent",
        str(text),
        "--words",
        "6",
        "--width",
        "4",
        "--epochs",
        "1",
        "--output",
        str(tmp_path / "lm"),
    ]
    assert main(["language-model", *call]) == 0
    assert main(["language-model", "perplexity", str(tmp_path / "lm/recurrent.safetensors"), str(text)]) == 0
    said = capsys.readouterr().out
    assert "6 words; 0.0 MB" in said
    assert "OOV" in said and "perplexity" in said
    assert json.loads((tmp_path / "lm/metrics.jsonl").read_text())["epoch"] == 1


def test_a_folder_with_a_run_of_another_text_is_refused(tmp_path, capsys):
    call = ["--words", "6", "--width", "4", "--epochs", "1", "--output", str(tmp_path / "lm")]
    for name, seed in (("first.txt", 0), ("second.txt", 1)):
        (tmp_path / name).write_text("\n".join(grammar(40, seed)))
    assert main(["language-model", "recurrent", str(tmp_path / "first.txt"), *call]) == 0
    before = (tmp_path / "lm/recurrent.safetensors").read_bytes()
    assert main(["language-model", "recurrent", str(tmp_path / "second.txt"), *call]) == 2
    assert "lm: holds a run of another text or size" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "lm/recurrent.safetensors").read_bytes() == before


def test_a_text_without_words_is_one_line(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("\n\n")
    call = ["language-model", "recurrent", str(tmp_path / "text.txt"), "--output", str(tmp_path / "lm")]
    assert main(call) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'text.txt'}: the text has no words\n"
