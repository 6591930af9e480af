"""The report's page in a real browser, opened from disk as its readers do."""

import numpy as np
import pytest
import soundfile

from asr.audio import SAMPLE_RATE
from training.scoring.report import write_report
from training.scoring.results import score
from training.scoring.transcripts import Output, Recognised, Reference


@pytest.fixture
def page(chromium, tmp_path):
    """A page about sixty utterances, of which the first has sound; errors of the page fail the test."""
    sound = tmp_path / "u0.wav"
    soundfile.write(sound, np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    references = [
        Reference("dev", f"u{row}", f"hold on number{row}", f"s{row % 7}", duration_seconds=1.0 + row)
        for row in range(60)
    ]
    references[0] = Reference(
        "dev", "u0", "<script>alert(1)</script>", "s0", duration_seconds=1.0, audio=sound
    )
    right = {one.id: Recognised(one.text) for one in references}
    wrong = right | {"u0": Recognised("nothing alike at all"), "u7": Recognised("hold in number7 please")}
    scores = score(references, [Output("good", right), Output("bad", wrong)], ["none", "basic"])
    write_report(tmp_path / "report", scores, {"command": "test"}, {"date": "today", "speed": []})
    opened = chromium.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.goto((tmp_path / "report" / "report.html").as_uri())
    yield opened
    opened.close()
    assert not faults


def ids(page) -> list[str]:
    return page.locator("#rows tr td:first-child").all_inner_texts()


def test_worst_first_and_more_on_demand(page):
    assert ids(page)[:2] == ["u0", "u7"]
    assert page.inner_text("#shown") == "40 of 60"
    page.click("#more")
    assert len(ids(page)) == 60
    assert page.is_hidden("#more")


def test_filters(page):
    page.fill("#query", "NUMBER7")
    assert ids(page) == ["u7"]
    page.fill("#query", "")
    page.select_option("#which", "differ")
    assert ids(page) == ["u0", "u7"]
    page.select_option("#set", "dev")
    assert ids(page) == ["u0", "u7"]


def test_sorting_by_heading(page):
    heading = page.locator("th[data-sort=seconds]")
    heading.locator("button").click()
    assert ids(page)[0] == "u59"
    assert heading.get_attribute("aria-sort") == "descending"
    heading.locator("button").click()
    assert ids(page)[0] == "u0"


def test_errors_are_coloured_where_they_are(page):
    row = page.locator("#rows tr").nth(1)
    assert row.locator("del").all_inner_texts() == ["on"]
    assert row.locator("ins.recognised").all_inner_texts() == ["in"]
    assert row.locator("ins.extra").all_inner_texts() == ["please"]


def test_text_of_an_utterance_is_never_markup(page):
    assert "<script>alert(1)</script>" in page.locator("#rows tr").first.inner_text()


def test_embedded_sound_plays(page):
    play = """async () => {
        const audio = document.querySelector("audio");
        await new Promise((done, fail) => { audio.oncanplay = done; audio.onerror = fail; audio.load(); });
        return [audio.src.slice(0, 11), audio.duration];
    }"""
    assert page.evaluate(play) == ["data:audio/", pytest.approx(1.0)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ink_and_paper_differ_in_both_schemes(page, scheme):
    page.emulate_media(color_scheme=scheme)
    style = "getComputedStyle(document.body)"
    ink, paper = page.evaluate(f"[{style}.color, {style}.backgroundColor]")
    brightness = [sum(map(int, colour[4:-1].split(","))) / 3 for colour in (ink, paper)]
    assert abs(brightness[0] - brightness[1]) > 150
    assert (brightness[0] < brightness[1]) == (scheme == "light")


def test_nothing_runs_over_the_edge_of_a_phone(page):
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 400


CONTRAST = """([front, back]) => {
  const style = getComputedStyle(document.documentElement);
  const light = (name) => {
    const [r, g, b] = style.getPropertyValue(name).trim().replace(/^#(.)(.)(.)$/, '#$1$1$2$2$3$3')
      .match(/[0-9a-f]{2}/g).map((part) => parseInt(part, 16) / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const [one, other] = [light(front), light(back)];
  return Math.max(one, other) / Math.min(one, other);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("back", ["--paper", "--raised"])
def test_quiet_text_can_be_read(page, scheme, back):
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate(CONTRAST, ["--quiet", back]) >= 4.5  # WCAG 2.1, 1.4.3


def test_all_is_in_a_landmark_and_tables_scroll_by_keyboard(page):
    outside = "body > :not(header, nav, main, footer, script)"
    assert page.locator(outside).count() == 0
    scrolling = page.locator(".scroll")
    assert scrolling.count() > 0
    assert all(one.get_attribute("tabindex") == "0" for one in scrolling.all())
