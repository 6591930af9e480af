import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.transcript import Segment, Transcript, Word
from asr.web.markup import band_of, clock, html, percent

WORDS = (
    Word("don't", 1.0, 1.25, 0.97),
    Word("<b>", 1.5, 1.75, 0.7),
    Word("go", 2.0, 2.25, 0.1),
)
SEGMENT = Segment(1.0, 2.25, "don't <b> go", WORDS)


class _Text(HTMLParser):
    """The visible text of HTML, and its start tags."""

    def __init__(self, source):
        super().__init__()
        self.text, self.tags = "", []
        self.feed(str(source))

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_each_word_has_its_times_and_a_title_with_its_confidence():
    seen = [attributes for tag, attributes in _Text(html.segment(SEGMENT, 4)).tags if tag == "span"]
    first = next(attributes for attributes in seen if attributes.get("data-start") == "1.00")
    assert first["data-end"] == "1.25"
    assert first["title"] == "1.00–1.25 s · sure, 97 %"


def test_words_are_escaped():
    page = _Text(html.segment(SEGMENT, 0))
    assert "don't <b> go" in page.text
    assert "b" not in [tag for tag, _ in page.tags]


def test_alternatives_are_escaped_and_mark_differences():
    segment = replace(SEGMENT, alternatives=("don't <b> stop", "do <i> go"))
    found = html.alternatives(segment)
    assert "<li>don&#39;t &lt;b&gt; <mark>stop</mark></li>" in found
    assert "<li><mark>do &lt;i&gt;</mark> go</li>" in found
    assert html.alternatives(SEGMENT) == ""


@given(st.text(min_size=1))
def test_error_messages_are_escaped(text):
    assert [tag for tag, _ in _Text(html.error(text)).tags] == ["p"]


@pytest.mark.parametrize(
    ("confidence", "css_class"),
    [(1.0, "sure"), (0.9, "sure"), (0.899, "unsure"), (0.6, "unsure"), (0.599, "guess"), (0.0, "guess")],
)
def test_bands_cover_all_confidences(confidence, css_class):
    assert band_of(confidence).css_class == css_class


def test_legend_counts_the_words_of_each_band():
    legend = _Text(html.legend([*WORDS, WORDS[0]])).text
    assert "sure (90% or more): 2" in legend
    assert "less sure (below 90%): 1" in legend
    assert "a guess (below 60%): 1" in legend


@given(st.floats(0, 1))
def test_no_word_is_certain(confidence):
    assert 0 <= int(percent(confidence).removesuffix(" %")) <= 99


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0:00"), (62.9, "1:02"), (3723.0, "1:02:03")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_progress_stays_in_range_and_is_indeterminate_without_a_length():
    assert 'max="10.00" value="10.00"' in html.progress(10.4, 10.0, 3)
    unknown = html.progress(10.4, None, 1)
    assert "value=" not in unknown
    assert "0:10 done · 1 word<" in unknown


def test_files_can_be_saved_by_name():
    found = html.saving(["a&b.srt"])
    assert re.search(r'data-save="a&amp;b.srt"[^>]*>SRT<', found)


def test_summary_and_stopped_lines():
    transcript = Transcript((SEGMENT,), "english", 62.0, "tiny")
    assert "62.0 s of audio, 3 words, transcribed by tiny in 1.50 s" in html.summary(transcript, 1.5)
    assert "Stopped after 1:02; 3 words" in html.stopped(transcript)
