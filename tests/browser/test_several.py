"""Several files: a list with progress, all texts in one zip file, and a broken one harms no other."""

import zipfile

import pytest

from tests.browser.recordings import expect, noise, write
from tests.browser.test_keeping import SEGMENTS, drop
from tests.loudness_recognizer import SPOKEN

LINE = " ".join(SPOKEN)
ITEMS = ".several li"


@pytest.fixture
def folder(tmp_path):
    """Two recordings, one in a folder below, and what is none."""
    folder = tmp_path / "calls"
    (folder / "later").mkdir(parents=True)
    write(folder / "first.wav", noise(6))
    write(folder / "later" / "second.flac", noise(2))
    (folder / "notes.txt").write_text("not sound")
    return folder


def test_each_file_of_several_is_transcribed_and_a_broken_one_is_named(page, uploads, tmp_path):
    names = ("first.wav", "broken.wav", "second.wav")
    for name in ("first.wav", "second.wav"):
        write(tmp_path / name, noise(6 if name == "first.wav" else 2))
    (tmp_path / "broken.wav").write_bytes(b"no sound at all")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Click to Upload").or_(
            page.locator("#sound button").first
        ).first.click()
    chooser.value.set_files([tmp_path / name for name in names])
    expect(page.locator(".several .total")).to_have_text("2 of 3 done, 1 failed")
    expect(page.locator(ITEMS).nth(0)).to_contain_text("first.wav6.0 s of audio, 15 words")
    expect(page.locator(ITEMS).nth(1)).to_contain_text("broken.wav")
    expect(page.locator(ITEMS).nth(1)).to_have_class("failed")
    expect(page.locator(ITEMS).nth(2)).to_contain_text("second.wav2.0 s of audio, 5 words")

    with page.expect_download() as download:
        page.locator("[data-zip=srt]").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.namelist() == ["first.srt", "second.srt"]
        assert archive.read("second.srt").startswith(b"1\n00:00:00,000 -->")

    page.get_by_role("button", name="Open first.wav").click()
    expect(page.locator(SEGMENTS)).to_have_text([LINE] * 3)
    page.get_by_role("button", name="Close the list").click()
    expect(page.locator(".several")).to_be_hidden()
    expect(page.get_by_role("button", name="Bring back second.wav")).to_be_visible()


def test_what_is_left_of_several_is_stopped(page, recognizer, uploads):
    before = set(uploads.rglob("*.wav"))
    recognizer.pause_seconds = 0.5
    sound = noise(20)
    path = write(uploads / "long.wav", sound)
    content = path.read_bytes()
    path.unlink()
    drop(page, ("a.wav", content), ("b.wav", content))
    expect(page.locator(ITEMS).nth(0)).to_contain_text("of 0:20 ·")
    expect(page.locator(ITEMS).nth(0)).to_contain_text("left")
    page.get_by_role("button", name="Stop all").click()
    expect(page.locator(ITEMS).nth(0)).to_contain_text("stopped")
    expect(page.locator(ITEMS).nth(1)).to_contain_text("stopped")
    expect(page.locator(".several .save")).to_be_hidden()
    assert set(uploads.rglob("*.wav")) == before


def test_of_a_dropped_folder_the_sounds_are_taken(page, folder):
    box = page.locator("#sound").bounding_box()
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
        place = {"x": box["x"] + 40, "y": box["y"] + 40}
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})
    expect(page.locator(".several .total")).to_have_text("2 of 2 done")
    expect(page.locator(ITEMS + " .name")).to_have_text(["first.wav", "second.flac"])
