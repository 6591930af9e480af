"""training/benchmarks/sequence_models.py: gradients by finite differences, the whole command, the page."""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from asr.model import SpeechModel
from tests.training.toy import TOKENIZER, VOCABULARY, spell, write_manifest
from training.benchmarks import sequence_models, sequence_report, word_models
from training.benchmarks.attention import Writer, gaze
from training.benchmarks.gradients import InputGradient, reach
from training.benchmarks.sequence_models import (
    ATTENTION,
    FREE,
    models,
    recurrent,
    rounded,
    run_config,
    trained,
    untrained,
)
from training.benchmarks.sequence_report import as_json, filled
from training.commands import main as hark
from training.config import load_config

DOCS = Path(__file__).parents[2] / "docs"
TEXTS = ["hello and good evening to you all", "what fine weather it is today then", "so long my friends"]


def network_of(*encoders: dict, decoder: dict | None = None) -> SpeechModel:
    keras.utils.set_random_seed(3)
    return SpeechModel(TOKENIZER.size, encoders, {"mels": 6, "scale": "natural"}, decoder).build_for()


@pytest.mark.parametrize("cell", ["simple", "lstm", "gru"])
def test_input_gradients_are_those_of_finite_differences(cell):
    network = network_of({"type": "recurrent", "cell": cell, "width": 5, "layers": 1, "stack": 2})
    random = np.random.default_rng(0)
    features = random.standard_normal((12, 6)).astype("float32")
    places, units = np.int32([5, 3]), np.int32([2, 7])
    found = InputGradient(network, (2, 12, 6)).of(features, 12, places, units)

    def loss(x: np.ndarray, row: int) -> float:
        logits = network.heads(x[None].astype("float32"), np.int32([12]))["logits"][0, places[row]]
        return -float(ops.log_softmax(logits)[units[row]])

    for row, frame, mel in [(0, 11, 2), (0, 4, 5), (1, 7, 0), (1, 1, 3)]:
        shift = np.zeros_like(features)
        shift[frame, mel] = 1e-2
        slope = (loss(features + shift, row) - loss(features - shift, row)) / 2e-2
        assert found[row, frame, mel] == pytest.approx(slope, abs=2e-4)
        assert abs(slope) > 1e-5


def test_gradients_of_one_direction_come_from_the_past_only():
    network = network_of({"type": "recurrent", "width": 5, "layers": 1, "bidirectional": False})
    features = np.random.default_rng(0).standard_normal((9, 6)).astype("float32")
    found = InputGradient(network, (1, 9, 6)).of(features, 9, np.int32([4]), np.int32([1]))
    norms = np.linalg.norm(found[0], axis=1)
    assert (norms[:5] > 0).all() and not norms[5:].any()


def test_reach_falls_as_the_recurrent_weight_says():
    # One linear-like cell: h(t) = tanh(w h(t-1) + x(t)), with h near 0, so that each step multiplies by w.
    network = network_of(
        {"type": "recurrent", "cell": "simple", "width": 1, "layers": 1, "bidirectional": False}
    )
    cell = network.encoders[0].forwards[0].cell
    cell.kernel.assign(1e-4 * ops.ones(cell.kernel.shape))
    cell.recurrent_kernel.assign([[0.8]])
    sound = spell("hello and so long")
    norms = np.array(
        reach(network, TOKENIZER, [(sound, "hello and so long"), (sound[:300], "too short")], 20)
    )
    np.testing.assert_allclose(norms[1:] / norms[:-1], 0.8, rtol=1e-3)


def test_reach_needs_long_utterances():
    network = network_of({"type": "recurrent", "width": 2, "layers": 1})
    with pytest.raises(ValueError, match="no utterance has more than 5000 steps"):
        reach(network, TOKENIZER, [(spell("hello"), "hello")], 5000)


def decoding_network() -> SpeechModel:
    decoder = {"type": "recurrent", "width": 4, "vocabulary": VOCABULARY.size, "positions": 60}
    return network_of({"type": "recurrent", "width": 2, "layers": 1, "stack": 4}, decoder=decoder)


def test_the_decoder_writes_the_same_alone_and_in_a_batch():
    network = decoding_network()
    network.decoder.tokens.embeddings.assign(3 * ops.array(network.decoder.tokens.embeddings))
    encoded = np.random.default_rng(1).standard_normal((3, 30, 4)).astype("float32")
    lengths = np.int32([30, 11, 24])
    writer = Writer(network.decoder, VOCABULARY)
    together = writer.write(encoded, lengths)
    alone = [writer.write(encoded[i : i + 1, :n], np.int32([n]))[0] for i, n in enumerate(lengths)]
    assert together == alone
    assert len(set(together)) > 1


def test_gaze_is_the_attention_that_predicts_each_token():
    network, sound = decoding_network(), spell("hello")
    looked = gaze(network, VOCABULARY, sound, "hello")
    assert looked.tokens[-1] == "end" and "".join(looked.tokens[:-1]) == "hello"
    assert looked.weights.shape[0] == len(looked.tokens)
    np.testing.assert_allclose(looked.weights.sum(axis=1), 1, rtol=1e-5)
    assert looked.seconds == pytest.approx(len(sound) / 16000, abs=0.04)
    # By hand, of the token after the prompt and the first one.
    x, length = network.read(sound[None], np.int32([len(sound)]))
    encoded = network.heads(x, length)["encoded"]
    decoder, state = network.decoder, [ops.zeros((1, 4)), ops.zeros((1, 4))]
    context, keys = None, decoder.key(encoded)
    valid = np.ones((1, encoded.shape[1]), bool)
    context = ops.sum(decoder.weights_of(state[0], keys, valid)[:, :, None] * encoded, axis=1)
    for place, token in enumerate(VOCABULARY.around("hello")[:3]):
        embedded = decoder.tokens(np.int32([token]))
        hidden, state = decoder.cell(ops.concatenate([embedded, context], axis=-1), state)
        weights = decoder.weights_of(hidden, keys, valid)
        context = ops.sum(weights[:, :, None] * encoded, axis=1)
        if place >= len(VOCABULARY.prompt) - 1:
            row = looked.weights[place - len(VOCABULARY.prompt) + 1]
            np.testing.assert_allclose(weights[0], row, rtol=1e-4)


def test_all_models_have_a_million_parameters(tmp_path):
    manifest = write_manifest(tmp_path / "train.jsonl", [(text, text) for text in TEXTS])
    for name, told in models().items():
        ours = [f"output={json.dumps(str(tmp_path))}", f"data.train=[{json.dumps(str(manifest))}]"]
        config = load_config(sequence_models.CONFIG, [*told, *ours])
        network = untrained(config)[0]
        count = sum(np.prod(variable.shape) for variable in network.trainable_variables)
        if network.decoder is not None:  # the toy texts have fewer tokens than those of AN4
            assert network.decoder.vocabulary < 320
            count += (320 - network.decoder.vocabulary) * network.decoder.width
        assert 0.98e6 < count < 1.02e6, name


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Iterator[tuple[Path, list[str], dict]]:
    """The command with tiny models on toy sounds, of which one diverges: folder, arguments, numbers."""
    folder = tmp_path_factory.mktemp("benchmark")
    for name in ("train", "test"):
        path = write_manifest(folder / f"{name}.jsonl", [(text, text) for text in TEXTS])
        rows = [{**json.loads(line), "speaker": "toy"} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [" ".join(["the cat sleeps", "a dog barks", "the bird sings"][i % 3 :]) for i in range(400)]
    (folder / "books.txt").write_text("\n".join(lines))
    (folder / "docs" / "results").mkdir(parents=True)
    page = DOCS / "sequence-models.md"
    (folder / "docs" / page.name).write_text(page.read_text())
    tiny = recurrent("simple", 4, False)
    decoder = {"type": "recurrent", "vocabulary": 262, "width": 4, "positions": 64}
    chosen = {
        "LSTM": [
            f"model.encoders={json.dumps([recurrent('lstm', 2, False)])}",
            "optimizer.learning_rate=1e30",
        ],
        "simple RNN": [f"model.encoders={json.dumps([tiny])}"],
        ATTENTION: [
            f"model.encoders={json.dumps([recurrent('lstm', 2, True)])}",
            f"model.decoder={json.dumps(decoder)}",
            "objectives.attention.weight=0.5",
        ],
        "simple RNN" + FREE: [f"model.encoders={json.dumps([tiny])}", "optimizer.clip_norm=1e9"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequence_models, "models", lambda: chosen)
        patch.setattr(sequence_models, "REACH_SECONDS", 1.0)
        patch.setattr(sequence_report, "TABLED_SECONDS", (0.2, 1.0))
        patch.setattr(word_models, "WIDTH", 8)
        patch.setattr(word_models, "EPOCHS", 2)
        arguments = [str(folder / name) for name in ("train.jsonl", "test.jsonl", "books.txt")]
        arguments += ["--output", str(folder / "runs"), "--docs", str(folder / "docs"), "--epochs", "2"]
        assert hark(["benchmark", "sequence-models", *arguments]) == 0
        yield folder, arguments, json.loads((folder / "runs" / "results.json").read_text())


def test_the_command_measures_every_model(finished):
    *_, results = finished
    names = [model["name"] for model in results["models"]]
    assert names == ["LSTM", "simple RNN", ATTENTION, "simple RNN" + FREE]
    plain, attentive, free = results["models"][1:]
    for model in (plain, attentive, free):
        assert len(model["epochs"]) == 2 and model["steps"] == 4  # two batches, by length
        assert model["step_milliseconds"] > 0 and model["parameters"] > 100
        low, median, high = model["gradient_norms"][0]
        assert 0 < low <= median <= high == model["largest_norm"]
    assert plain["losses"][0][2] == free["losses"][0][2]  # the first step, before anything was clipped
    assert plain["above_limit"] > 0 and plain["losses"] != free["losses"]
    assert [len(plain["reach"][when]) for when in ("start", "after")] == [26, 26]
    assert "start" not in free["reach"] and "reach" not in attentive
    systems = [score["system"] for score in results["scores"]]
    assert systems == ["simple RNN", ATTENTION, f"{ATTENTION}: decoder", "simple RNN" + FREE]
    assert {score["counts"]["words"] for score in results["scores"]} == {sum(len(t.split()) for t in TEXTS)}
    assert results["header"]["command"].startswith("hark benchmark sequence-models")


def test_a_model_that_diverges_does_not_stop_the_others(finished):
    folder, _, results = finished
    model = results["models"][0]
    assert model["diverged"] and model["steps"] < 4 and "reach" not in model
    assert "resume with a lower learning rate" in (folder / "runs" / "lstm" / "diverged.txt").read_text()
    assert re.search(
        r"^\| LSTM \|.*\| did not converge \|", (folder / "runs" / "tables.md").read_text(), re.M
    )


def test_nothing_is_trained_twice(finished, monkeypatch):
    folder, arguments, results = finished

    def train(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(sequence_models, "train", train)
    options = argparse.Namespace(train=arguments[0], test=arguments[1], output=folder / "runs", epochs=2)
    for model in results["models"]:
        found = trained(run_config(options, model["name"], model["overrides"]))
        assert rounded(found).items() <= model.items()


def test_another_configuration_is_refused(finished, capsys):
    _, arguments, _ = finished
    assert hark(["benchmark", "sequence-models", *arguments[:-1], "3"]) == 2
    assert "lstm: holds a run of another configuration" in capsys.readouterr().err


def test_language_models_learn_the_grammar(finished):
    *_, results = finished
    words = results["language_models"]
    by_name = {model["name"]: model for model in words["models"]}
    assert words["vocabulary"] == 8 and words["held_out_unknown"] == 0
    # Only where a sentence ends after a verb is open.
    assert 1 < by_name["3-gram"]["perplexity"] < 2
    for name in ("simple RNN", "LSTM"):
        assert by_name[name]["epochs"][-1] == pytest.approx(by_name[name]["perplexity"], rel=1e-4)
        low, high = by_name[name]["interval"]
        assert low < by_name[name]["perplexity"] < high
    mixed = by_name["5-gram and LSTM"]["perplexity"]
    assert by_name["5-gram"]["perplexity"] < mixed < by_name["LSTM"]["perplexity"]


def test_the_page_gets_tables_and_figures(finished):
    folder, _, results = finished
    page = (folder / "docs" / "sequence-models.md").read_text()
    for model in results["models"]:
        assert f"| {model['name']} |" in page
    figures = re.findall(r"\]\((sequence-models-\w+\.svg)\)", page)
    assert len(figures) == len(set(figures)) == 6
    for name in figures:
        svg = (folder / "docs" / name).read_bytes()
        assert svg.startswith(b"<svg") and len(svg) < 100_000
        assert svg == (folder / "runs" / name).read_bytes()
    assert filled(page, results) == page
    assert as_json(results) == (folder / "runs" / "results.json").read_text()


def test_the_page_needs_a_place_for_each_table(finished):
    *_, results = finished
    with pytest.raises(ValueError, match="has no place for a table: <!-- reach -->"):
        filled("<!-- run --><!-- /run --> <!-- models --><!-- /models -->", results)


def test_a_text_that_is_too_short_is_refused(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("too short\n")
    with pytest.raises(
        ValueError, match=r"short\.txt: too short; no word of the training part occurs 10 times"
    ):
        word_models.read_words(str(path))
