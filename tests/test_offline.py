"""Nothing reports home: the command line, training, evaluation and the page look up no host, open no
connection to another machine and leave nothing in the home folder but Keras' settings.

What Python itself does is seen by an audit hook in every process; what compiled code does (ONNX Runtime's
telemetry is such) by strace, where it is installed and permitted.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from asr.bundle import available_bundles

ROOT = Path(__file__).resolve().parents[1]
SWITCHES = (
    "ORT_",
    "GRADIO_",
    "HF_",
    "TF_CPP",
    "XDG_",
    "FASTAPI_",
    "OTEL_",
)  # of this process: Hark has to set its own
LOCAL = re.compile(r"127\.|::1$|localhost$|0\.0\.0\.0$|::$")
CALLS = re.compile(r"\b(connect|sendto|sendmsg|sendmmsg)\b")
ADDRESSES = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
DNS = "htons(53)"

WATCH = """
import runpy, sys

def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    else:
        return
    if host:
        with open("asked.txt", "a") as file:
            print(host.decode() if isinstance(host, bytes) else host, file=file)

sys.addaudithook(watch)
sys.path.insert(0, ROOT)
"""
TRAINING = """
output: run
epochs: 1
model:
  features: {mels: 80, scale: standardized}
  encoders:
    - {type: recurrent, cell: lstm, width: 16, layers: 1, bidirectional: true, stack: 4}
data: {train: [speech.jsonl], dev: [speech.jsonl], batch_seconds: 24}
optimizer: {learning_rate: 1.0e-3}
"""


def may_trace() -> bool:
    strace = shutil.which("strace")
    return strace is not None and subprocess.run([strace, "-f", "true"], capture_output=True).returncode == 0


@pytest.fixture(params=["audit hook", "strace"])
def watched(request, tmp_path, monkeypatch):
    """A function that gives the command for Python code which is watched; afterwards checks what was seen."""
    if not available_bundles():
        pytest.skip("no model is installed in asr/models")
    if request.param == "strace" and not may_trace():
        pytest.skip("needs strace, and the right to trace")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(SWITCHES)]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    soundfile.write("speech.wav", np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000)
    row = {"audio_filepath": "speech.wav", "text": "hold on", "duration": 2.0}
    Path("speech.jsonl").write_text(json.dumps(row) + "\n")
    Path("tiny.yaml").write_text(TRAINING)

    def command(code: str) -> list[str]:
        python = [sys.executable, "-c", f"ROOT = {str(ROOT)!r}\n{WATCH}\n{code}"]
        if request.param == "strace":  # as a grandchild (-D), so that signals reach Python
            return [
                "strace",
                "-D",
                "-f",
                "-qq",
                "-e",
                "trace=%network",
                "-s",
                "100",
                "-o",
                "trace.txt",
                *python,
            ]
        return python

    yield command
    asked = Path("asked.txt").read_text().split() if Path("asked.txt").exists() else []
    assert [host for host in asked if not LOCAL.match(host)] == []
    if request.param == "strace":
        calls = [line for line in Path("trace.txt").read_text().splitlines() if CALLS.search(line)]
        assert [line for line in calls if DNS in line] == []
        addresses = {max(found) for line in calls for found in ADDRESSES.findall(line)}
        assert [address for address in addresses if not LOCAL.match(address)] == []
    left = {str(path.relative_to("home")) for path in Path("home").rglob("*") if path.is_file()}
    assert left <= {".keras/keras.json"}


def hark(*verbs: list[str]) -> str:
    calls = "\n".join(f"assert main({verb!r}) == 0" for verb in verbs)
    return f"from training.commands import main\n{calls}"


def run(command: list[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr


def test_the_command_line(watched):
    run(watched(hark(["transcribe", "speech.wav"], ["transcribe", "speech.wav", "--decoder", "greedy"])))


def test_training_exporting_and_evaluating(watched):
    evaluate = ["evaluate", "speech.jsonl", "--model", "run/bundle", "--output", "report"]
    run(watched(hark(["train", "tiny.yaml"], ["export", "run/bundle"], evaluate)))


def test_page_and_api(watched):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = f"sys.argv = ['app.py', '--port', '{port}']; runpy.run_path(ROOT + '/app.py', run_name='__main__')"
    pipe = subprocess.PIPE
    app = subprocess.Popen(watched(code), stdout=pipe, stderr=pipe, text=True)
    try:
        assert app.stdout.readline().startswith("Hark is listening")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=200, trust_env=False) as page:
            assert '"title":"Hark"' in page.get("/").text
            files = {"files": Path("speech.wav").read_bytes()}
            [uploaded] = page.post("/gradio_api/upload", files=files).json()
            sound = {"path": uploaded, "meta": {"_type": "gradio.FileData"}}
            call = {"data": [sound, available_bundles()[0].name, "greedy", ""]}
            event = page.post("/gradio_api/call/transcribe", json=call).json()["event_id"]
            assert "event: complete" in page.get(f"/gradio_api/call/transcribe/{event}").text
            files = {"file": Path("speech.wav").read_bytes()}
            assert page.post("/v1/audio/transcriptions", files=files).json()["usage"]["seconds"] == 2.0
    finally:
        app.terminate()
        app.communicate(timeout=60)


def test_a_report_home_would_be_noticed(watched, request):
    """The watch itself: a look-up by Python is seen by both."""
    run(watched("import socket\ntry: socket.getaddrinfo('hark.invalid', 80)\nexcept OSError: pass"))
    assert Path("asked.txt").read_text() == "hark.invalid\n"
    Path("asked.txt").unlink()
    if Path("trace.txt").exists():
        assert DNS in Path("trace.txt").read_text()
        Path("trace.txt").write_text("")
