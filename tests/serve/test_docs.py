"""The lines of docs/serving.md work as written."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.asr.conftest import speak  # noqa: F401 (a fixture)
from tests.serve.serving import served
from tests.serve.test_openai import flac

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "serving.md").read_text(encoding="utf-8")
URL = "http://127.0.0.1:7860"
[COMMANDS] = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
CLIENT = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[0]
LIVE_CLIENT = re.findall(
    r"```python\n(.*?)```", (DOCS / "streaming.md").read_text(encoding="utf-8"), re.DOTALL
)[1]


@pytest.fixture(scope="module")
def url(recognizer):
    with served({"english": recognizer}) as url:
        yield url


@pytest.fixture(autouse=True)
def meeting(speak, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    Path("meeting.m4a").write_bytes(flac(speak("hold on", 2.5, "i am coming")))


@pytest.mark.parametrize("line", COMMANDS.splitlines())
def test_curl(url, line):
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    ended = subprocess.run(["bash", "-c", line.replace(URL, url)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0
    if "/v1/models" in line:
        assert json.loads(ended.stdout)["data"][0]["id"] == "english"
    else:
        assert "hold" in ended.stdout and "coming" in ended.stdout


def run(client: str, url: str) -> str:
    command = [sys.executable, "-c", client.replace(URL, url)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.stderr == ""
    return ended.stdout


def test_the_client(url):
    assert run(CLIENT, url) == "hold on i am coming"


def test_the_live_client(url):
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    deltas, text = run(LIVE_CLIENT, url).splitlines()
    assert deltas.startswith("hold on") and text == "= hold on i am coming"


def test_every_setting_is_described():
    from asr.serve.settings import Settings

    for name in Settings.__dataclass_fields__:
        assert f"`HARK_{name.upper()}`" in TEXT


def test_every_metric_is_described(url):
    import httpx

    text = httpx.get(f"{url}/metrics", trust_env=False).text
    for name in re.findall(r"^# TYPE (hark_\w+) (?:counter|gauge|histogram)$", text, re.MULTILINE):
        if not name.endswith("_created"):
            assert f"`{name}" in TEXT, name
