"""The page in a real browser, with a recogniser that needs no model."""

from pathlib import Path

import av
import numpy as np
import pytest

from asr.audio import SAMPLE_RATE
from tests.browser.recordings import PLAYER, expect, noise, transcribe, upload, write
from tests.loudness_recognizer import SPOKEN

LINE = " ".join(SPOKEN)


def test_an_upload_shows_its_text_without_requests_to_other_hosts(chromium, url, recording):
    page = chromium.new_page()
    asked = set()
    page.on("request", lambda request: asked.add(request.url))
    page.goto(url)
    transcribe(page, recording)
    expect(page.locator(".text .segment > span")).to_have_text([LINE] * 3)
    expect(page.locator(".summary")).to_contain_text("6.0 s of audio, 15 words")
    expect(page.locator(".picture")).to_be_visible()
    page.close()
    assert [address for address in asked if not address.startswith((url, "blob:", "data:"))] == []


def test_uncertain_words_are_marked_by_more_than_colour(page, recording):
    transcribe(page, recording)
    doubtful = page.locator(".text .doubtful")
    sure = page.locator(".text .word:not(.doubtful)").first
    assert "wavy" in doubtful.first.evaluate("word => getComputedStyle(word).textDecoration")
    assert "none" in sure.evaluate("word => getComputedStyle(word).textDecoration")
    assert doubtful.first.get_attribute("title") == "1.60–1.92 s · 30 % likely"


def test_a_clicked_word_is_played_and_its_segment_drawn(page, tmp_path):
    transcribe(page, write(tmp_path / "noise.wav", noise(30)))
    expect(page.locator(".picture figcaption")).to_contain_text("0.0–2.1 s")
    page.locator(".text .word").nth(12).click()  # "brown" of the third utterance
    page.wait_for_function(f"() => ({PLAYER})().seconds > 4.8 && !({PLAYER})().paused")
    expect(page.locator(".text .said")).to_be_visible()
    expect(page.locator(".picture figcaption")).to_contain_text("3.8–6.1 s")


def test_of_two_clicks_the_last_is_drawn_though_the_first_comes_back_later(page, recording):
    transcribe(page, recording)
    expect(page.locator(".picture figcaption")).to_contain_text("0.0–2.1 s")
    held = []
    page.route("**/component_server**", lambda route: held.append(route), times=1)
    page.locator(".text .word").nth(7).click()
    page.locator(".text .word").nth(12).click()
    expect(page.locator(".picture figcaption")).to_contain_text("3.8–6.0 s")
    with page.expect_response("**/component_server**"):
        held[0].continue_()
    page.wait_for_timeout(200)
    expect(page.locator(".picture figcaption")).to_contain_text("3.8–6.0 s")


def test_keyboard_moves_through_the_text_and_plays_it(page, recording):
    transcribe(page, recording)
    page.locator(".text").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "quick"
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.dataset.start") == "5.60"
    page.keyboard.press("Enter")
    page.wait_for_function(f"() => ({PLAYER})().seconds >= 5.6")


def test_captions_are_in_the_player(page, recording):
    transcribe(page, recording)
    page.locator(".text .word").nth(5).click()
    expect(page.locator(".subtitle-display")).to_have_text(LINE)


@pytest.mark.parametrize(
    ("suffix", "beginning"),
    [
        ("txt", LINE.encode()),
        ("srt", b"1\n00:00:00,000 -->"),
        ("vtt", b"WEBVTT\n"),
        ("tsv", b"start\tend"),
        ("json", b'{\n  "task"'),
        ("docx", b"PK"),
    ],
)
def test_the_transcript_is_saved(page, recording, suffix, beginning):
    transcribe(page, recording)
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Save noise.{suffix}").click()
    assert download.value.suggested_filename == f"noise.{suffix}"
    assert Path(download.value.path()).read_bytes().startswith(beginning)


def test_partial_text_appears_and_stop_keeps_it(page, recognizer, tmp_path):
    recognizer.pause_seconds = 0.5
    long = write(tmp_path / "long.wav", noise(60))
    upload(page, long)
    expect(page.locator(".text .segment").nth(1)).to_be_visible()
    expect(page.locator("#status .progress")).to_contain_text("of 1:00 done")
    expect(page.locator("#status .progress")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".summary")).to_contain_text("Stopped after")
    expect(page.get_by_role("button", name="Save long.srt")).to_be_visible()
    page.wait_for_timeout(1000)  # the current utterance is finished
    finished = recognizer.utterances
    page.wait_for_timeout(1500)
    assert recognizer.utterances == finished
    expect(page.get_by_role("button", name="Transcribe again")).to_be_visible()


def test_closing_the_page_ends_transcription(chromium, url, recognizer, tmp_path):
    recognizer.pause_seconds = 0.5
    page = chromium.new_page()
    page.goto(url)
    upload(page, write(tmp_path / "long.wav", noise(60)))
    expect(page.locator(".text .segment").first).to_be_visible()
    page.close()
    other = chromium.new_page()
    other.wait_for_timeout(2000)
    finished = recognizer.utterances
    other.wait_for_timeout(1500)
    other.close()
    assert recognizer.utterances == finished


def test_a_short_recording_does_not_wait_behind_a_long_one(
    chromium, url, page, recognizer, recording, tmp_path
):
    recognizer.pause_seconds = 0.5
    upload(page, write(tmp_path / "long.wav", noise(120)))
    status = page.locator("#status")
    expect(status).to_contain_text("left")
    others = [chromium.new_page() for _ in range(2)]
    for other in others:
        other.goto(url)
        upload(other, recording)
    expect(status).to_contain_text("in turns with")
    for other in others:
        expect(other.locator(".summary")).to_contain_text("6.0 s of audio, 15 words")
        other.close()
    expect(status).to_contain_text("of 2:00 done")
    page.get_by_role("button", name="Stop").click()


def test_the_sound_of_a_dropped_video_is_transcribed(page, tmp_path):
    video = tmp_path / "talk.webm"
    with av.open(video, "w") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="mono")
        samples = np.random.default_rng(1).uniform(-0.5, 0.5, (1, 96_000)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
        frame.sample_rate = 48_000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    page.locator("#sound").evaluate(
        """(box, bytes) => {
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([new Uint8Array(bytes)], 'talk.webm', { type: 'video/webm' }));
          box.querySelector('button').dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true }));
        }""",
        list(video.read_bytes()),
    )
    expect(page.locator(".text .segment").first).to_contain_text(LINE)


def test_silence_has_no_words(page, tmp_path):
    upload(page, write(tmp_path / "silence.wav", np.zeros(3 * SAMPLE_RATE)))
    expect(page.locator("#status .notice")).to_contain_text("No speech found in 3.0 s")


def test_a_bad_file_is_refused_by_name_and_the_next_one_works(page, tmp_path, recording):
    letter = tmp_path / "letter.wav"
    letter.write_text("Dear Sir or Madam")
    upload(page, letter)
    expect(page.locator(".notice.error")).to_contain_text("letter.wav")
    assert "uploads" not in page.locator(".notice.error").inner_text()
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator(".notice.error")).to_have_count(0)
    transcribe(page, recording)


def test_the_microphone_is_transcribed_when_it_stops(page):
    page.get_by_role("button", name="Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(2500)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".text .segment").first).to_contain_text(LINE)


def test_an_upload_is_deleted_when_it_is_cleared_and_when_the_page_closes(chromium, url, uploads, tmp_path):
    def stored():
        return {path.name for path in uploads.rglob("*") if path.is_file()}

    samples = noise(2)
    page = chromium.new_page()
    page.goto(url)
    transcribe(page, write(tmp_path / "cleared.wav", samples))
    assert "cleared.wav" in stored()
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator(".text .word")).to_have_count(0)
    assert "cleared.wav" not in stored()

    transcribe(page, write(tmp_path / "closed.wav", samples / 2))
    assert "closed.wav" in stored()
    page.close()
    other = chromium.new_page()
    for _ in range(50):
        if "closed.wav" not in stored():
            break
        other.wait_for_timeout(200)
    other.close()
    assert "closed.wav" not in stored()


def test_over_plain_http_the_page_explains_the_missing_microphone(chromium, url, insecure_host):
    page = chromium.new_page()
    page.goto(url)
    expect(page.locator("#sound")).to_be_visible()
    expect(page.locator(".insecure")).to_be_hidden()
    page.goto(url.replace("127.0.0.1", insecure_host))
    expect(page.locator(".insecure")).to_contain_text("only over https or on localhost")
    page.close()


def test_a_phone_needs_no_sideways_scrolling(chromium, url, recording):
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    page.goto(url)
    transcribe(page, recording)
    expect(page.locator(".picture")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marked_words_have_enough_contrast_in_light_and_dark(chromium, url, recording, scheme):
    page = chromium.new_page(color_scheme=scheme)
    page.goto(url)
    transcribe(page, recording)
    background = _luminance(page.locator(".text").evaluate("box => getComputedStyle(box).backgroundColor"))
    assert background > 0.8 if scheme == "light" else background < 0.05
    for words in (".doubtful", ".word:not(.doubtful)"):
        foreground = _luminance(
            page.locator(f".text {words}").first.evaluate("word => getComputedStyle(word).color")
        )
        contrast = (max(foreground, background) + 0.05) / (min(foreground, background) + 0.05)
        assert contrast >= 4.5, words  # WCAG 2.2, level AA
    page.close()


def _luminance(css: str) -> float:
    """Relative luminance (WCAG) of "rgb(r, g, b)"."""
    channels = np.array([float(part) for part in css.split("(")[1].rstrip(")").split(",")[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
