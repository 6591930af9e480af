"""`hark serve --workers`: several processes at one port."""

import base64
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import app
from asr.bundle import available_bundles
from tests import voice
from tests.serve.serving import free_port, wait_until
from tests.serve.test_openai import flac

ROOT = Path(__file__).resolve().parents[2]
SOUND = voice.speak("abab", dict.fromkeys("ab", 440.0))
PCM = (SOUND * 32767).astype("<i2").tobytes()
TRANSCRIPTIONS = 'hark_requests_total{route="/v1/audio/transcriptions",status="200"}'

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc of Linux")


class Server:
    """A server process with two workers."""

    def __init__(self, log, **settings):
        if not available_bundles():
            pytest.skip("no model is installed in asr/models")
        self.port = free_port()
        command = [sys.executable, "app.py", "--no-page", "--workers", "2", "--port", str(self.port)]
        environment = os.environ | settings
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert self.process.stdout.readline().startswith("Hark is listening")
        wait_until(lambda: len(self.workers()) == 2)

    def workers(self) -> list[int]:
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return list(map(int, found.split()))

    def metric(self, name: str) -> float:
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", trust_env=False, timeout=60).text
        return float(next(line for line in text.splitlines() if line.startswith(name)).split()[-1])

    def post(self) -> int:
        address = f"http://127.0.0.1:{self.port}/v1/audio/transcriptions"
        return httpx.post(address, files={"file": flac(SOUND)}, trust_env=False, timeout=60).status_code

    def connect(self, path: str = "/"):
        return connect(f"ws://127.0.0.1:{self.port}{path}", proxy=None)

    @contextmanager
    def only(self, pid: int):
        """All other workers hold still meanwhile."""
        others = [other for other in self.workers() if other != pid]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        threads = [path for other in others for path in Path(f"/proc/{other}/task").glob("*/stat")]
        try:
            wait_until(lambda: all(path.read_text().rpartition(") ")[2][0] == "T" for path in threads))
            yield
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    path = tmp_path_factory.mktemp("workers") / "log"
    with open(path, "w") as log:
        server = Server(log, HARK_MAX_STREAMS="1")
        try:
            yield server
            server.process.terminate()
            assert server.process.wait(20) == 0
        finally:
            server.process.kill()  # after which the workers end by themselves
    assert "Traceback" not in path.read_text()


def test_any_worker_serves_everything_and_counts_for_all(server):
    for count, pid in enumerate(server.workers(), 1):
        with server.only(pid):
            assert server.post() == 200
            with server.connect() as client:
                client.send('{"config": {"sample_rate": 16000}}')
                client.send(PCM)
                client.send('{"eof": 1}')
                assert "text" in [json.loads(answer) for answer in client][-1]
            with server.connect("/v1/realtime?intent=transcription") as client:
                audio = base64.b64encode(PCM).decode()
                client.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
                client.send('{"type": "input_audio_buffer.commit"}')
                while not json.loads(client.recv(60))["type"].endswith("transcription.completed"):
                    pass
            wait_until(lambda: server.metric("hark_streams") == 0)
            assert server.metric(TRANSCRIPTIONS) == count
    both = 2 * (len(SOUND) / 16_000 + len(SOUND) / 24_000)
    assert server.metric("hark_streamed_seconds_total") == pytest.approx(both)


def test_a_worker_that_is_full_says_when_to_come_again(server):
    with server.only(server.workers()[0]), server.connect(), pytest.raises(InvalidStatus) as refused:
        server.connect()
    assert refused.value.response.status_code == 429
    assert refused.value.response.headers["Retry-After"] == "10"


def test_a_worker_that_dies_is_replaced_and_its_streams_are_over(server):
    before = server.metric(TRANSCRIPTIONS)
    pid = server.workers()[0]
    with server.only(pid):
        client = server.connect()
    wait_until(lambda: server.metric("hark_streams") == 1)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in server.workers() and len(server.workers()) == 2)
    with server.only(server.workers()[-1]):  # the new one
        assert server.post() == 200
        assert server.metric("hark_streams") == 0
        assert server.metric(TRANSCRIPTIONS) == before + 1
    client.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])  # SIGTERM: at the end of `server`
def test_all_end_together_and_leave_the_port(tmp_path, number):
    environment = {} if number == signal.SIGKILL else {"TMPDIR": str(tmp_path)}
    server = Server(subprocess.PIPE, **environment)
    workers = server.workers()
    try:
        with server.connect():
            server.process.send_signal(number)
            assert server.process.wait(20) == (-number if number == signal.SIGKILL else 0)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
        assert server.process.stderr.read().count("Traceback") == 0
        assert list(tmp_path.iterdir()) == []
    finally:
        server.process.kill()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--workers", "2"], ["--no-page"]),
        (["--workers", "2", "--no-page", "--model", "MODEL"], ["engine.onnx", "hark export MODEL"]),
    ],
)
def test_what_workers_cannot_share_is_refused(capsys, tmp_path, monkeypatch, options, parts):
    if not available_bundles():
        pytest.skip("no model is installed in asr/models")
    monkeypatch.chdir(tmp_path)
    Path("MODEL").mkdir()
    for path in available_bundles()[0].directory.iterdir():
        if path.name != "engine.onnx":
            Path("MODEL", path.name).symlink_to(path)
    assert app.main([*options, "--port", str(free_port())]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(part in error for part in parts)


def test_no_workers_are_refused_and_very_many_mentioned(capsys):
    with pytest.raises(SystemExit):
        app.main(["--workers", "0"])
    assert "'0' is not a whole number above 0" in capsys.readouterr().err
    assert app.main(["--workers", "999", "--no-page", "--port", "99999"]) == 2
    assert "999 workers share" in capsys.readouterr().err
