"""The README's first recipe on real speech: from recordings to text, with the result that README states."""

import json
import re
from pathlib import Path

import pytest
import soundfile

from training.commands import main

REPOSITORY = Path(__file__).parents[2]
STATED = re.compile(r"\[(\d+) / (\d+)\]")


@pytest.fixture(scope="module")
def corpus(shared_data, tmp_path_factory) -> Path:
    """The Free Spoken Digit Dataset as it is distributed."""
    folder = tmp_path_factory.mktemp("corpus") / "recordings"
    folder.mkdir()
    for path in sorted((shared_data / "audio" / "fsdd").rglob("*.opus")):
        samples, rate = soundfile.read(path)
        soundfile.write(folder / f"{path.stem}.wav", samples, rate)
    return folder.parent


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory) -> Path:
    """A folder in which the README's commands were called."""
    folder = tmp_path_factory.mktemp("digits")
    config = REPOSITORY / "training" / "configs" / "digits.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["prepare", "digits", str(corpus), "--output", "digits"]) == 0
        assert main(["train", str(config)]) == 0
        assert main(["export", "runs/digits/bundle", "--int8"]) == 0
    return folder


def test_the_word_error_rate_is_the_one_that_the_readme_states(trained, monkeypatch):
    monkeypatch.chdir(trained)
    [stated] = STATED.findall((REPOSITORY / "README.md").read_text(encoding="utf-8"))
    model = ["--model", "runs/digits/bundle", "--output", "report"]
    assert main(["evaluate", "digits/test.jsonl", *model]) == 0
    [scores] = [
        one["counts"]
        for one in json.loads(Path("report/results.json").read_text())["scores"]
        if one["normalizer"] == "basic"
    ]
    assert (scores["errors"], scores["words"]) == tuple(map(int, stated))


def test_the_model_transcribes_from_the_command_line(trained, corpus, capsys):
    wrong = 0
    for word, path in {"seven": "7_theo_3.wav", "two": "2_george_0.wav", "nine": "9_lucas_4.wav"}.items():
        sound = corpus / "recordings" / path
        assert main(["transcribe", str(sound), "--model", str(trained / "runs/digits/bundle")]) == 0
        wrong += capsys.readouterr().out.strip().lower() != word
    assert wrong <= 1
