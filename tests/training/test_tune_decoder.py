"""Tuning on log-probs made here: the search finds a known valley, and a bundle gets settings that help."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from asr.bundle import MODELS, Bundle
from asr.decoding.beam import BeamDecoder
from asr.decoding.greedy import greedy_decode
from asr.decoding.ngram import LanguageModelError
from asr.tokenizer import Tokenizer
from training.commands import main
from training.manifest import Entry, write_manifest
from training.ngram_estimation import estimate
from training.tune_decoder import (
    DevUtterance,
    install,
    narrowest,
    readable,
    spelling,
    transcribe,
    tune,
    tune_bundle,
    word_errors,
)

UNITS = Tokenizer.characters()
TEXTS = ["the cat sat on the mat", "the dog ran", "the cat and the dog sat on the log", "a dog and a cat"]


def test_the_search_walks_to_the_bottom_of_a_valley():
    bottom = {"alpha": 1.15, "beta": -0.35, "unknown_penalty": 2.5}

    def errors_of(weights):
        return round(1000 * sum((weights[name] - bottom[name]) ** 2 for name in bottom))

    found = tune(errors_of)
    assert found == pytest.approx(bottom, abs=0.1)


def test_weights_never_fall_below_zero():
    assert tune(lambda weights: round(1000 * (weights["alpha"] + weights["unknown_penalty"])))["alpha"] >= 0


def test_a_wider_beam_must_pay():
    assert narrowest({32: 1200, 64: 1006, 128: 1002, 256: 1000, 512: 998}.__getitem__) == 128


def utterances(text, generator):
    """Log-probs of a text with a letter in three blurred: some other is as likely."""
    ids = UNITS.encode(text)
    rows = []
    for before, id in zip([0, *ids], ids, strict=False):
        row = np.full(UNITS.size, 0.001)
        if before == id:
            rows.append(np.where(np.arange(UNITS.size) == 0, 0.97, 0.001))
        row[id] = 0.5
        row[generator.integers(1, UNITS.size) if generator.random() < 1 / 3 else id] += 0.52
        rows.append(row)
    log_probs = np.log(np.array(rows) / np.sum(rows, axis=1, keepdims=True)).astype(np.float32)
    return DevUtterance(text, [log_probs[: len(rows) // 2], log_probs[len(rows) // 2 :]])


def test_a_bundle_gets_settings_that_beat_greedy(tmp_path, capsys):
    generator = np.random.default_rng(5)
    (tmp_path / "counts").mkdir()
    (tmp_path / "lm").mkdir()
    model = estimate([TEXTS * 3], tmp_path / "counts", order=2).model
    model.save(tmp_path / "lm" / "ngram.bin")
    bundle = Bundle(tmp_path, {"step_seconds": 0.04}, UNITS)
    sets = {"near": [utterances(text, generator) for text in TEXTS], "far": [utterances(TEXTS[0], generator)]}

    settings = tune_bundle(bundle, sets)
    assert json.loads((tmp_path / "lm" / "config.json").read_text()) == settings
    decoder = BeamDecoder.from_bundle(bundle)
    for name, spoken in sets.items():
        words = sum(len(one.text.split()) for one in spoken)
        greedy = transcribe(lambda log_probs: greedy_decode(log_probs, UNITS).text, spoken)
        beam = transcribe(lambda log_probs: decoder.decode(log_probs)[0].text, spoken)
        wer = settings["wer_percent"][name]
        assert wer["greedy"] == round(100 * word_errors(spoken, greedy) / words, 2)
        assert wer["beam"] == round(100 * word_errors(spoken, beam) / words, 2)
        assert wer["beam"] < 0.7 * wer["greedy"]


def test_another_language_model_replaces_the_bundles(tmp_path):
    bundle = Bundle(tmp_path / "bundle", {"step_seconds": 0.04}, UNITS)
    bundle.directory.mkdir()
    for name, texts in (("first", ["a b"]), ("second", ["c"])):
        (tmp_path / name).mkdir()
        estimate([texts], tmp_path / name, order=1).model.save(tmp_path / name / "ngram.bin")
        install(tmp_path / name, bundle)
        copy = bundle.directory / "lm/ngram.bin"
        assert copy.read_bytes() == (tmp_path / name / "ngram.bin").read_bytes()


def test_words_that_the_model_cannot_write_are_counted_or_refused(tmp_path):
    (tmp_path / "counts").mkdir()
    path = tmp_path / "ngram.bin"
    estimate([["it's me", "MRS O'Brien", "Łódź"]], tmp_path / "counts", order=1).model.save(path)
    assert "writes only 2 of its 5 words" in spelling(path, UNITS)
    with pytest.raises(LanguageModelError, match=r"ngram\.bin: the model writes 0 of its 5 words"):
        spelling(path, Tokenizer.characters("ru", "абв"))


def test_one_broken_recording_is_named_and_the_others_go_on(tmp_path, caplog):
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    (tmp_path / "broken.wav").write_bytes(b"RIFFxxxxWAVE")
    texts = {"a": "hold on", "broken": "x", "none": "y", "digits": "room 101"}
    entries = [Entry(name, tmp_path / f"{name}.wav", text, 1.0) for name, text in texts.items()]
    assert [entry.id for entry, _ in readable(UNITS, entries)] == ["a"]
    assert len(caplog.records) == 3
    assert all(f"{name}.wav" in caplog.text for name in ("broken", "none", "digits"))


@pytest.fixture
def english(tmp_path):
    """A copy of the shipped model, whose files can be written."""
    return shutil.copytree(MODELS / "english", tmp_path / "bundle")


def test_manifests_without_words_change_nothing(tmp_path, english, capsys):
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    write_manifest(tmp_path / "silent.jsonl", [Entry("a", tmp_path / "a.wav", "", 1.0)])
    before = {path: path.stat().st_mtime_ns for path in english.rglob("*")}
    assert main(["tune-decoder", str(tmp_path / "silent.jsonl"), "--model", str(english)]) == 2
    assert "there are no words to tune on" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in english.rglob("*")} == before


def test_wrong_calls_are_one_line(tmp_path, capsys):
    assert main(["tune-decoder", str(tmp_path / "dev.jsonl"), "--model", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
