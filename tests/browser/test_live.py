"""Live text while one records: `python app.py`, the shipped model, real speech in Chromium's microphone."""

import json
import re
from collections import Counter

import numpy as np
import pytest
import soundfile

from asr.audio import SAMPLE_RATE, load_audio
from tests.browser.recordings import expect
from tests.browser.test_app import url  # noqa: F401 (a fixture)
from tests.conftest import CHROMIUM

PARTIAL, FINAL = ".text .partial", ".text .segment:not(.partial)"
PAUSE_SECONDS = 1.5
SHORT_SECONDS = (3.0, 6.0)  # of the clips that are taken
# Of the words: it is the text of these clips. On a busy machine the browser's microphone drops samples.
LEAST_FOUND = 0.4


@pytest.fixture(scope="module")
def spoken(shared_data):
    """Texts and sounds of two short clips."""
    with open(shared_data / "dev-read.jsonl", encoding="utf-8") as manifest:
        clips = [json.loads(line) for line in manifest]
    chosen = [clip for clip in clips if SHORT_SECONDS[0] < clip["duration"] < SHORT_SECONDS[1]][:2]
    return [clip["text"] for clip in chosen], [
        load_audio(shared_data / clip["audio_filepath"]) for clip in chosen
    ]


@pytest.fixture
def page(chromium, spoken, url, tmp_path):  # noqa: F811
    """A page with a microphone that says both clips, once."""
    pause = np.zeros(round(PAUSE_SECONDS * SAMPLE_RATE), np.float32)
    first, second = spoken[1]
    soundfile.write(tmp_path / "said.wav", np.concatenate([pause, first, pause, second, pause]), SAMPLE_RATE)
    browser = chromium.browser_type.launch(
        executable_path=CHROMIUM,
        args=[
            "--no-sandbox",
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={tmp_path / 'said.wav'}%noloop",
        ],
    )
    page = browser.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(url)
    yield page
    browser.close()


def record(page):
    page.get_by_role("button", name="Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()


def stop(page):
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator(".summary")).to_contain_text("s of audio")


def words(text):
    return Counter(re.findall(r"[a-z']+", text.lower()))


def found(page, text):
    """Which part of the words of a text the page shows."""
    shown = words(" ".join(page.locator(FINAL + " .line").all_inner_texts()))
    return (shown & words(text)).total() / words(text).total()


def test_words_appear_while_one_speaks_and_stop_gives_the_text_of_the_file(page, spoken):
    [first, second], _ = spoken
    record(page)
    expect(page.locator(PARTIAL + " .unstable")).not_to_be_empty()
    expect(page.locator(FINAL).first).to_be_visible()
    assert page.get_by_role("button", name="Stop", exact=True).is_visible()
    assert found(page, first) >= LEAST_FOUND
    expect(page.locator(".summary")).to_contain_text("live text")
    expect(page.locator(PARTIAL)).to_be_visible()  # of the second
    expect(page.locator(PARTIAL)).to_have_count(0)
    stop(page)
    assert found(page, f"{first} {second}") >= LEAST_FOUND
    expect(page.locator(".picture")).to_be_visible()
    expect(page.locator("[data-do=undo]")).to_be_enabled()  # the live text
    assert "live text" not in page.locator(".summary").inner_text()


def test_nothing_is_lost_when_the_connection_is_for_five_seconds(page, spoken):
    [first, second], _ = spoken
    sockets, refused = [], []

    def through(socket):
        if refused and refused[0]:
            socket.close()
            return
        sockets.append(socket)
        socket.connect_to_server()

    page.route_web_socket("**/live", through)
    record(page)
    expect(page.locator(PARTIAL)).to_be_visible()  # the first words
    refused.append(True)
    sockets[0].close()
    page.wait_for_timeout(5000)
    refused[0] = False
    expect(page.locator(FINAL).first).to_be_visible()
    page.wait_for_function("() => document.querySelectorAll('.text .segment:not(.partial)').length >= 2")
    assert len(sockets) == 2
    assert found(page, first) >= LEAST_FOUND  # most of it was said without a connection
    stop(page)
    assert found(page, f"{first} {second}") >= LEAST_FOUND


def test_live_text_outlives_the_page(page, spoken):
    record(page)
    expect(page.locator(FINAL).first).to_be_visible()
    said = page.locator(FINAL).first.text_content()
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    expect(page.locator(FINAL).first).to_have_text(said)
    expect(page.locator(".summary")).to_contain_text("Stopped after")
