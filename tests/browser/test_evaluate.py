"""The tab "Evaluate" in a real browser, on a recogniser that needs no model and on the shipped one."""

import json
import zipfile

import numpy as np
import pytest

from asr.audio import SAMPLE_RATE
from asr.turns import Turns
from asr.web.page import build_page, serving_options
from tests.browser.recordings import PLAYER, expect, noise, transcribe, write
from tests.loudness_recognizer import SPOKEN, LoudnessRecognizer
from training.evaluate_tab import evaluate_tab

LINE = " ".join(SPOKEN)
FILES = "#evaluate input[type=file] >> nth=0"
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def recognizer():
    return LoudnessRecognizer(has_language_model=True)


@pytest.fixture(scope="module")
def url(recognizer, uploads):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(uploads))
        patch.setenv("NO_PROXY", "127.0.0.1")
        page = build_page({"tiny": recognizer}, Turns(1), {"Evaluate": evaluate_tab})
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **serving_options())
        yield url
        page.close(verbose=False)


def opened(chromium, url, size):
    page = chromium.new_page(viewport=size)
    page.goto(url)
    page.get_by_role("tab", name="Evaluate").click()
    return page


@pytest.fixture
def page(chromium, url, recognizer):
    recognizer.pause_seconds = 0.0
    page = opened(chromium, url, DESKTOP)
    yield page
    page.close()


def evaluate(page, files, text=""):
    page.set_input_files(FILES, files)
    expect(page.locator("#evaluate .file-preview")).to_be_visible()
    if text:
        page.get_by_label("Reference").fill(text)
    page.get_by_role("button", name="Evaluate").click()


def report(page):
    """The frame, when it has come."""
    expect(page.locator(".report")).to_be_visible()
    return page.frame_locator(".report iframe")


def stored(uploads):
    return {path.name for path in uploads.rglob("*") if path.is_file() and path.stat().st_size}


@pytest.fixture
def corpus(tmp_path):
    """A manifest of two recordings; names and texts that are markup."""
    rows = []
    for number in range(2):
        name = f"<img src=x onerror=alert({number})>.wav" if number else "plain.wav"
        write(tmp_path / name, noise(2 + 2 * number))
        text = LINE if number else f"{LINE} <script>alert(1)</script>"
        rows.append({"audio_filepath": f"../../etc/{name}", "text": text, "duration": 2 + 2 * number})
    manifest = tmp_path / "mine.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sorted(tmp_path.iterdir())


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_two_decoders_are_compared_on_one_recording(chromium, url, recording, size):
    page = opened(chromium, url, size)
    page.get_by_label("Compare with").click()
    page.get_by_role("option", name="Words, without language model").click()
    evaluate(page, recording, f"The quick red fox's den. {LINE} {LINE} indeed")
    shown = report(page)
    expect(page.get_by_text("tiny beam: WER 10.53 %; tiny greedy: WER 10.53 % of 19 words")).to_be_visible()
    expect(shown.locator(".figure").first).to_contain_text("10.53")
    expect(shown.locator(".card").first).to_contain_text("no interval")
    expect(shown.locator(".card").first).to_contain_text("real-time factor")
    expect(shown.locator(".card")).to_have_count(2)
    expect(shown.locator("#differences .strong").first).to_have_text("0.00")
    expect(shown.locator("#rows .line").first.locator("del")).to_have_text(["red", "indeed"])
    expect(shown.locator("#rows .line").first.locator("ins")).to_have_text(["brown"])
    expect(shown.locator("#confusions")).to_contain_text("red → brown")
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    frame = page.frames[-1]
    assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # It is the page that scrolls. Chromium lays out what is seen.
    page.locator(".report iframe").scroll_into_view_if_needed()
    frame.wait_for_function("document.documentElement.scrollHeight <= innerHeight && innerHeight < 10_000")
    page.close()


def test_a_dropped_text_is_the_reference_and_is_not_kept(page, recording, tmp_path, uploads):
    captions = tmp_path / "said.srt"
    captions.write_text(
        f"1\n00:00:00,000 --> 00:00:02,000\n<i>{LINE}</i>\n\n2\n00:00:02,000 --> 00:00:06,000\nhello\n"
    )
    page.set_input_files(FILES, [recording, captions])
    expect(page.get_by_label("Reference")).to_have_value(f"{LINE}\nhello")
    assert stored(uploads) == {"noise.wav"}
    (tmp_path / "other.txt").write_text("other words")
    page.set_input_files("#evaluate input[type=file] >> nth=-1", tmp_path / "other.txt")
    expect(page.get_by_label("Reference")).to_have_value("other words")
    assert stored(uploads) == {"noise.wav"}


def test_a_manifest_gives_a_report_that_is_saved_and_its_files_are_deleted(page, corpus, tmp_path, uploads):
    before = stored(uploads)
    evaluate(page, corpus)
    rows = report(page).locator("#rows tr")
    expect(rows).to_have_count(2)
    expect(
        page.get_by_text("of 13 words (normaliser english). The uploaded files are deleted.")
    ).to_be_visible()
    assert stored(uploads) <= before
    with page.expect_download() as download:
        page.get_by_role("link", name="Save this report").click()
    saved = download.value.path().read_text(encoding="utf-8")
    assert saved.startswith("<!doctype html>") and str(uploads) not in saved


def test_hostile_names_and_texts_run_nothing_and_the_frame_cannot_reach_the_page(page, corpus, tmp_path):
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    archive = tmp_path / "corpus.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in corpus:
            file.write(path, f"../{path.name}")
    evaluate(page, archive)
    rows = report(page).locator("#rows tr")
    expect(rows.filter(has_text="<img src=x onerror=alert(1)>")).to_have_count(1)
    frame = page.frames[-1]
    assert frame.evaluate(
        "() => { try { return parent.document.title } catch (error) { return error.name } }"
    ) == ("SecurityError")
    assert frame.locator("img").count() == 0
    assert dialogs == []


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("nothing", "hello", "no recording"),
        ("sound", "", "no reference: paste what is said in noise.wav"),
        ("sound", " ... !", "no reference: paste what is said in noise.wav"),
        ("letter", "hello", "letter.wav"),
        ("several", "hello", "2 files, and no manifest"),
        ("missing", "", "mine.jsonl names gone.wav, which was not uploaded"),
        ("row", "", "mine.jsonl:2: not JSON"),
        ("zip", "", "broken.zip: cannot be unpacked"),
    ],
)
def test_bad_input_is_one_line(page, recording, tmp_path, uploads, kind, text, message):
    letter, manifest, broken = tmp_path / "letter.wav", tmp_path / "mine.jsonl", tmp_path / "broken.zip"
    letter.write_text("Dear Sir or Madam")
    broken.write_bytes(b"PK\3\4 no more")
    row = json.dumps({"audio_filepath": "gone.wav", "text": "hello", "duration": 1}) + "\n"
    manifest.write_text(row if kind == "missing" else f"{row}{{\n")
    files = {
        "nothing": None,
        "sound": recording,
        "letter": letter,
        "several": [recording, letter],
        "missing": [recording, manifest],
        "row": [recording, manifest],
        "zip": broken,
    }[kind]
    if files is None:
        page.get_by_role("button", name="Evaluate").click()
    else:
        evaluate(page, files, text)
    error = page.locator("#evaluate .notice.error")
    expect(error).to_contain_text(message)
    assert str(uploads) not in error.inner_text() and "\n" not in error.inner_text()
    expect(page.get_by_role("button", name="Evaluate")).to_be_visible()


def test_it_shows_progress_takes_turns_and_can_be_stopped(
    chromium, url, page, recognizer, recording, tmp_path
):
    recognizer.pause_seconds = 0.3
    evaluate(page, write(tmp_path / "long.wav", noise(60)), "hello")
    expect(page.locator("#evaluate .progress")).to_contain_text("of 1:00 done")
    other = opened(chromium, url, DESKTOP)
    evaluate(other, recording, LINE)
    report(other)
    other.close()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Evaluate")).to_be_visible()
    expect(page.locator(".report")).to_be_hidden()
    page.wait_for_timeout(1000)
    finished = recognizer.utterances
    page.wait_for_timeout(1000)
    assert recognizer.utterances == finished


def test_closing_the_page_deletes_the_files(chromium, url, uploads, tmp_path):
    page = opened(chromium, url, DESKTOP)
    page.set_input_files(FILES, write(tmp_path / "closed.wav", noise(2)))
    expect(page.locator("#evaluate .file-preview")).to_contain_text("closed")
    page.wait_for_timeout(500)
    assert "closed.wav" in stored(uploads)
    page.close()
    other = chromium.new_page()
    for _ in range(50):
        if "closed.wav" not in stored(uploads):
            break
        other.wait_for_timeout(200)
    other.close()
    assert "closed.wav" not in stored(uploads)


def test_a_part_of_a_recording_and_silence_can_be_evaluated(page, tmp_path):
    sound = np.concatenate([noise(2), np.zeros(2 * SAMPLE_RATE)])
    write(tmp_path / "half.wav", sound)
    rows = [{"text": LINE, "duration": 2}, {"text": "", "duration": 2, "offset": 2}]
    manifest = tmp_path / "mine.jsonl"
    manifest.write_text("".join(json.dumps({"audio_filepath": "half.wav", **row}) + "\n" for row in rows))
    evaluate(page, [manifest, tmp_path / "half.wav"])
    expect(report(page).locator(".figure")).to_contain_text("0.00")
    expect(
        report(page).locator("#rows tr").filter(has_text="nothing said, nothing recognised")
    ).to_have_count(1)


def test_keys_of_the_tab_transcribe_rest_while_it_is_not_shown(chromium, url, recording):
    page = chromium.new_page()
    page.goto(url)
    transcribe(page, recording)
    page.get_by_role("tab", name="Evaluate").click()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    page.wait_for_timeout(300)
    assert page.evaluate(PLAYER)["paused"]
    page.get_by_role("tab", name="Transcribe").click()
    expect(page.locator(".text .segment")).to_have_count(3)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    page.wait_for_function(f"() => !({PLAYER})().paused")
    page.close()
