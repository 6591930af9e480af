"""`python app.py`: start, bad options, stop."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import httpx
import pytest

import app
from asr.bundle import available_bundles

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, **options
    )


def start(*arguments, **options):
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=pipe, stderr=pipe, text=True, **options
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def assert_refused(capsys, arguments, *parts):
    """Exit code 2 and one line with these parts."""
    assert app.main(arguments) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.count("\n") == 1
    for part in parts:
        assert part in error


def test_a_port_in_use_is_refused_with_a_suggestion(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert_refused(capsys, ["--port", port], port, "--port")


@pytest.mark.parametrize("arguments", [["--port", "99999"], ["--host", "no.such.host.invalid"]])
def test_an_impossible_address_is_refused(capsys, arguments):
    assert_refused(capsys, arguments, arguments[1])


def test_a_folder_without_a_model_is_refused_by_name(capsys, tmp_path):
    assert_refused(capsys, ["--model", str(tmp_path / "nowhere"), "--port", str(free_port())], "nowhere")


@pytest.mark.parametrize("name", ["HARK_API_KEY", "HARK_MAX_SECONDS"])
def test_an_empty_setting_is_refused_by_name(capsys, monkeypatch, name):
    monkeypatch.setenv(name, "")
    assert_refused(capsys, ["--port", str(free_port())], name)


@pytest.mark.parametrize(
    ("module", "options", "way_out"),
    [("gradio", [], "--no-page"), ("prometheus_client", ["--no-page"], "'.[serve]'")],
)
def test_a_missing_package_is_named_with_its_extra(module, options, way_out):
    options = [*options, "--port", str(free_port())]
    ended = run(
        "-c", f"import sys; sys.modules[{module!r}] = None; import app; sys.exit(app.main({options}))"
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert module in ended.stderr and way_out in ended.stderr


def test_help_loads_neither_gradio_nor_a_framework():
    code = "import app, sys; print([m for m in ('gradio', 'tensorflow', 'keras') if m in sys.modules])"
    assert run("-c", code).stdout == "[]\n"
    assert "--model DIR" in run("app.py", "--help").stdout


def test_page_and_api_load_no_framework():
    code = (
        "import app, sys, asr.web.page, asr.serve.app, asr.engine, training.evaluate_tab;"
        "print([m for m in ('tensorflow', 'keras', 'torch', 'jax') if m in sys.modules])"
    )
    assert run("-c", code).stdout == "[]\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_behind_a_proxy_and_deletes_uploads_on_a_quiet_exit(tmp_path, number):
    if not available_bundles():
        pytest.skip("no model is installed in asr/models")
    port = free_port()
    dead_proxy = "http://127.0.0.1:9"
    environment = {"TMPDIR": str(tmp_path), "http_proxy": dead_proxy, "https_proxy": dead_proxy}
    process = start("app.py", "--port", str(port), env=os.environ | environment)
    try:
        assert process.stdout.readline() == f"Hark is listening on http://127.0.0.1:{port}\n"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://127.0.0.1:{port}/") as answer:
            assert '"title":"Hark"' in answer.read().decode()
        with direct.open(f"http://127.0.0.1:{port}/healthz") as answer:
            assert json.load(answer)["status"] == "ok"
        assert list(tmp_path.glob("hark-*"))
        process.send_signal(number)
        output, error = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, output, error) == (0, "", "")
    assert not list(tmp_path.glob("hark-*"))


def test_without_the_page_there_is_the_api_alone():
    if not available_bundles():
        pytest.skip("no model is installed in asr/models")
    port = free_port()
    code = f"from training.commands import main; main(['serve', '--no-page', '--port', '{port}'])"
    process = start("-c", code)
    try:
        assert process.stdout.readline() == f"Hark is listening on http://127.0.0.1:{port}\n"
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False).json()["data"][0]["id"]
        assert httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).json()["error"]["code"] == "not_found"
        process.terminate()
        output, error = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, output) == (0, "")
    assert " GET /v1/models 200 in 0.0" in error and error.count("\n") == 1


BUSY = """
import runpy, sys, threading
import numpy as np
from asr import Recognizer

recognizer = Recognizer.load()

def work():
    while True:
        recognizer.engine.log_probs(np.zeros(16_000, np.float32))

threading.Thread(target=work, daemon=True).start()
runpy.run_path("app.py", run_name="__main__")
"""


def test_it_exits_quietly_while_a_thread_still_recognises():
    if not available_bundles():
        pytest.skip("no model is installed in asr/models")
    process = start("-c", BUSY, "--port", str(free_port()))
    try:
        assert process.stdout.readline().startswith("Hark is listening")
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, output, error) == (0, "", "")
