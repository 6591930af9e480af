"""From manifest to transcript to word error rate, in Cyrillic letters and in BPE subwords."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from asr import Recognizer
from asr.bundle import Bundle
from tests.voice import SAMPLE_RATE, speak
from training.commands import main

EPOCHS = 40
UTTERANCES, HELD_OUT = 48, 8
TONE_SPACING_HZ = 500
LANGUAGES = {
    "Cyrillic letters": ("абёйж", {"language": "ru"}),
    "BPE subwords": ("abcde", {"language": "en", "units": "bpe", "size": 60}),
}


def sentences(letters: str) -> list[str]:
    random = np.random.default_rng(0)
    words = ["".join(random.choice(list(letters), 2)) for _ in range(8)]
    return [" ".join(random.choice(words, 1 + i % 3)) for i in range(UTTERANCES)]


@pytest.fixture(scope="module", params=LANGUAGES)
def trained(request, tmp_path_factory) -> tuple[Path, list[dict], dict]:
    """Of a model that was trained on texts as people write them: folder, dev set, tokenizer's options."""
    letters, options = LANGUAGES[request.param]
    folder = tmp_path_factory.mktemp("language")
    tones = {character: 4600 + TONE_SPACING_HZ * i for i, character in enumerate(" " + letters)}
    rows = []
    for i, text in enumerate(sentences(letters)):
        samples = np.pad(speak(text, tones, level=0.1), SAMPLE_RATE // 2)
        samples += np.random.default_rng(i).normal(0, 1e-4, len(samples))
        soundfile.write(folder / f"{i}.wav", samples, SAMPLE_RATE)
        duration = len(samples) / SAMPLE_RATE
        rows.append({"audio_filepath": f"{i}.wav", "text": text.capitalize() + "!", "duration": duration})
    lost = {**rows[0], "text": "5 日本", "offset": 0.1, "duration": 1.0}
    for name, part in (("train", [*rows[HELD_OUT:], lost]), ("dev", rows[:HELD_OUT])):
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in part]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    config = {
        "output": str(folder / "run"),
        "epochs": EPOCHS,
        "tokenizer": options,
        "model": {
            "features": {"mels": 40},
            "encoders": [{"type": "recurrent", "cell": "gru", "width": 24, "layers": 1, "stack": 4}],
        },
        "data": {
            "train": [str(folder / "train.jsonl")],
            "dev": [str(folder / "dev.jsonl")],
            "batch_seconds": 8,
        },
        "optimizer": {"learning_rate": 0.02},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    assert main(["train", str(folder / "config.yaml")]) == 0
    return folder, rows[:HELD_OUT], options


def test_manifest_to_transcript_to_word_error_rate(trained, capsys):
    folder, rows, options = trained
    bundle = Bundle.load(folder / "run" / "bundle")
    assert bundle.tokenizer.language == options["language"]
    assert (bundle.tokenizer.bpe is not None) == (options.get("units") == "bpe")

    recognizer = Recognizer.load(str(bundle.directory))
    found = [recognizer.transcribe(folder / row["audio_filepath"]).text for row in rows]
    expected = [row["text"].lower().rstrip("!") for row in rows]
    right = sum(one == other for one, other in zip(found, expected, strict=True))
    assert right >= HELD_OUT // 2, list(zip(found, expected, strict=True))

    arguments = ["--model", str(bundle.directory), "--decoder", "greedy", "--normalizer", "letters"]
    report = folder / "report"
    assert main(["evaluate", str(folder / "dev.jsonl"), *arguments, "--output", str(report)]) == 0
    [score] = json.loads((report / "results.json").read_text(encoding="utf-8"))["scores"]
    assert score["counts"]["words"] == sum(len(text.split()) for text in expected)
    last = json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert score["wer"]["value"] < 0.4
    assert last["wer_dev"] < 40


def test_every_word_of_a_transcript_has_its_time(trained):
    folder, rows, _ = trained
    transcript = Recognizer.load(str(folder / "run" / "bundle")).transcribe(
        folder / rows[2]["audio_filepath"]
    )
    assert " ".join(word.text for word in transcript.words) == transcript.text
    assert all(0.3 < word.start < word.end < rows[2]["duration"] for word in transcript.words)
