"""Sound, text and corrections outlive ×, Upload, Record, a refresh and a closed tab."""

import json

import pytest

from tests.browser.recordings import PLAYER, expect, noise, transcribe, upload, write
from tests.conftest import CHROMIUM
from tests.loudness_recognizer import SPOKEN

LINE = " ".join(SPOKEN)
SEGMENTS = ".text .segment .line"

STORED = """async () => {
  const opened = await new Promise((resolve) => {
    const asked = indexedDB.open('hark', 1);
    asked.onsuccess = () => resolve(asked.result);
  });
  const all = (name) => new Promise((resolve) => {
    const asked = opened.transaction(name).objectStore(name).getAll();
    asked.onsuccess = () => resolve(asked.result);
  });
  const sounds = await all('sounds');
  const names = (await all('documents')).map(({ name }) => name);
  return { documents: names, bytes: sounds.map((sound) => sound.size) };
}"""


def wait_until_stored(page, sounds=1):
    page.wait_for_function(f"async () => (await ({STORED})()).bytes.length === {sounds}")


def reload(page):
    page.reload()
    expect(page.locator("#sound")).to_be_visible()


def transcribe_another(page, path):
    page.locator("#sound").get_by_role("button", name="Upload file").click()
    expect(page.locator(".text .word")).to_have_count(0)  # or the first text would be taken for the other's
    transcribe(page, path)


def plays(page, word, seconds):
    page.locator(".text .word").nth(word).click()
    page.wait_for_function(f"() => ({PLAYER})().seconds > {seconds} && !({PLAYER})().paused")


@pytest.mark.parametrize("button", ["Clear", "Upload file", "Record audio"])
def test_a_click_that_clears_the_recording_can_be_taken_back(page, recording, button):
    transcribe(page, recording)
    page.locator("#sound").get_by_role("button", name=button, exact=True).click()
    expect(page.locator(".text .word")).to_have_count(0)
    expect(page.locator("#told")).to_contain_text("“noise.wav” is closed, not lost")
    page.get_by_role("button", name="Bring back noise.wav").click()
    expect(page.locator(SEGMENTS)).to_have_text([LINE] * 3)
    plays(page, 12, 4.8)
    expect(page.locator(".picture figcaption")).to_contain_text("3.8–6.0 s")


def test_another_file_leaves_the_text_of_the_first(page, recording, tmp_path):
    transcribe(page, recording)
    transcribe_another(page, write(tmp_path / "short.wav", noise(2)))
    expect(page.locator(SEGMENTS)).to_have_text([LINE])
    page.get_by_role("button", name="Bring back noise.wav").click()
    expect(page.locator(SEGMENTS)).to_have_text([LINE] * 3)
    page.get_by_role("button", name="Bring back short.wav").click()
    expect(page.locator(SEGMENTS)).to_have_text([LINE])


def test_late_text_goes_to_its_own_recording(page, recognizer, recording, tmp_path):
    transcribe(page, recording)
    held = []
    recognizer.pause_seconds = 1.0
    page.locator("#sound").get_by_role("button", name="Upload file").click()
    expect(page.locator(".text .word")).to_have_count(0)
    upload(page, write(tmp_path / "later.wav", noise(8)))
    expect(page.locator(SEGMENTS).first).to_have_text(LINE)  # of four, with a second between them
    page.route("**/upload*", lambda route: held.append(route))
    page.get_by_role("button", name="Bring back noise.wav").click()
    expect(page.locator("#transcribe .actions").get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.locator(SEGMENTS)).to_have_text([LINE] * 3)
    held[0].continue_()
    page.unroute("**/upload*")
    plays(page, 12, 4.8)
    expect(page.locator(SEGMENTS)).to_have_text([LINE] * 3)
    page.get_by_role("button", name="Bring back later.wav").click()
    expect(page.locator(SEGMENTS)).to_have_text([LINE] * 4)


def test_all_kept_texts_are_searched_and_what_is_found_is_played(page, recording, tmp_path):
    transcribe(page, recording)
    page.locator(".text .word").nth(12).dblclick()  # "brown" of the third segment
    page.keyboard.type("Umber")
    page.keyboard.press("Enter")
    transcribe_another(page, write(tmp_path / "short.wav", noise(2)))
    search = page.get_by_role("searchbox", name="Search in all kept texts")
    search.fill("uick um")
    found = page.get_by_role("list", name="Found").get_by_role("listitem")
    expect(found).to_have_text([f"{LINE.replace('brown', 'Umber')} noise.wav, 0:04"])
    found.get_by_role("button").click()
    expect(page.locator(SEGMENTS)).to_have_count(3)
    expect(page.locator(".text .word").nth(11)).to_have_attribute("tabindex", "0")
    page.wait_for_function(f"() => ({PLAYER})().seconds > 4.4 && !({PLAYER})().paused")
    search.fill("<b>nowhere")
    expect(found).to_have_text(["Not found"])
    search.fill("")
    expect(found).to_have_count(0)


def test_a_link_opens_a_text_at_a_word(chromium, url, recording, tmp_path):
    context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(url)
    transcribe(page, recording)
    wait_until_stored(page)
    page.locator(".text .word").nth(12).click()
    copy = page.locator("[data-do=link]")
    copy.click()
    copy.click()
    expect(copy).to_have_text("Copied")
    expect(copy).to_have_text("Copy link")
    link = page.evaluate("navigator.clipboard.readText()")
    transcribe_another(page, write(tmp_path / "short.wav", noise(2)))
    other = context.new_page()
    other.goto(link)
    expect(other.locator(SEGMENTS)).to_have_count(3)
    expect(other.locator(".text .word").nth(12)).to_have_attribute("tabindex", "0")
    expect(other.locator(".picture figcaption")).to_contain_text("3.8–6.0 s")
    other.goto(link.replace("@", "0@"))  # of another browser
    expect(other.locator("#sound")).to_be_visible()
    context.close()


def test_a_refresh_keeps_sound_text_corrections_and_undo(page, recording):
    transcribe(page, recording)
    page.locator(".text .word").nth(1).dblclick()
    page.keyboard.type("slow")
    page.keyboard.press("Enter")
    wait_until_stored(page)
    reload(page)
    expect(page.locator(SEGMENTS).first).to_have_text(LINE.replace("quick", "slow"))
    expect(page.get_by_role("button", name="Transcribe again")).to_be_hidden()  # this page offers no options
    plays(page, 12, 4.8)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(SEGMENTS).first).to_have_text(LINE)


def test_half_a_correction_survives_a_refresh(page, recording):
    transcribe(page, recording)
    wait_until_stored(page)
    page.locator(".text .word").nth(1).dblclick()
    page.keyboard.type("slo")
    reload(page)
    expect(page.locator(SEGMENTS).first).to_have_text(LINE.replace("quick", "slo"))


def test_a_new_tab_offers_what_a_closed_one_had(chromium, url, recording):
    context = chromium.new_context()
    page = context.new_page()
    page.goto(url)
    transcribe(page, recording)
    wait_until_stored(page)
    other = context.new_page()
    page.close()
    other.goto(url)
    other.get_by_role("button", name="Bring back noise.wav").click()
    expect(other.locator(SEGMENTS)).to_have_text([LINE] * 3)
    plays(other, 12, 4.8)
    context.close()


def test_a_transcription_that_a_refresh_interrupts_leaves_its_part(page, recognizer, tmp_path):
    recognizer.pause_seconds = 0.5
    upload(page, write(tmp_path / "long.wav", noise(60)))
    expect(page.locator(".text .segment").nth(1)).to_be_visible()
    wait_until_stored(page)
    reload(page)
    expect(page.locator(SEGMENTS).nth(1)).to_have_text(LINE)
    expect(page.locator(".summary")).to_contain_text("Stopped after")
    expect(page.get_by_role("button", name="Transcribe again")).to_be_visible()
    recognizer.pause_seconds = 0.0
    page.get_by_role("button", name="Transcribe again").click()
    expect(page.locator(SEGMENTS)).to_have_count(30)


def test_switched_off_nothing_is_stored_and_closing_asks(page, recording):
    transcribe(page, recording)
    wait_until_stored(page)
    page.get_by_label("Keep recordings and texts").uncheck()
    page.wait_for_function(f"async () => (await ({STORED})()).documents.length === 0")
    assert page.evaluate(STORED) == {"documents": [], "bytes": []}
    page.get_by_role("button", name="Clear", exact=True).click()
    page.get_by_role("button", name="Bring back noise.wav").click()  # from memory
    expect(page.locator(SEGMENTS)).to_have_text([LINE] * 3)
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.reload()
    assert asked == ["beforeunload"]
    expect(page.locator("#sound")).to_be_visible()
    expect(page.get_by_label("Keep recordings and texts")).not_to_be_checked()
    expect(page.get_by_role("button", name="Bring back")).to_have_count(0)


def test_what_is_kept_closes_without_a_question(page, recording):
    transcribe(page, recording)
    wait_until_stored(page)
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.locator(".text .word").first.click()
    reload(page)
    assert asked == []


def test_forget_everything(page, recording):
    transcribe(page, recording)
    wait_until_stored(page)
    page.get_by_role("button", name="Forget everything").click()
    expect(page.locator(".text .word")).to_have_count(0)
    page.wait_for_function(f"async () => (await ({STORED})()).documents.length === 0")
    assert page.evaluate(STORED) == {"documents": [], "bytes": []}
    reload(page)
    expect(page.get_by_role("button", name="Bring back")).to_have_count(0)


def test_a_file_without_sound_is_not_kept(page, tmp_path):
    letter = tmp_path / "letter.wav"
    letter.write_text("Dear Sir or Madam")
    upload(page, letter)
    expect(page.locator(".notice.error")).to_contain_text("letter.wav")
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.get_by_role("button", name="Bring back")).to_have_count(0)


def test_a_name_of_html_is_shown_as_text(page, recording):
    name = "<img src=x onerror=alert(1)>.wav"
    drop(page, (name, recording.read_bytes()))
    expect(page.locator(".saving")).to_be_visible()
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator(".kept li")).to_contain_text("onerror")
    assert page.locator(".kept img").count() == 0


def drop(page, *files):
    page.locator("body").evaluate(
        """(box, files) => {
          const dataTransfer = new DataTransfer();
          for (const [name, bytes] of files) {
            dataTransfer.items.add(new File([new Uint8Array(bytes)], name, { type: 'audio/wav' }));
          }
          for (const type of ['dragover', 'drop']) {
            const event = new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true });
            if (box.dispatchEvent(event)) throw new Error(`the browser would open what is dropped (${type})`);
          }
        }""",
        [[name, list(content)] for name, content in files],
    )


def test_a_file_dropped_on_a_transcript_is_transcribed_and_the_first_can_be_brought_back(page, recording):
    transcribe(page, recording)
    drop(page, ("second.wav", recording.read_bytes()))
    expect(page.get_by_role("button", name="Save second.txt")).to_be_visible()
    expect(page.get_by_role("button", name="Bring back noise.wav")).to_be_visible()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--use-fake-device-for-media-stream", "The microphone is blocked for this page: allow it"),
        ("--use-fake-ui-for-media-stream", "No microphone was found: connect one"),
    ],
)
def test_a_microphone_that_is_refused_or_absent_is_said_and_clears_nothing(
    chromium, url, recording, argument, message
):
    arguments = ["--no-sandbox", argument]
    browser = chromium.browser_type.launch(executable_path=CHROMIUM, args=arguments)
    page = browser.new_page()
    page.goto(url)
    transcribe(page, recording)
    page.get_by_role("button", name="Record audio").click()
    expect(page.locator("#told")).to_contain_text(message)
    expect(page.locator(SEGMENTS)).to_have_count(3)
    expect(page.get_by_role("button", name="Record", exact=True)).to_have_count(0)
    browser.close()


def test_a_recording_that_goes_on_is_not_left_without_a_question(page):
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.get_by_role("button", name="Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1000)
    page.evaluate("location.reload()")
    page.wait_for_timeout(500)
    assert asked == ["beforeunload"]
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".text .segment").first).to_contain_text(LINE)


def test_saved_json_can_be_read(page, recording):
    transcribe(page, recording)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save noise.json").click()
    assert json.loads(download.value.path().read_text())["text"] == " ".join([LINE] * 3)
