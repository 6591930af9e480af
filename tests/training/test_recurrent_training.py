"""The recurrent language model: its training on sentences of a small grammar, probabilities, and file."""

import json

import keras
import numpy as np
import pytest

from asr.decoding.ngram import LanguageModelError
from training import recurrent_training
from training.commands import main
from training.language_model import measure
from training.recurrent_training import LOGITS_WORDS, NoiseContrastiveLM, load, read, save, train

VERBS = {"cat": "sleeps", "dog": "barks", "bird": "sings"}


def grammar(sentences, seed=0):
    """ "the cat sleeps": the verb follows from the noun, two words before it where there is "loudly"."""
    generator = np.random.default_rng(seed)
    lines = []
    for _ in range(sentences):
        noun = generator.choice(list(VERBS))
        lines.append(" ".join(["the", noun, *["loudly"] * generator.integers(0, 2), VERBS[noun]]))
    return lines


def random_model(seed, width=6):
    keras.utils.set_random_seed(seed)
    model = NoiseContrastiveLM(["</s>", "<unk>", "a", "ab", "b"], width)
    model.build()
    for variable in model.tensors().values():
        variable.assign(keras.random.normal(variable.shape))
    return model


def test_states_are_those_of_keras():
    vocabulary, sentences, frequencies = read([grammar(5)], 9)
    model = NoiseContrastiveLM(vocabulary, 8, frequencies)
    model.build()
    words = np.zeros((5, 7), np.float32)
    for row, sentence in zip(words, sentences, strict=True):
        row[: len(sentence)] = sentence
    lengths = np.array([len(sentence) for sentence in sentences])
    states = keras.ops.convert_to_numpy(model({"inputs": words, "lengths": lengths}))

    tensors = {name: keras.ops.convert_to_numpy(variable) for name, variable in model.tensors().items()}
    layer = keras.layers.LSTM(8, return_sequences=True)
    embedded = tensors["embedding"][words[:, :-1].astype(int)]
    layer.build(embedded.shape)
    layer.set_weights([tensors[name] for name in ("kernel", "recurrent_kernel", "bias")])
    expected = keras.ops.convert_to_numpy(layer(embedded))
    expected[np.arange(words.shape[1] - 1)[None] >= lengths[:, None] - 1] = 0
    np.testing.assert_allclose(states, expected, atol=1e-5)


def test_what_may_come_next_has_probability_one_in_all():
    model, begun = random_model(0), ["a", "b", "b"]
    ended = np.exp(model.log_probs(begun)[-1])
    next_words = [model.log_probs([*begun, word])[-2] for word in ("unknown", "a", "ab", "b")]
    assert ended + np.exp(next_words).sum() == pytest.approx(1, abs=1e-5)


def test_the_history_counts():
    model = random_model(1)
    after_a, after_b = model.log_probs(["a", "ab"]), model.log_probs(["b", "ab"])
    assert abs(after_a[1] - after_b[1]) > 0.01


@pytest.mark.parametrize("length", [0, LOGITS_WORDS - 1, LOGITS_WORDS])
def test_long_sentences_are_as_exact_as_short_ones(length):
    words = np.random.default_rng(0).choice(["a", "ab", "b"], 2 * LOGITS_WORDS + 5).tolist()
    model = random_model(0)
    long, short = model.log_probs(words), model.log_probs(words[:length])
    assert (long.shape, short.shape) == ((len(words) + 1,), (length + 1,))
    np.testing.assert_allclose(short[:-1], long[:length], atol=1e-5)


def test_a_saved_model_is_the_same(tmp_path):
    model = random_model(2)
    save(model, tmp_path / "recurrent.safetensors")
    loaded = load(tmp_path / "recurrent.safetensors")
    words = ["a", "ab", "b", "unknown"]
    np.testing.assert_array_equal(loaded.log_probs(words), model.log_probs(words))


def test_damaged_and_foreign_files_are_one_line(tmp_path):
    path = tmp_path / "recurrent.safetensors"
    with pytest.raises(LanguageModelError, match="No such file"):
        load(path)
    save(random_model(0), path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], whole.replace(b"</s>", b"xxxx"), b"ARPA" * 100):
        path.write_bytes(damaged)
        with pytest.raises(LanguageModelError, match="train it again") as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_non_finite_values_are_refused(tmp_path):
    model = random_model(0)
    model.word_bias.assign(np.full(5, np.nan))
    save(model, tmp_path / "recurrent.safetensors")
    with pytest.raises(LanguageModelError, match="word_bias has non-finite values"):
        load(tmp_path / "recurrent.safetensors")


def test_padding_is_not_learnt_from():
    vocabulary, sentences, frequencies = read([["the cat sleeps"]], 6)
    model = NoiseContrastiveLM(vocabulary, 8, frequencies)
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
    np.testing.assert_array_equal(*(one.log_probs(["the", "cat"]) for one in (model, again)))
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
