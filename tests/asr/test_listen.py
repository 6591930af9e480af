"""hark stream: what it reads, what it prints while one speaks, how it ends."""

import importlib.util
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from asr.audio import load_audio
from asr.cli import main
from asr.recognizer import Recognizer
from tests.asr.conftest import tone_recognizer

RATE = 16_000
ROOT = Path(__file__).parents[2]
# The real command in a process of its own, with the recogniser of the synthetic voice.
COMMAND_OF_TONES = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from asr.cli import main
from asr.recognizer import Recognizer
from tests.asr.conftest import tone_recognizer
Recognizer.load = lambda *args, **options: tone_recognizer()
sys.exit(main(["stream"]))
"""


@pytest.fixture
def hears(monkeypatch):
    """`main` recognises the synthetic voice on standard input."""
    monkeypatch.setattr(Recognizer, "load", lambda *args, **options: tone_recognizer())

    def hear(data: bytes, *arguments: str) -> int:
        buffer = io.BufferedReader(io.BytesIO(data))
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=buffer, isatty=lambda: False))
        return main(["stream", *arguments])

    return hear


@pytest.fixture(scope="module")
def talk(speak) -> np.ndarray:
    return speak(0.5, "hello world", 2.0, "again", 1.0)


def pcm(samples: np.ndarray) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV")
    return file.getvalue()


def test_samples_and_files_on_standard_input(hears, talk, capsys):
    for data in (pcm(talk), pcm(talk) + b"\x01", wav(talk), wav(np.stack([talk, talk], axis=1))):
        assert hears(data) == 0
        assert capsys.readouterr() == ("hello world\nagain\n", "")


def test_the_rate_of_samples(hears, talk, capsys):
    doubled = np.repeat(talk, 2)  # what a player at 32 kHz would play
    assert hears(pcm(doubled), "--rate", "32000") == 0
    assert capsys.readouterr() == ("hello world\nagain\n", "")


def test_a_telephone_as_wav(shared_data, monkeypatch, capsys):
    """8 kHz, with the real model."""
    line = (shared_data / "dev-read.jsonl").read_text().splitlines()[0]
    clip = load_audio(shared_data / json.loads(line)["audio_filepath"], duration_seconds=6.0)
    file = io.BufferedReader(io.BytesIO(wav(clip[::2], 8_000)))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file, isatty=lambda: False))
    assert main(["stream"]) == 0
    assert "went off with a messenger" in capsys.readouterr().out


def test_json_lines(hears, talk, capsys):
    assert hears(pcm(talk), "--json") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["type"] for event in events} == {"partial", "final"}
    assert [event["text"] for event in events if event["type"] == "final"] == ["hello world", "again"]
    assert [word["word"] for word in events[-1]["words"]] == ["again"]


def test_hot_words_and_decoders(hears, talk, capsys):
    assert hears(pcm(talk), "--hotword", "hello", "--decoder", "beam") == 0
    assert hears(pcm(talk), "--hotword", "hello", "--decoder", "greedy") == 2
    printed = capsys.readouterr()
    assert printed.out == "hello world\nagain\n"
    assert (
        printed.err.startswith("error: the greedy decoder knows no hot words")
        and printed.err.count("\n") == 1
    )


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"", 1, "error: standard input is empty"),
        (np.random.default_rng(0).normal(0, 0.05, 9000).astype("<f4").tobytes(), 1, "holds 32-bit floats"),
        (b"RIFF but then nothing of the kind", 1, "error: 'standard input'"),
        (bytes(10 * RATE), 0, "warning: no speech was found"),
    ],
)
def test_what_has_no_words_ends_in_one_line(hears, capsys, data, code, message):
    assert hears(data) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err and printed.err.count("\n") == 1


def test_a_terminal_is_no_sound(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert main(["stream"]) == 2
    assert "pipe it in, or give --microphone" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("sounddevice") is not None, reason="sounddevice is installed")
def test_a_microphone_needs_sounddevice(hears, capsys):
    assert hears(b"", "--microphone") == 2
    assert "pip install '.[microphone]'" in capsys.readouterr().err


def test_a_terminal_shows_what_is_being_said(talk):
    """The line is written again: what may change is dim, then the final takes its place."""
    controller, terminal = pty.openpty()
    command = [sys.executable, "-c", COMMAND_OF_TONES]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=terminal, stderr=subprocess.PIPE) as process:
        os.close(terminal)
        for start in range(0, len(talk), 1600):  # faster than it is spoken, but not all at once
            process.stdin.write(pcm(talk[start : start + 1600]))
            process.stdin.flush()
            time.sleep(0.03)
        process.stdin.close()
        shown = b""
        try:
            while data := os.read(controller, 4096):
                shown += data
        except OSError:  # the other end is closed
            pass
        assert process.wait(60) == 0, process.stderr.read()
    os.close(controller)
    assert b"\r\x1b[Khello" in shown and b"\x1b[2m" in shown
    lines = [line.rpartition(b"\x1b[K")[2] for line in shown.split(b"\r\n")]
    assert [line for line in lines if line] == [b"hello world", b"again"]


def test_ctrl_c_keeps_what_was_said(talk):
    command = [sys.executable, "-c", COMMAND_OF_TONES]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdin.write(pcm(talk[: -RATE // 2]))
        process.stdin.flush()
        assert process.stdout.readline() == b"hello world\n"
        time.sleep(0.5)  # it waits for more
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"again\n"
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
