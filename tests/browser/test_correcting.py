"""Correcting the text in the page: times, undo, files, marks, keys."""

import json
import re
from pathlib import Path

import pytest

from tests.browser.recordings import PLAYER, expect, transcribe
from tests.loudness_recognizer import SPOKEN

LINE = " ".join(SPOKEN)
LINES = ".text .segment .line"


@pytest.fixture
def text(page, recording):
    """The page with a text of three lines, SPOKEN; its words are 0.4 s apart, and 0.32 s long."""
    transcribe(page, recording)
    return page


def correct(page, word, typed):
    page.locator(".text .word").nth(word).dblclick()
    page.keyboard.type(typed)
    page.keyboard.press("Enter")


def saved(page, suffix):
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Save noise.{suffix}").click()
    return download.value.path().read_text(encoding="utf-8")


def test_a_corrected_word_is_sure_and_the_others_keep_their_times(text):
    before = json.loads(saved(text, "json"))["words"]
    correct(text, 4, "dens and more")  # was doubtful
    expect(text.locator(LINES).first).to_have_text("the quick brown fox's dens and more")
    expect(text.locator(".summary")).to_contain_text("17 words · tiny · ")
    expect(text.locator(".summary")).to_contain_text("3 corrected")
    # The recogniser of these tests aligns evenly from 0.2 s before the segment to 0.2 s after it.
    third = 2.12 / 7
    expect(text.locator(".text .word").nth(6)).to_have_attribute("data-start", f"{6 * third:.2f}")
    after = json.loads(saved(text, "json"))["words"]
    assert after[:4] == before[:4]
    assert after[7:] == before[5:]
    assert [word["word"] for word in after[4:7]] == ["dens", "and", "more"]
    assert [word["confidence"] for word in after[4:7]] == [1, 1, 1]
    starts = [word["start"] for word in after]
    assert starts == sorted(starts)
    assert text.locator(".text .word").nth(5).get_attribute("title").endswith("corrected")


def test_files_and_copy_have_the_corrected_text(text):
    text.context.grant_permissions(["clipboard-read", "clipboard-write"])
    correct(text, 1, "<slow>")
    corrected = LINE.replace("quick", "<slow>")
    assert saved(text, "txt").splitlines() == [corrected, LINE, LINE]
    assert corrected in saved(text, "srt").replace("\n", " ")
    assert "&lt;slow&gt;" in saved(text, "vtt")
    text.get_by_role("button", name="Copy text").click()
    expect(text.get_by_role("button", name="Copied")).to_be_visible()
    assert text.evaluate("navigator.clipboard.readText()").splitlines() == [corrected, LINE, LINE]
    text.locator(".text .word").first.click()
    expect(text.locator(".subtitle-display")).to_have_text(corrected)


def test_a_correction_is_undone_and_done_again(text):
    correct(text, 1, "slow")
    correct(text, 7, "red")
    first, second = text.locator(LINES).nth(0), text.locator(LINES).nth(1)
    expect(second).to_have_text(LINE.replace("brown", "red"))
    text.get_by_role("button", name="Undo").click()
    expect(second).to_have_text(LINE)
    expect(first).to_have_text(LINE.replace("quick", "slow"))
    text.locator(".text").focus()
    text.keyboard.press("Control+z")
    expect(first).to_have_text(LINE)
    expect(text.get_by_role("button", name="Undo")).to_be_disabled()
    text.keyboard.press("Control+Shift+z")
    expect(first).to_have_text(LINE.replace("quick", "slow"))
    text.get_by_role("button", name="Redo").click()
    expect(second).to_have_text(LINE.replace("brown", "red"))
    expect(text.get_by_role("button", name="Redo")).to_be_disabled()


def test_a_line_without_words_goes_and_all_can_be_undone(text):
    for _ in range(3):
        text.locator(".text .word").first.dblclick()
        text.keyboard.press("Control+a")
        text.keyboard.press("Delete")
        text.keyboard.press("Enter")
    expect(text.locator(LINES)).to_have_count(0)
    text.get_by_role("button", name="Undo").click()
    expect(text.locator(LINES)).to_have_text([LINE])


def test_a_correction_without_change_is_none(text):
    text.locator(".text .word").nth(1).dblclick()
    text.keyboard.press("Escape")
    expect(text.get_by_role("button", name="Undo")).to_be_disabled()
    expect(text.locator(".text .word")).to_have_count(15)


def test_what_is_pasted_is_plain_text(text):
    text.context.grant_permissions(["clipboard-read", "clipboard-write"])
    text.evaluate(
        """() => navigator.clipboard.write([new ClipboardItem({
          'text/html': new Blob(['<b onclick=x>bold</b>'], { type: 'text/html' }),
          'text/plain': new Blob(['bold'], { type: 'text/plain' }),
        })])"""
    )
    text.locator(".text .word").nth(1).dblclick()
    text.keyboard.press("Control+v")
    assert text.locator(".text .line b").count() == 0
    text.keyboard.press("Enter")
    expect(text.locator(LINES).first).to_have_text(LINE.replace("quick", "bold"))


def test_captions_do_not_move_the_text(text):
    word = text.locator(".text .word").nth(7)
    before = word.bounding_box()
    word.click()
    expect(text.locator(".subtitle-display")).to_have_text(LINE)
    assert word.bounding_box() == before


def test_a_click_elsewhere_ends_a_correction(text):
    text.locator(".text .word").nth(1).dblclick()
    text.keyboard.type("slow")
    text.locator(".text .word").nth(12).click()
    expect(text.locator(LINES).first).to_have_text(LINE.replace("quick", "slow"))
    text.wait_for_function(f"() => ({PLAYER})().seconds > 4.8")


def test_keys_play_walk_correct_and_explain(text):
    expect(text.locator(".text")).to_be_focused()
    text.keyboard.press("Space")
    text.wait_for_function(f"() => ({PLAYER})().seconds > 0.1")
    text.keyboard.press("Space")
    text.wait_for_function(f"() => ({PLAYER})().paused")
    text.keyboard.press("Space")
    text.wait_for_function(f"() => !({PLAYER})().paused")
    text.keyboard.press("Escape")
    text.wait_for_function(f"() => ({PLAYER})().paused")
    text.keyboard.press("ArrowRight")
    text.keyboard.press("ArrowRight")
    text.keyboard.press("e")
    text.keyboard.type("very slow")
    text.keyboard.press("Enter")
    expect(text.locator(LINES).first).to_have_text(LINE.replace("quick", "very slow"))
    text.keyboard.press("ArrowRight")
    assert text.evaluate("document.activeElement.textContent") == "slow"
    text.keyboard.press("?")
    expect(text.get_by_role("dialog")).to_contain_text("next doubtful word")
    text.keyboard.press("Escape")
    expect(text.get_by_role("dialog")).to_be_hidden()


def test_n_walks_through_the_doubtful_words_and_plays_each(text):
    doubtful = text.locator(".text .doubtful")
    expect(doubtful).to_have_text(["den"] * 3)  # 15 % of the words
    for start in (1.6, 3.6, 5.6, 1.6):
        text.keyboard.press("n")
        assert text.evaluate("document.activeElement.dataset.start") == f"{start:.2f}"
        text.wait_for_function(f"() => ({PLAYER})().paused && ({PLAYER})().seconds >= {start + 0.3}")
    text.keyboard.press("Shift+N")
    assert text.evaluate("document.activeElement.dataset.start") == "5.60"
    correct(text, 4, "dens")
    expect(doubtful).to_have_count(2)


def test_marks_have_a_threshold_and_an_off_switch(text):
    doubtful = text.locator(".text .doubtful")
    text.get_by_label("Mark words less likely than, in percent").fill("94")
    expect(doubtful).to_have_count(9)  # 0.7, 0.93 and 0.3 of each line
    expect(text.locator(".legend output")).to_have_text("94 %: 9 of 15")
    text.get_by_label("Mark words less likely than", exact=True).uncheck()
    expect(doubtful).to_have_count(0)
    expect(text.get_by_role("button", name="Next doubtful")).to_be_disabled()


def test_find_and_replace(text):
    text.get_by_role("button", name="Replace", exact=True).click()
    text.get_by_label("Text to find").fill("quick brown")
    text.get_by_label("Text in its place").fill("red")
    text.get_by_role("button", name="Replace all").click()
    expect(text.locator(LINES)).to_have_text([LINE.replace("quick brown", "red")] * 3)
    expect(text.locator(".replacing output")).to_have_text("3 replaced")
    text.get_by_role("button", name="Undo").click()
    expect(text.locator(LINES)).to_have_text([LINE] * 3)


def test_transcribing_again_keeps_the_text_until_there_is_another_and_can_be_undone(
    chromium, searching_url, recording
):
    page = chromium.new_page()
    page.goto(searching_url)
    transcribe(page, recording)
    correct(page, 1, "slow")
    page.get_by_label("Names and terms").fill("Quillan")
    expect(page.locator(".notes")).to_contain_text("The options have changed")
    page.evaluate(
        """() => {
          window.least = Infinity;
          const count = () => document.querySelectorAll('.text .word').length;
          new MutationObserver(() => (least = Math.min(least, count()))).observe(
            document.querySelector('.text'), { childList: true, subtree: true });
        }"""
    )
    page.get_by_role("button", name="Transcribe again").click()
    expect(page.locator(".summary")).to_contain_text("expecting Quillan")
    expect(page.locator(LINES)).to_have_text([LINE] * 3)
    expect(page.locator(".notes")).to_have_text("")
    assert page.evaluate("least") >= 10
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(LINES).first).to_have_text(LINE.replace("quick", "slow"))
    expect(page.locator(".summary")).not_to_contain_text("Quillan")
    expect(page.locator(".notes")).to_contain_text("The options have changed")
    page.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_targets_are_large_enough_and_nothing_is_cut(chromium, url, recording, width):
    page = chromium.new_page(viewport={"width": width, "height": 844})
    page.goto(url)
    transcribe(page, recording)
    page.get_by_role("button", name="Replace", exact=True).click()
    page.get_by_role("button", name="Clear", exact=True).click()
    page.get_by_role("button", name="Bring back noise.wav").click()
    expect(page.get_by_role("button", name=re.compile("^Forward by 0.3 s"))).to_be_visible()
    controls = "#sound button:visible, #text button:visible, #text label:visible, #text input[type=range]"
    for button in page.locator(controls).all():
        box = button.bounding_box()
        assert min(box["width"], box["height"]) >= 24, button.inner_text()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width, button.inner_text()
        assert button.evaluate("one => one.scrollWidth <= one.clientWidth + 1"), button.inner_text()
    assert page.locator(".text .word").first.bounding_box()["y"] < 844
    page.close()


def test_the_player_stays_in_sight(chromium, url, recording):
    page = chromium.new_page(viewport={"width": 390, "height": 700})
    page.goto(url)
    transcribe(page, recording)
    page.mouse.move(200, 650)
    page.evaluate("scrollTo(0, 10000)")
    assert page.evaluate("scrollY") > 300
    play = page.get_by_role("button", name=re.compile("^Play")).bounding_box()
    assert 0 <= play["y"] < 250
    page.close()


def test_speakers_are_named_segment_by_segment(page, recording):
    transcribe(page, recording)
    page.locator(".text").press("s")
    name = page.get_by_label("Who speaks in the selected segment")
    for speaker in ("Ann <b>", "Bo", ""):
        name.fill(speaker)
        name.press("Enter")
    labels = page.locator(".text .segment .channel")
    expect(labels).to_have_text(["Ann <b>:", "Bo:"])
    with page.expect_download() as download:
        page.get_by_role("button", name="Save noise.vtt").click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert f"<v Ann &lt;b&gt;>{LINE}" in text and f"<v Bo>{LINE}" in text
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Undo").click()
    expect(labels).to_have_text(["Ann <b>:"])
    page.locator(".text .word").first.dblclick()  # a correction leaves the name
    page.keyboard.type("This")
    page.keyboard.press("Enter")
    expect(labels).to_have_text(["Ann <b>:"])
