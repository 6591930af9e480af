"""The picture of a video follows its sound, with the text as captions."""

import av
import numpy as np
import pytest

from tests.browser.recordings import expect, noise, transcribe, write
from tests.loudness_recognizer import SPOKEN

FRAMES_PER_SECOND = 10
CUES = "film => [...film.textTracks[0].cues ?? []].map((cue) => [cue.startTime, cue.text])"


@pytest.fixture
def video(tmp_path):
    """6 s of noise in sound and picture."""
    path = tmp_path / "talk.webm"
    with av.open(path, "w") as container:
        picture = container.add_stream("libvpx", rate=FRAMES_PER_SECOND)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("libopus", rate=48_000, layout="mono")
        random = np.random.default_rng(0)
        for _ in range(6 * FRAMES_PER_SECOND):
            pixels = random.integers(0, 255, (48, 64, 3), np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        frame = av.AudioFrame.from_ndarray(
            np.repeat(noise(6), 3)[None].astype("f"), format="flt", layout="mono"
        )
        frame.sample_rate = 48_000
        container.mux([*sound.encode(frame), *sound.encode(None), *picture.encode(None)])
    return path


def test_the_picture_of_a_video_follows_its_sound_with_captions(page, video, tmp_path):
    transcribe(page, video)
    film = page.locator(".film")
    expect(film).to_be_visible()
    page.wait_for_function(f"() => ({CUES})(document.querySelector('.film')).length === 3")
    assert film.evaluate(CUES)[0] == [0, " ".join(SPOKEN)]
    page.locator(".text .word").nth(12).click()  # at 4.8 s
    page.wait_for_function("() => document.querySelector('.film').currentTime > 4.9")
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.querySelector('.film').paused")
    page.locator(".text .word").nth(1).dblclick()
    page.keyboard.type("slow")
    page.keyboard.press("Enter")
    page.wait_for_function(f"() => ({CUES})(document.querySelector('.film'))[0]?.[1].startsWith('the slow')")

    page.locator("#sound").get_by_role("button", name="Upload file").click()
    expect(film).to_be_hidden()
    transcribe(page, write(tmp_path / "noise.wav", noise(2)))
    expect(film).to_be_hidden()
    page.get_by_role("button", name="Bring back talk.webm").click()
    expect(film).to_be_visible()
