"""SubRip and WebVTT, whole and damaged."""

from hypothesis import given
from hypothesis import strategies as st

from training.subtitles import subtitles


def test_an_empty_line_ends_no_subtitle_of_subrip():
    content = "1\n00:00:01,000 --> 00:00:02,500\nAnd\n\nbye &amp; (laughs) so on\n\n2\n0:03,0 --> 0:02,0\nno"
    assert list(subtitles(content)) == [(1, 2.5, "And bye & so on")]


def test_notes_of_webvtt_are_not_said():
    content = "WEBVTT\n\n00:01.000 --> 00:02.000\nyes\n\nNOTE nobody says this\n"
    assert list(subtitles(content)) == [(1, 2, "yes")]


lines = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=12)
special = st.sampled_from(["", "7", "00:01.5 --> 00:02.5", "WEBVTT", "1:00:00,1 --> 1:00:01,2"])


@given(st.lists(lines | special))
def test_any_subtitles(content):
    for start, end, said in subtitles("\n".join(content)):
        assert 0 <= start < end and said == said.strip() != ""
