"""training/finetune.py on tiny models: a whole run, what it goes on with after a stop, what it refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile

from asr import Recognizer
from asr.bundle import Bundle, save_bundle
from asr.decoding import Hypothesis, WrittenWord
from asr.model import SpeechModel
from tests.training.toy import TOKENIZER, VOCABULARY
from tests.voice import SAMPLE_RATE, speak
from training import finetune
from training.callbacks import BEST, CHECKPOINT
from training.commands import main
from training.config import RunConfig
from training.export import export
from training.finetune import divide, spelt, verdict
from training.manifest import Entry, read_manifest
from training.recipes import RECIPES, recipe_for, run_config
from training.train import train

LETTERS = "abcde"
TONES_HZ = {character: 4600 + 500 * i for i, character in enumerate(" " + LETTERS)}
WORDS = ["".join(np.random.default_rng(i).choice(list(LETTERS), 2)) for i in range(8)]
ENCODERS = [{"type": "recurrent", "cell": "gru", "width": 24, "layers": 1, "stack": 4}]
FEATURES = {"mels": 40}
UTTERANCES, SPEAKERS = 36, ("ann", "ben", "eve")
SWAPPED = (4, 11)


def record(folder: Path, text: str, name: str, **fields) -> dict:
    """A row of a manifest, and its recording."""
    random = np.random.default_rng(len(name))
    samples = np.pad(speak(text, TONES_HZ, level=0.1), SAMPLE_RATE // 4)
    samples += random.normal(0, 1e-4, len(samples)).astype("float32")
    soundfile.write(folder / f"{name}.wav", samples, SAMPLE_RATE)
    return {"audio_filepath": f"{name}.wav", "text": text, "duration": len(samples) / SAMPLE_RATE, **fields}


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> tuple[Path, list[dict]]:
    """Half as much again as is needed, of three speakers."""
    folder = tmp_path_factory.mktemp("recordings")
    random = np.random.default_rng(0)
    found = []
    for i in range(UTTERANCES):
        text = " ".join(random.choice(WORDS, 5 + i % 3))
        found.append(record(folder, text, f"{i}", speaker=SPEAKERS[i % len(SPEAKERS)]))
    return folder, found


@pytest.fixture(scope="module")
def start(rows) -> Path:
    """A CTC model that knows the letters."""
    folder, recorded = rows
    config = RunConfig(
        output=folder / "start",
        epochs=30,
        model={"features": FEATURES, "encoders": ENCODERS},
        data={"train": [write(folder / "all.jsonl", recorded)], "batch_seconds": 6},
        optimizer={"learning_rate": 0.02},
    )
    bundle = Bundle.load(train(config))
    export(bundle)
    return bundle.directory


@pytest.fixture(autouse=True)
def shorter(monkeypatch):
    """Fewer averages to recognise with, and a recipe of few epochs."""
    monkeypatch.setattr(finetune, "SHARES", (0.5, 1.0))
    short = tuple(recipe._replace(epochs=2) for recipe in RECIPES)
    monkeypatch.setattr("training.recipes.RECIPES", short)


@pytest.fixture(scope="module")
def manifest(rows) -> Path:
    """With two texts swapped, a text of digits, a broken file and one of silence."""
    folder, recorded = rows
    wrong = [dict(row) for row in recorded]
    first, second = SWAPPED
    wrong[first]["text"], wrong[second]["text"] = recorded[second]["text"], recorded[first]["text"]
    wrong[20]["text"] = "4 8"
    (folder / "broken.wav").write_bytes(b"RIFFxxxxWAVE" + bytes(200))
    soundfile.write(folder / "silence.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    wrong += [
        {"audio_filepath": f"{name}.wav", "text": "ab", "duration": 1.0, "speaker": "ann"}
        for name in ("broken", "silence")
    ]
    return write(folder / "mine.jsonl", wrong)


def call(manifest: Path, start: Path, output: Path) -> int:
    return main(["finetune", str(manifest), "--from", str(start), "--output", str(output)])


def test_a_whole_run_and_what_it_goes_on_with_after_a_stop(manifest, start, tmp_path, monkeypatch, capsys):
    output = tmp_path / "mine"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "mix", stop)
        assert call(manifest, start, output) == 130
    trained = (output / "run" / CHECKPOINT).read_bytes()
    first = capsys.readouterr()
    for found in (first, None):
        if found is None:  # the second time
            assert call(manifest, start, output) == 1  # since something was left out
            found = capsys.readouterr()
        left_out = [line for line in found.err.splitlines() if "left out" in line]
        assert len(left_out) == 3
        for name, reason in (("20", "has digits"), ("broken.wav", ""), ("silence", "there is no voice")):
            assert any(name in line and reason in line for line in left_out)
        assert "other speakers than those trained on" in found.out
        table = found.out.partition("utterance ")[2].partition("\n\n")[0].splitlines()[1:3]
        assert {line.split()[0] for line in table} == set(map(str, SWAPPED))
        assert all("the text does not fit: " in line for line in table)
    assert (output / "run" / CHECKPOINT).read_bytes() == trained
    epochs = [json.loads(line)["epoch"] for line in (output / "run/metrics.jsonl").read_text().splitlines()]
    assert epochs == [1, 2]

    speakers = [
        {entry.speaker for entry in read_manifest(output / f"{name}.jsonl")} for name in ("train", "dev")
    ]
    assert set.union(*speakers) == set(SPEAKERS) and not set.intersection(*speakers)
    marked = {entry.id for entry in read_manifest(output / "suspicious.jsonl")}
    assert {Path(id).name for id in marked} >= set(map(str, SWAPPED))
    results = json.loads((output / "results.json").read_text())
    assert {row["system"] for row in results["scores"]} == {"before", "after"}
    assert results["comparisons"] and results["finetuning"]["share"] in (0.5, 1.0)
    assert len(results["finetuning"]["check"]["left_out"]) == 3
    for page in ("report.html", "report.md"):
        text = (output / page).read_text()
        assert f"hark transcribe --model {output / 'bundle'}" in text
        assert results["finetuning"]["verdict"] in text and "does not fit" in text and "has digits" in text
    assert results["finetuning"]["verdict"] in found.out
    assert not (output / "shares").exists()

    wer = {row["system"]: row["wer"]["value"] for row in results["scores"] if row["normalizer"] == "basic"}
    assert wer["after"] < wer["before"] + 0.1 < 0.7  # two epochs at a low rate change little
    [entry, *_] = read_manifest(output / "dev.jsonl")
    assert set(Recognizer.load(str(output / "bundle")).transcribe(entry.audio).text) <= set(TONES_HZ)

    rows = [json.loads(line) for line in manifest.read_text().splitlines()][1:]
    assert call(write(manifest.with_name("other.jsonl"), rows), start, output) == 2
    assert "holds a run on other recordings or from another model" in capsys.readouterr().err
    assert (output / "run" / CHECKPOINT).read_bytes() == trained


def test_a_joint_model_of_one_speaker(rows, tmp_path, capsys):
    folder, recorded = rows
    keras.utils.set_random_seed(0)
    encoders = [{"type": "transformer", "width": 12, "layers": 1, "heads": 2, "subsampling": 2}, *ENCODERS]
    decoder = {"type": "transformer", "encoders": 1, "width": 12, "layers": 1, "heads": 2, "positions": 64}
    network = SpeechModel(TOKENIZER.size, encoders, FEATURES, {**decoder, "vocabulary": VOCABULARY.size})
    bundle = Bundle.load(save_bundle(tmp_path / "start", network.build_for(), TOKENIZER, VOCABULARY))
    export(bundle)
    mine = [{**row, "speaker": "ann"} for row in recorded]
    mine[0]["text_cased"] = mine[0]["text"].upper()
    output = tmp_path / "mine"
    assert call(write(folder / "one.jsonl", mine), bundle.directory, output) == 0
    assert "other recordings than those trained on, but of the same speakers" in capsys.readouterr().out
    entries = [entry for name in ("train", "dev") for entry in read_manifest(output / f"{name}.jsonl")]
    assert len(entries) == UTTERANCES and all(entry.written for entry in entries)
    assert sum(entry.written.isupper() for entry in entries) == 1  # what was given stays
    epochs = [json.loads(line) for line in (output / "run/metrics.jsonl").read_text().splitlines()]
    best = min(epochs, key=lambda row: row["nats_dev"])["epoch"]
    assert json.loads((output / "results.json").read_text())["finetuning"]["epoch"] == best
    assert Bundle.load(output / "bundle").vocabulary == VOCABULARY
    assert (output / "run" / BEST).exists() and (output / "bundle" / "decoder.onnx").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:5], " s of speech can be used; give 60 s or more"),
        (lambda rows: [{**row, "text": "привет"} for row in rows], "0 s of speech can be used"),
        (
            lambda rows: [{**row, "audio_filepath": "none.wav"} for row in rows[:1]],
            "0 s of speech can be used",
        ),
        (
            lambda rows: [*rows, {**rows[0], "audio_filepath": "./0.wav"}],
            "0.wav: is 2 times in the manifests",
        ),
        (lambda rows: [], "mine.jsonl: holds no utterance"),
    ],
)
def test_too_little_to_train_on_is_one_line(rows, start, tmp_path, capsys, change, message):
    folder = shutil.copytree(rows[0], tmp_path / "recordings", ignore=shutil.ignore_patterns("start"))
    manifest = write(folder / "mine.jsonl", change(rows[1]))
    assert call(manifest, start, tmp_path / "out") == 2
    *others, last = capsys.readouterr().err.splitlines()
    assert message in last and last.startswith("error: ")
    assert all("left out" in line for line in others)


def test_silence_alone_is_no_speech(start, tmp_path, capsys):
    soundfile.write(tmp_path / "silence.wav", np.zeros(80 * SAMPLE_RATE), SAMPLE_RATE)
    row = {"audio_filepath": "silence.wav", "text": "ab", "duration": 16}
    manifest = write(tmp_path / "mine.jsonl", [row | {"offset": 16 * i} for i in range(5)])
    assert call(manifest, start, tmp_path / "out") == 2
    *others, last = capsys.readouterr().err.splitlines()
    assert len(others) == 5 and all("left out, there is no voice" in line for line in others)
    assert "0 s of speech can be used" in last


def test_manifests_are_not_overwritten_by_those_that_are_divided(rows, start, capsys):
    folder, recorded = rows
    manifest = write(folder / "train.jsonl", recorded)
    before = manifest.read_bytes()
    assert call(manifest, start, folder) == 2
    assert "choose another" in capsys.readouterr().err
    assert manifest.read_bytes() == before


def test_a_model_without_a_ctc_head_is_refused(rows, tmp_path, capsys):
    decoder = {"type": "transformer", "width": 24, "layers": 1, "heads": 2, "vocabulary": VOCABULARY.size}
    whisper = [{"type": "recurrent", "width": 24, "layers": 1, "bidirectional": False}]
    network = SpeechModel(None, whisper, FEATURES, decoder).build_for()
    save_bundle(tmp_path / "whisper", network, TOKENIZER, VOCABULARY)
    assert call(write(rows[0] / "all.jsonl", rows[1]), tmp_path / "whisper", tmp_path / "out") == 2
    assert "whisper has no CTC head" in capsys.readouterr().err


def utterances(speakers: dict[str, float], seconds: float = 5.0, **options) -> list[Entry]:
    """Entries of each speaker, of so many seconds in all."""
    return [
        Entry(f"{speaker}{i}", Path(f"/{speaker}{i}.wav"), "ab", seconds, 0.0, speaker)
        for speaker, total in speakers.items()
        for i in range(round(total / seconds))
    ]


@pytest.mark.parametrize(
    ("speakers", "unit"),
    [
        ({"ann": 60, "ben": 60}, "speaker"),
        ({"ann": 60, "ben": 40, "eve": 50}, "speaker"),
        ({"ann": 250, "ben": 50}, "speaker"),
        ({"ann": 300}, "recording"),
        ({"ann": 300, "ben": 5}, "recording"),  # too little to measure on
        ({"ann": 200, "": 100}, "recording"),
    ],
)
def test_whole_speakers_are_held_out_where_there_are_enough(speakers, unit):
    entries = utterances(speakers)
    training, dev, found = divide(entries, 0.2)
    assert found == unit
    assert sorted(one.id for one in [*training, *dev]) == sorted(one.id for one in entries)
    assert 0.1 <= len(dev) / len(entries) <= 0.5
    if unit == "speaker":
        assert not {one.speaker for one in training} & {one.speaker for one in dev}


def test_one_recording_is_divided_by_utterances_and_silence_is_for_training():
    entries = [
        replace(one, audio=Path("/talk.wav"), offset_seconds=5.0 * i)
        for i, one in enumerate(utterances({"": 100}))
    ]
    entries[0] = replace(entries[0], text="")
    training, dev, unit = divide(entries, 0.2)
    assert unit == "utterance" and entries[0] in training and len(dev) == 4
    with pytest.raises(ValueError, match="too few utterances"):
        divide(entries[:2], 0.2)


def written(text: str) -> Hypothesis:
    return Hypothesis((), (), 0.0, text, tuple(WrittenWord(word, 1, 0.0) for word in text.split()))


@pytest.mark.parametrize(
    ("text", "recognised", "expected"),
    [
        ("hold on i'm coming", "Hold on, I'm coming!", "Hold on, I'm coming!"),
        ("the americans follow the game", "The Americans, fellow a game.", "The Americans, follow the game."),
        ("call ann quillan", "Call Anne Quill.", "Call ann quillan."),
        ("nineteen eighty four was long", "1984 was long?", "Nineteen eighty four was long?"),
        ("hold on", "", "Hold on"),
    ],
)
def test_a_text_takes_its_spelling_from_where_the_decoder_heard_the_same(text, recognised, expected):
    assert spelt(text, written(recognised), TOKENIZER) == expected


def test_the_verdict_says_what_may_be_chance():
    def said(difference: float, *interval: float | None) -> str:
        comparison = {"difference": difference, "interval": interval, "mapsswe": {"p": 0.04}}
        return verdict(comparison, "english")

    assert (
        said(0.031, 0.004, 0.056)
        == "The new model is better by 3.10 points (95 % 0.40–5.60, MAPSSWE p 0.0400)."
    )
    assert "may be chance" in said(0.031, -0.01, 0.056)
    assert "may be chance" in said(0.031, None, None)
    assert "worse by 2.00 points (95 % −1.00 to 5.00," in said(-0.02, -0.05, 0.01)
    assert said(0.0, -0.05, 0.01).startswith("No gain: as many words are wrong as before")


@pytest.mark.parametrize("hours", [0.05, 0.5, 2, 50])
def test_english_has_a_recipe_for_all_hours(hours, tmp_path):
    english = Bundle.load("english")
    config = run_config(english, recipe_for(hours), tmp_path)
    assert config.frozen_encoders == (1 if hours < 0.75 else 0)
    assert config.optimizer.multipliers.keys() == {"encoder_0", "encoder_1", "decoder"}
    assert config.model.decoder["width"] == 384 and "vocabulary" not in config.model.decoder
    assert config.objectives.attention.weight + config.objectives.ctc.weight == 1
    rates = [recipe.learning_rate * config.optimizer.multipliers["decoder"] for recipe in RECIPES]
    assert max(rates) < 3.5e-5  # at which the decoder learns by heart: training/results/joint.md
