"""training/devices.py: several devices and processes train as one device does, and end together.

The runs are real ones on JAX, with processes of this machine, or with CPU devices that XLA simulates.
"""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from asr.bundle import Bundle, weights_path
from tests.training.toy import write_manifest
from training.callbacks import CHECKPOINT, load_progress
from training.commands import main
from training.data import Batches, Share
from training.devices import HEARTBEAT_SECONDS, LOST

ROOT = Path(__file__).parents[2]
TEXTS = [
    "hello all",
    "good even",
    "world war",
    "so long a",
    "what fine",
    "it is lat",
    "yes it is",
    "no way so",
]
EPOCHS = 8
SECONDS = 280  # more than a run takes on a busy machine

# Ten processes, each of which loads JAX and compiles its step: 90 s on two quiet cores.
pytestmark = pytest.mark.timeout(3 * SECONDS)
needs_jax = pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="needs JAX: pip install jax")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """A run with all that is random. Its batches have to be filled up, and are of one length: JAX is slow."""
    folder = tmp_path_factory.mktemp("several")
    manifest = write_manifest(folder / "train.jsonl", [(text, text) for text in TEXTS])
    encoder = {"type": "recurrent", "cell": "gru", "width": 8, "layers": 1, "stack": 4, "dropout": 0.1}
    run = {
        "output": str(folder / "run"),
        "model": {
            "encoders": [{**encoder, "bidirectional": False}],
            "features": {"mels": 8},
            "spec_augment": {"frequency_width": 2, "time_width": 4},
            "dropout": 0.1,
        },
        "data": {
            "train": [str(manifest)],
            "dev": [str(manifest)],
            "batch_seconds": 5,
            "augmentation": {"speed": 0.5, "silence": 0.5},
        },
        "optimizer": {"learning_rate": 0.02},
        "epochs": EPOCHS,
        "checkpoint_steps": 1,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


def start(config: Path, output: str, *arguments: str, devices: int = 1) -> subprocess.Popen:
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": str(config.parent / "compiled"),
        "JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "training.train", config, f"output={config.parent / output}", *arguments]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)


def start_two(config: Path, output: str, *arguments: str) -> list[subprocess.Popen]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    meeting = ("--coordinator", address, "--processes", "2", "--process")
    return [start(config, output, *arguments, *meeting, str(process)) for process in range(2)]


def succeed(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def finished(config) -> Path:
    """The folder of the same run on one device, on four, and in two processes: "one", "four", "two"."""
    one, four = start(config, "one"), start(config, "four", "devices=all", devices=4)
    succeed([one, four, *start_two(config, "two")])
    return config.parent


def metrics(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row if name != "seconds"} for row in rows]


@needs_jax
@pytest.mark.parametrize("run", ["four", "two"])
def test_losses_and_weights_are_those_of_one_device(finished, run):
    one, several = metrics(finished / "one"), metrics(finished / run)
    assert [row["epoch"] for row in several] == list(range(1, EPOCHS + 1))
    for mine, theirs in zip(several, one, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)
    assert one[-1]["loss"] < one[0]["loss"]
    one, several = (load_file(weights_path(finished / name / "bundle")) for name in ("one", run))
    assert one.keys() == several.keys()
    for name, value in one.items():
        np.testing.assert_allclose(several[name], value, rtol=1e-3, atol=1e-4)  # stored in 16 bits
    assert yaml.safe_load((finished / run / "config.yaml").read_text())["devices"] == "all"
    Bundle.load(finished / run / "bundle").build_model()


def kill_at(epoch: int, run: Path, processes: list[subprocess.Popen], killed: int) -> None:
    """Kills one of the processes, and checks how the other ends."""
    deadline = time.monotonic() + SECONDS
    while load_progress(run / CHECKPOINT)["epoch"] < epoch:
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes), processes[1 - killed].stderr.read()
        time.sleep(0.005)
    os.kill(processes[killed].pid, signal.SIGKILL)
    processes[killed].communicate()
    other = processes[1 - killed]
    _, errors = other.communicate(timeout=2 * HEARTBEAT_SECONDS)
    assert other.returncode != 0
    assert errors.splitlines()[-1] == f"error: {LOST}"
    assert errors.count(LOST) == 1 and "Traceback" not in errors and "stack trace" not in errors
    assert load_progress(run / CHECKPOINT)["epoch"] < EPOCHS


@needs_jax
def test_when_one_is_killed_all_end_and_the_resumed_run_has_the_same_weights(config, finished):
    run = finished / "killed"
    kill_at(2, run, start_two(config, "killed"), killed=1)
    kill_at(4, run, start_two(config, "killed", "--resume"), killed=0)
    succeed(start_two(config, "killed", "--resume"))
    whole, resumed = load_file(finished / "two" / CHECKPOINT), load_file(run / CHECKPOINT)
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value)
    assert metrics(run)[-1] == metrics(finished / "two")[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["devices=all"], "devices=all needs the backend JAX, this is tensorflow: pip install jax, then"),
        (["--coordinator", "a:1", "--process", "0", "--processes", "2"], "devices=all needs the backend JAX"),
        (["--coordinator", "a:1"], "--coordinator, --process and --processes go together"),
        (["--coordinator", "a", "--process", "0", "--processes", "2"], "--coordinator a: write HOST:PORT"),
        (["--coordinator", "a:1", "--process", "2", "--processes", "2"], "--process 2: of 2 processes"),
        (["devices=two"], "devices: Input should be 'one' or 'all'"),
    ],
)
def test_a_wrong_call_gets_one_line(config, tmp_path, capsys, arguments, message):
    assert main(["train", str(config), f"output={tmp_path / 'run'}", *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run" / "config.yaml").exists()


@given(utterances=st.integers(1, 50), processes=st.integers(1, 5), each=st.integers(1, 4))
def test_the_rows_of_all_processes_are_the_batch_filled_up_to_a_multiple_of_the_devices(
    utterances, processes, each
):
    devices = processes * each
    shares = [Share(process, processes, devices).rows(utterances) for process in range(processes)]
    assert len({len(rows) for rows in shares}) == 1
    rows = np.concatenate(shares)
    np.testing.assert_array_equal(rows, np.arange(len(rows)))
    assert len(rows) % devices == 0 and utterances <= len(rows) < utterances + devices


def test_the_shares_of_a_batch_are_the_batch(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    lengths = np.arange(21, 30)

    def read(i, random):
        return random.random(int(lengths[i] * random.choice([0.7, 1, 1.9]))).astype("float32")

    def targets(i, inputs):  # the second one as those of a teacher
        own = np.full(lengths[i] if len(inputs) == lengths[i] else 0, i, "float32")
        return {"labels": np.arange(8 * i, dtype="int32"), "own": own}

    def batches(share: Share) -> Batches:
        options = {"targets": targets, "longest": 2 * lengths, "one_shape": True}
        return Batches(lengths, read, 10.0, 12.0, 7, share=share, **options)

    whole, parts = batches(Share()), [batches(Share(process, 2, 4)) for process in range(2)]
    filled = 0
    for index in range(len(whole)):
        inputs, expected = whole[index]
        shares = [part[index] for part in parts]
        weights = np.concatenate([targets["weights"] for _, targets in shares])
        count = len(inputs["lengths"])
        utterances = len(whole.plan[index])
        assert list(weights) == [1] * utterances + [0] * (len(weights) - utterances)
        filled += len(weights) - count
        for one, several in ((inputs, [x for x, _ in shares]), (expected, [y for _, y in shares])):
            for name, value in one.items():
                if name == "weights":
                    continue
                found = np.concatenate([share[name] for share in several])
                np.testing.assert_array_equal(found[:count], value)
                for row in found[count:]:
                    np.testing.assert_array_equal(row, value[-1])
    assert filled
