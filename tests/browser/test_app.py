"""End to end: `python app.py` with the shipped model, real speech, a real browser."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr import Recognizer
from asr.audio import SAMPLE_RATE, load_audio
from asr.bundle import available_bundles

expect = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright").expect
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def url():
    if not available_bundles():
        pytest.skip("no model is installed in asr/models")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield app.stdout.readline().split()[-1]
    finally:
        app.terminate()
        app.wait(timeout=20)


def test_real_speech_is_transcribed_without_requests_to_other_hosts(chromium, shared_data, url):
    with open(shared_data / "dev-read.jsonl", encoding="utf-8") as manifest:
        clip = json.loads(next(manifest))
    path = shared_data / clip["audio_filepath"]
    asked = []
    page = chromium.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.set_input_files("#sound input[type=file]", path)
    expect(page.locator(".saving")).to_be_visible()
    expect(page.locator(".picture")).to_be_visible()

    read = page.locator(".text .word").all_inner_texts()
    [bundle, *_] = available_bundles()
    assert " ".join(read) == Recognizer.load(str(bundle.directory)).transcribe(path).text
    spoken = Counter(clip["text"].split())
    assert (spoken & Counter(read)).total() >= spoken.total() / 3  # accuracy is measured by training.evaluate
    starts = [float(word.get_attribute("data-start")) for word in page.locator(".text .word").all()]
    assert starts == sorted(starts)
    assert starts[0] >= 0 and starts[-1] < clip["duration"]
    assert [address for address in asked if not address.startswith((url, "blob:", "data:"))] == []
    decoding = page.locator("#transcribe").get_by_label("Decoding")
    if bundle.has_language_model:  # its search finds several texts
        decoding.click()
        page.get_by_role("option", name="Words, with language model").click()
        page.get_by_role("button", name="Transcribe again").click()
        expect(page.locator(".alternatives li mark").first).to_be_visible()
        for option, offered in (("without language model", False), ("Sentences", True)):
            decoding.click()
            page.get_by_role("option", name=option).click()
            expect(page.get_by_label("Names and terms to expect")).to_be_visible(visible=offered)
    page.close()


# Notes when the first word is there, and when all of the text is.
STOPWATCH = """() => {
  const began = performance.now();
  window.seconds = {};
  const look = () => {
    if (!document.querySelector('.text .word')) return;
    const now = (performance.now() - began) / 1000;
    window.seconds.first ??= now;
    if (!document.querySelector('.saving').hidden) window.seconds.all ??= now;
  };
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
}"""


@pytest.mark.parametrize(("length", "what", "bound"), [(10, "all", 1.0), (3600, "first", 2.0)])
def test_text_is_there_soon(chromium, shared_data, url, tmp_path, length, what, bound):
    """The best of five: the first one loads what it needs."""
    if os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1") != "1":
        pytest.skip("needs two quiet cores: -n 0")
    with open(shared_data / "dev-read.jsonl", encoding="utf-8") as manifest:
        clips = [load_audio(shared_data / json.loads(line)["audio_filepath"]) for line in manifest]
    path = tmp_path / "recording.wav"
    soundfile.write(path, np.resize(np.concatenate(clips), length * SAMPLE_RATE), SAMPLE_RATE)
    taken = []
    for _ in range(5):
        page = chromium.new_page()
        page.goto(url)
        expect(page.locator("#sound input[type=file]")).to_be_attached()
        page.evaluate(STOPWATCH)
        page.set_input_files("#sound input[type=file]", path)
        page.wait_for_function(f"() => window.seconds.{what}")
        taken.append(page.evaluate(f"window.seconds.{what}"))
        page.close()
    print(f"{what} text of {length} s after", *(f"{seconds:.2f}" for seconds in taken), "s")
    assert min(taken) <= bound
