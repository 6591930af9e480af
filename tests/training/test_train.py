"""training/train.py: a tiny model learns, and a run that is killed ends as if it had not been."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from safetensors import safe_open
from safetensors.numpy import load_file

from asr.audio import SAMPLE_RATE
from asr.bundle import Bundle, weights_path
from training.callbacks import CHECKPOINT
from training.commands import main

ROOT = Path(__file__).parents[2]
EPOCHS = 18
LETTER_SECONDS = 0.12
HZ = {"a": 400, "b": 900, "c": 1600, " ": 2600}


def spell(text: str, random: np.random.Generator) -> np.ndarray:
    """A tone for each letter, with a little noise."""
    time = np.arange(round(LETTER_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    sound = np.concatenate([np.sin(2 * np.pi * HZ[letter] * time) for letter in text])
    return (0.3 * sound + 0.003 * random.standard_normal(len(sound))).astype("float32")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """A run that uses all that is random: order, augmentation, masks, dropout."""
    folder = tmp_path_factory.mktemp("speech")
    random = np.random.default_rng(0)
    rows = []
    for i in range(24):
        text = " ".join("".join(random.choice(list("abc"), 2)) for _ in range(1 + i % 3))
        sound = spell(text, random)
        soundfile.write(folder / f"{i}.wav", sound, SAMPLE_RATE)
        rows.append({"audio_filepath": f"{i}.wav", "text": text, "duration": len(sound) / SAMPLE_RATE})
    rows.append({**rows[0], "offset": 0.01, "duration": 0.02})  # too short for its text
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:6]))
    run = {
        "output": str(folder / "run"),
        "epochs": EPOCHS,
        "checkpoint_steps": 2,
        "model": {
            "features": {"mels": 16},
            "encoders": [{"type": "recurrent", "width": 12, "layers": 1, "stack": 4, "dropout": 0.1}],
            "spec_augment": {"frequency_width": 2, "time_width": 4},
            "dropout": 0.1,
        },
        "data": {
            "train": [str(folder / "train.jsonl")],
            "dev": [str(folder / "dev.jsonl")],
            "batch_seconds": 4,
            "augmentation": {"speed": 0.5, "gain": 0.5},
        },
        "optimizer": {"learning_rate": 0.02, "multipliers": {"output": 0.5}},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


def start(config: Path, output: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "training.train", str(config), f"output={output}", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def progress(run: Path) -> dict:
    try:
        with safe_open(run / CHECKPOINT, "numpy") as file:
            return json.loads(file.metadata()["progress"])
    except OSError:
        return {"epoch": 0, "batch": 0}


def metrics(run: Path) -> dict[int, dict]:
    """What metrics.jsonl says of each epoch, less the seconds."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["epoch"]: {name: row[name] for name in row if name != "seconds"} for row in rows}


@pytest.fixture(scope="module")
def finished(config) -> Path:
    """The folder of a run that nobody disturbed."""
    output = config.parent / "whole"
    run = start(config, output)
    _, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    assert "left out, its text needs" in errors
    return output


def test_the_loss_falls_and_the_folder_tells_the_run(finished):
    rows = metrics(finished)
    assert list(rows) == list(range(1, EPOCHS + 1))
    assert rows[EPOCHS]["loss"] < 0.5 * rows[1]["loss"]
    assert "wer_dev" in rows[1]
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["backend"] == "tensorflow"
    assert "keras" in environment["versions"]
    assert yaml.safe_load((finished / "config.yaml").read_text())["seed"] == 0
    bundle = Bundle.load(finished / "bundle")
    assert bundle.step_seconds == pytest.approx(0.04)
    bundle.build_model()


def test_a_killed_run_ends_with_the_same_weights(config, finished):
    output = config.parent / "killed"
    run = start(config, output)
    deadline = time.monotonic() + 200
    while not (progress(output)["epoch"] >= 2 and progress(output)["batch"] > 0):
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    stopped = progress(output)
    assert stopped["epoch"] < EPOCHS
    assert not (output / "bundle").exists()

    resumed = start(config, output, "--resume")
    _, errors = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, errors
    whole, killed = load_file(finished / CHECKPOINT), load_file(output / CHECKPOINT)
    assert whole.keys() == killed.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(killed[name], value)
    whole, killed = (load_file(weights_path(folder / "bundle")) for folder in (finished, output))
    for name, value in whole.items():
        np.testing.assert_array_equal(killed[name], value)
    whole, killed = (metrics(folder) for folder in (finished, output))
    assert killed[EPOCHS] == whole[EPOCHS]
    assert killed[stopped["epoch"] + 1] == whole[stopped["epoch"] + 1]  # the epoch that was cut in two


def test_a_finished_run_is_not_overwritten(config, finished, capsys):
    before = (finished / CHECKPOINT).read_bytes()
    assert main(["train", str(config), f"output={finished}"]) == 2
    assert "holds a run already; add --resume, or choose another output" in capsys.readouterr().err
    assert (finished / CHECKPOINT).read_bytes() == before


def test_resuming_a_finished_run_writes_its_bundle_again(config, finished, capsys):
    path = weights_path(finished / "bundle")
    before = path.read_bytes()
    path.unlink()
    assert main(["train", str(config), f"output={finished}", "--resume", "checkpoint_steps=3"]) == 0
    assert "resumed with another checkpoint_steps: not the same run any more" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_smaller_model_learns_from_a_teacher_alone(config, finished):
    """The only text that it is given is the teacher's, since the weight of CTC is 0."""
    output = config.parent / "student"
    smaller = "[{type: recurrent, cell: gru, width: 8, layers: 1, stack: 4}]"
    overrides = [f"model.encoders={smaller}", "data.augmentation.speed=0"]
    student = start(
        config,
        output,
        *overrides,
        f"objectives.distillation={{teacher: {finished / 'bundle'}, weight: 1.0}}",
        "objectives.ctc.weight=0",
        "epochs=30",
    )
    _, errors = student.communicate(timeout=300)
    assert student.returncode == 0, errors
    rows = metrics(output)
    assert rows[30]["loss"] < 0.5 * rows[1]["loss"]
    assert rows[30]["wer_dev"] < 0.5 * rows[1]["wer_dev"]


def test_a_teacher_with_other_steps_is_refused(config, finished, tmp_path, capsys):
    teacher = shutil.copytree(finished / "bundle", tmp_path / "teacher")
    description = json.loads((teacher / "model.json").read_text())
    (teacher / "model.json").write_text(json.dumps(description | {"step_seconds": 0.02}))
    overrides = [f"output={tmp_path / 'run'}", f"objectives.distillation.teacher={teacher}"]
    assert main(["train", str(config), *overrides]) == 2
    assert "has 29 units and steps of 0.02 s; it cannot teach a model of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train=[none.jsonl]", "none.jsonl: no such manifest"),
        ("epoch=3", "epoch: Extra inputs are not permitted"),
    ],
)
def test_wrong_input_gets_one_line(config, tmp_path, capsys, override, message):
    assert main(["train", str(config), f"output={tmp_path / 'run'}", override]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("arguments", [(28, "No space left on device"), ("No space left on device",)])
def test_an_error_that_names_no_path_gets_the_folder(config, tmp_path, monkeypatch, capsys, arguments):
    def fail(*_):
        raise OSError(*arguments)

    monkeypatch.setattr("training.train.train", fail)
    assert main(["train", str(config), f"output={tmp_path / 'run'}"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"error: {tmp_path / 'run'}: No space left on device"
