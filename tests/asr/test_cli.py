"""The command line: what it prints, what it writes, how it ends."""

import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr import cli
from asr.bundle import MODELS
from asr.cli import main
from asr.recognizer import Recognizer
from asr.tokenizer import Tokenizer

RATE = 16_000
ROOT = Path(__file__).parents[2]

# The real command in a process of its own, with the recogniser of the synthetic voice.
COMMAND_OF_TONES = f"""
import importlib.util, sys
sys.path.insert(0, {str(ROOT)!r})
spec = importlib.util.spec_from_file_location("tones", {str(Path(__file__).with_name("conftest.py"))!r})
tones = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tones)
from asr.cli import main
from asr.recognizer import Recognizer
Recognizer.load = lambda *args, **options: tones.tone_recognizer()
sys.exit(main())
"""


@pytest.fixture
def tones(recognizer, monkeypatch):
    """`main` recognises the synthetic voice."""
    monkeypatch.setattr(Recognizer, "load", lambda *args, **options: recognizer)
    return recognizer


@pytest.fixture
def folder(tmp_path, speak, monkeypatch) -> Path:
    """The working directory, with hello.wav, again.wav, silent.wav, broken.wav and a folder of a namesake."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("hello.wav", speak(0.5, "hello world", 0.5), RATE)
    soundfile.write("again.wav", speak(0.5, "again", 0.5), RATE)
    soundfile.write("silent.wav", speak(2.0), RATE)
    Path("broken.wav").write_bytes(b"RIFF but then nothing of the kind")
    Path("other").mkdir()
    soundfile.write("other/hello.flac", speak(0.5, "other", 0.5), RATE)
    return tmp_path


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", COMMAND_OF_TONES, *arguments], capture_output=True, timeout=60, **options
    )


def test_one_file(tones, folder, capsys):
    assert main(["transcribe", "hello.wav"]) == 0
    assert capsys.readouterr() == ("hello world\n", "")


def test_several_files_get_headings(tones, folder, capsys):
    assert main(["transcribe", "hello.wav", "again.wav"]) == 0
    assert capsys.readouterr() == ("==> hello.wav <==\nhello world\n==> again.wav <==\nagain\n", "")


@pytest.mark.parametrize("format", ["srt", "vtt", "tsv", "json"])
def test_formats(tones, folder, capsys, format):
    assert main(["transcribe", "hello.wav", "--format", format]) == 0
    assert capsys.readouterr().out == tones.transcribe("hello.wav").render(format)


@pytest.mark.parametrize("command", [["transcribe", "hello.wav"], ["align", "hello.wav", "hello.txt"]])
def test_a_document_is_not_printed(tones, folder, command, capsys):
    Path("hello.txt").write_text("hello world")
    assert main([*command, "--format", "docx"]) == 2
    assert "--output DIR" in capsys.readouterr().err
    assert main([*command, "--format", "docx", "--output", "."]) == 0
    assert Path("hello.docx").read_bytes().startswith(b"PK")


def test_n_best_is_for_json(tones, folder, capsys):
    assert main(["transcribe", "hello.wav", "--n-best", "3", "--format", "json"]) == 0
    [segment] = json.loads(capsys.readouterr().out)["segments"]
    assert segment["text"] == "hello world"
    assert len({segment["text"], *segment["alternatives"]}) == 3
    assert main(["transcribe", "hello.wav", "--n-best", "3"]) == 2
    assert "--format json" in capsys.readouterr().err


def test_failing_inputs_are_named_and_the_others_done(tones, folder, capsys):
    assert main(["transcribe", "broken.wav", "hello.wav", "missing.wav", "other", "again.wav"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "==> hello.wav <==\nhello world\n==> again.wav <==\nagain\n"
    errors = printed.err.splitlines()
    assert len(errors) == 3
    for line, name in zip(errors, ["broken.wav", "missing.wav", "other"], strict=True):
        assert line.startswith("error: ") and name in line


def test_no_speech_is_a_result_and_a_warning(tones, folder, capsys):
    assert main(["transcribe", "silent.wav"]) == 0
    assert capsys.readouterr() == ("", "warning: no speech was found in 'silent.wav'\n")


def test_channels_and_tracks(tones, folder, capsys, speak):
    left, right = speak(0.5, "hello", 4.0), speak(3.0, "again", 1.5)
    length = min(len(left), len(right))
    soundfile.write("call.wav", np.stack([left[:length], right[:length]], axis=1), RATE)
    assert main(["transcribe", "call.wav", "--channel", "right"]) == 0
    assert main(["transcribe", "call.wav", "--channel", "each", "--track", "1"]) == 0
    assert capsys.readouterr() == ("again\nleft: hello\nright: again\n", "")
    assert main(["transcribe", "call.wav", "--track", "2"]) == 1
    assert main(["transcribe", "hello.wav", "--channel", "left"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "no track 2" in errors[0] and "only one channel" in errors[1]


def test_damage_is_a_warning(tones, folder, capsys):
    data = Path("hello.wav").read_bytes()
    Path("half.wav").write_bytes(data[: len(data) * 3 // 4])
    assert main(["transcribe", "half.wav"]) == 0
    [warning] = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: 'half.wav' is truncated: its header states")


def test_output_folder(tones, folder, capsys):
    assert main(["transcribe", "hello.wav", "again.wav", "--format", "srt", "--output", "new/texts"]) == 0
    assert sorted(path.name for path in Path("new/texts").iterdir()) == ["again.srt", "hello.srt"]
    assert Path("new/texts/again.srt").read_text() == tones.transcribe("again.wav").to_srt()
    assert capsys.readouterr() == ("", "")


def test_namesakes_keep_their_files(tones, folder, capsys):
    Path("hello.txt").write_text("written by hand")
    assert main(["transcribe", "hello.wav", "other/hello.flac", "--output", "."]) == 0
    assert Path("hello.txt").read_text() == "written by hand"
    assert Path("hello-2.txt").read_text() == "hello world\n"
    assert Path("hello-3.txt").read_text() == "other\n"
    warnings = capsys.readouterr().err.splitlines()
    assert "hello-2.txt" in warnings[0] and "hello-3.txt" in warnings[1]


def test_align(tones, folder, capsys):
    Path("hello.txt").write_text("Hello, World!", encoding="utf-8-sig")
    assert main(["align", "hello.wav", "hello.txt"]) == 0
    words = json.loads(capsys.readouterr().out)["words"]
    assert [word["word"] for word in words] == ["Hello,", "World!"]
    assert words[0]["start"] == pytest.approx(0.54, abs=0.06)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "no words"),
        (b"\xff\xfe\x00\xd8", "UTF-8"),
        (b"word " * 99, "at least"),
        (None, "check the path"),
    ],
)
def test_texts_that_cannot_be_aligned(tones, folder, capsys, text, message):
    if text is not None:
        Path("text.txt").write_bytes(text)
    assert main(["align", "hello.wav", "text.txt"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert "text.txt" in printed.err and message in printed.err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["transcribe"],
        ["translate", "hello.wav"],
        ["transcribe", "hello.wav", "--format", "docx"],
        ["transcribe", "hello.wav", "--decoder", "viterbi"],
        ["transcribe", "hello.wav", "--threads", "0"],
        ["transcribe", "hello.wav", "--threads", "many"],
        ["transcribe", "hello.wav", "again.wav", "--format", "srt"],
        ["transcribe", "-", "-"],
        ["transcribe", "hello.wav", "--decoder", "greedy", "--hotword", "hark"],
        ["transcribe", "hello.wav", "--output", "again.wav"],
        ["align", "hello.wav"],
        ["align", "-", "-"],
    ],
)
def test_wrong_calls(tones, folder, capsys, arguments):
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1


def test_unknown_model_is_a_wrong_call(folder, capsys):
    assert main(["transcribe", "hello.wav", "--model", "klingon"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1 and "klingon" in printed


def test_models(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("asr.bundle.MODELS", tmp_path)
    (tmp_path / "small").mkdir()
    description = {
        "format_version": 2,
        "features": {},
        "encoders": [],
        "step_seconds": 0.04,
    }
    description["wer"] = {"dev-read": 31.25, "dev-other": 50}
    (tmp_path / "small" / "model.json").write_text(json.dumps(description))
    Tokenizer.characters().save(tmp_path / "small" / "tokenizer.json")
    (tmp_path / "small" / "weights.safetensors").write_bytes(bytes(2_000_000))
    assert main(["models"]) == 0
    assert capsys.readouterr() == ("small\t2.0 MB\ten\tWER dev-read 31.2 %, dev-other 50.0 %\n", "")


def test_standard_input(folder):
    ended = run("transcribe", "-", input=Path("hello.wav").read_bytes())
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"hello world\n", b"")
    ended = run("transcribe", "-", "--output", ".", input=Path("hello.wav").read_bytes())
    assert (ended.returncode, Path("stdin.txt").read_text()) == (0, "hello world\n")


def test_no_traceback_unless_asked_for(folder):
    ended = run("transcribe", "broken.wav")
    assert ended.returncode == 1
    assert b"Traceback" not in ended.stderr and ended.stderr.count(b"\n") == 1
    assert b"Traceback" in run("transcribe", "broken.wav", "--debug").stderr


def test_names_that_are_no_unicode(folder):
    name = os.fsdecode(b"caf\xe9.wav")
    Path("hello.wav").rename(name)
    ended = run("transcribe", name, "again.wav")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"==> caf\xe9.wav <==\nhello world\n" in ended.stdout


def test_a_reader_that_leaves_is_no_error(folder):
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND_OF_TONES, "transcribe", "hello.wav"],
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_interrupt_ends_quietly(folder):
    slow = COMMAND_OF_TONES.replace("sys.exit", "print('ready', flush=True); sys.exit")
    process = subprocess.Popen(
        [sys.executable, "-c", slow, "transcribe", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A test run in the background ignores interrupts, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == b"ready\n"
    time.sleep(0.5)  # until it waits for standard input, which never comes
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"")


def test_help_loads_nothing_heavy():
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "asr", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0 and "transcribe" in ended.stdout
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in ended.stderr.splitlines()}
    assert "asr" in loaded
    assert not loaded & {
        "tensorflow",
        "keras",
        "jax",
        "gradio",
        "librosa",
        "numba",
        "scipy",
        "onnxruntime",
        "tqdm",
    }


def test_progress_shows_on_a_terminal_and_never_in_the_results(folder):
    terminal, stderr = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND_OF_TONES, "transcribe", "hello.wav"],
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, "TERM": "xterm"},
        timeout=60,
    )
    os.close(stderr)
    shown = os.read(terminal, 65_536)
    os.close(terminal)
    assert (ended.returncode, ended.stdout) == (0, b"hello world\n")
    assert b"hello.wav" in shown


def test_the_shipped_model_runs_without_tensorflow(folder):
    if not (MODELS / "english" / "engine.onnx").exists():
        pytest.skip("needs the exported graph of asr/models/english")
    command = [sys.executable, "-X", "importtime", "-m", "asr", "transcribe", str(folder / "hello.wav")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in ended.stderr.splitlines()}
    assert "onnxruntime" in loaded
    assert not loaded & {"tensorflow", "keras", "jax", "gradio", "librosa", "rich", "tqdm"}


def test_a_name_too_long_for_a_result_is_cut_with_a_warning(tones, folder, capsys):
    long = "n" * 251 + ".wav"
    Path("hello.wav").rename(long)
    assert main(["transcribe", long, "again.wav", "--format", "json", "--output", "out"]) == 0
    assert sorted(os.listdir("out")) == ["again.json", "n" * 250 + ".json"]
    [warning] = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: ") and "n" * 250 + ".json" in warning


@pytest.mark.parametrize("command", [["transcribe", "hello.wav"], ["align", "hello.wav", "words.txt"]])
def test_a_result_that_cannot_be_written_is_one_files_error(tones, folder, capsys, monkeypatch, command):
    Path("words.txt").write_text("hello world")

    def write_new(folder, stem, suffix, content):
        if stem == "hello":
            raise OSError(28, "No space left on device")
        return files_write_new(folder, stem, suffix, content)

    files_write_new = cli.write_new
    monkeypatch.setattr(cli, "write_new", write_new)
    others = ["again.wav"] if command[0] == "transcribe" else []
    assert main([*command, *others, "--output", "out"]) == 1
    [error] = capsys.readouterr().err.splitlines()
    assert error == "error: 'hello.wav': its result cannot be written to 'out': No space left on device"
    assert os.listdir("out") == [f"{Path(other).stem}.txt" for other in others]


def test_an_output_folder_that_takes_nothing_is_refused_before_any_work(folder, capsys):
    for place in ("hello.wav/texts", "/proc/texts"):
        assert main(["transcribe", "again.wav", "--output", place]) == 2
        [error] = capsys.readouterr().err.splitlines()
        assert error.startswith(f"error: nothing can be written to {place!r}: ")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_one_line(folder):
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", COMMAND_OF_TONES, "transcribe", "hello.wav"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert (ended.returncode, ended.stderr) == (2, b"error: standard output: No space left on device\n")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["transcrib", "hello.wav"], "transcribe"),
        (["Align", "hello.wav", "text.txt"], "align"),
        (["transcribe", "hello.wav", "--formt", "srt"], "--format"),
        (["transcribe", "--hotwrod=hark", "hello.wav"], "--hotword"),
        (["transcribe", "hello.wav", "--format", "str"], "srt"),
        (["transcribe", "hello.wav", "--decoder", "gredy"], "greedy"),
        (["align", "--thread-count", "2"], "--threads"),
        (["--debgu", "models"], "--debug"),
    ],
)
def test_the_right_word_is_suggested(capsys, arguments, word):
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    [error] = capsys.readouterr().err.splitlines()
    assert code == 2
    assert f"; did you mean {word}?; see hark" in error


def test_files_may_follow_options(tones, folder, capsys):
    assert main(["transcribe", "hello.wav", "--format", "txt", "again.wav"]) == 0
    assert capsys.readouterr().out == "==> hello.wav <==\nhello world\n==> again.wav <==\nagain\n"
