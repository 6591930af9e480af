from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.transcript import Segment, Word
from asr.web.markup import clock, html, percent

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


def test_alternatives_are_escaped_and_mark_differences():
    segment = replace(SEGMENT, alternatives=("don't <b> stop", "do <i> go"))
    found = html.alternatives(segment)
    assert "<li>don&#39;t &lt;b&gt; <mark>stop</mark></li>" in found
    assert "<li><mark>do &lt;i&gt;</mark> go</li>" in found
    assert html.alternatives(SEGMENT) == ""


@given(st.text(min_size=1))
def test_error_messages_are_escaped(text):
    assert [tag for tag, _ in _Text(html.error(text)).tags] == ["p"]


@given(st.floats(0, 1))
def test_no_word_is_certain(confidence):
    assert 0 <= int(percent(confidence).removesuffix(" %")) <= 99


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0:00"), (62.9, "1:02"), (3723.0, "1:02:03")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_progress_stays_in_range_and_is_indeterminate_without_a_length():
    assert 'max="10.00" value="10.00"' in html.progress(10.4, 10.0, 3, None, 0)
    unknown = html.progress(10.4, None, 1, None, 0)
    assert "value=" not in unknown
    assert "0:10 done · 1 word<" in unknown


def test_progress_tells_what_is_left_and_who_else_is_there():
    shown = html.progress(10.0, 40.0, 3, 61.6, 0)
    assert "0:10 of 0:40 done · 3 words · about 1:02 left<" in shown
    assert "in turns with 1 other<" in html.progress(10.0, None, 3, None, 1)
    assert "in turns with 2 others<" in html.progress(10.0, None, 3, None, 2)
