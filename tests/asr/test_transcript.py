"""Every output format, on hand-made and random transcripts."""

import itertools
import json
import re
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.transcript import FORMATS, MAX_CUE_SECONDS, MAX_LINE_CHARACTERS, Segment, Transcript, Word

EMPTY = Transcript(segments=(), language="english", duration=4.0, model="english")


def segment(*words: Word) -> Segment:
    return Segment(words[0].start, words[-1].end, " ".join(word.text for word in words), tuple(words))


def transcript(*segments: Segment) -> Transcript:
    return Transcript(segments, "english", segments[-1].end + 0.5, "english")


def spoken(text: str, start: float = 0.0, seconds_a_word: float = 0.3) -> Segment:
    """A segment of words without pauses."""
    texts = text.split()
    return segment(
        *(
            Word(word, start + index * seconds_a_word, start + (index + 1) * seconds_a_word, 0.9)
            for index, word in enumerate(texts)
        )
    )


HELLO = transcript(
    segment(Word("hello", 0.52, 0.9, 0.98765), Word("world", 1.0, 1.6, 0.5)),
    segment(Word("again", 62.0, 62.25, 1.0)),
)


def seconds(clock: str) -> float:
    hours, minutes, rest = clock.replace(",", ".").split(":")
    assert re.fullmatch(r"[0-5]\d\.\d{3}", rest) and re.fullmatch(r"[0-5]\d", minutes)
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def cues(subtitles: str) -> list[tuple[float, float, list[str]]]:
    """An independent parser of SRT and VTT."""
    blocks = [
        block.splitlines() for block in subtitles.removeprefix("WEBVTT\n").strip().split("\n\n") if block
    ]
    found = []
    for block in blocks:
        if block[0].isdigit():
            block = block[1:]
        start, end = block[0].split(" --> ")
        found.append((seconds(start), seconds(end), block[1:]))
    return found


def test_txt_has_one_line_per_segment():
    assert HELLO.to_txt() == "hello world\nagain\n"
    assert HELLO.text == "hello world again"
    assert [word.text for word in HELLO.words] == ["hello", "world", "again"]


def test_srt():
    assert HELLO.to_srt() == (
        "1\n00:00:00,520 --> 00:00:01,600\nhello world\n\n2\n00:01:02,000 --> 00:01:03,000\nagain\n"
    )


def test_vtt():
    assert HELLO.to_vtt() == (
        "WEBVTT\n\n00:00:00.520 --> 00:00:01.600\nhello world\n\n00:01:02.000 --> 00:01:03.000\nagain\n"
    )


def test_tsv_has_whispers_columns():
    assert HELLO.to_tsv() == "start\tend\ttext\n520\t1600\thello world\n62000\t62250\tagain\n"


def test_json_has_the_names_of_verbose_json():
    read = json.loads(HELLO.render("json"))
    assert read["text"] == "hello world again"
    assert read["language"] == "english" and read["task"] == "transcribe"
    assert read["duration"] == 62.75
    assert read["segments"][0] == {"id": 0, "start": 0.52, "end": 1.6, "text": "hello world"}
    assert read["words"][0] == {"word": "hello", "start": 0.52, "end": 0.9, "confidence": 0.9877}


@pytest.mark.parametrize(
    ("format", "expected"),
    [("txt", ""), ("srt", ""), ("vtt", "WEBVTT\n"), ("tsv", "start\tend\ttext\n")],
)
def test_no_speech_gives_a_valid_file(format, expected):
    assert EMPTY.render(format) == expected


def test_no_speech_in_json():
    read = json.loads(EMPTY.render("json"))
    assert (read["text"], read["segments"], read["words"], read["duration"]) == ("", [], [], 4.0)


def test_milliseconds_carry_into_minutes_and_hours():
    late = transcript(
        segment(Word("late", 59.9996, 61.0, 1.0)), segment(Word("later", 3599.9999, 3601.5, 1.0))
    )
    assert "00:01:00,000 --> 00:01:01,000" in late.to_srt()
    assert "01:00:00.000 --> 01:00:01.500" in late.to_vtt()


def test_long_recordings_count_hours_beyond_a_day():
    assert "30:00:00,000 --> " in transcript(segment(Word("still", 108_000.0, 108_001.0, 1.0))).to_srt()


def test_vtt_escapes_markup():
    assert "a &lt; b &amp;&amp; c --&gt; d" in transcript(spoken("a < b && c --> d")).to_vtt()
    assert "a < b && c --> d" in transcript(spoken("a < b && c --> d")).to_srt()


def test_lines_of_a_cue_have_similar_length():
    text = "this is a sentence that is a little too long for a line"
    ((_, _, lines),) = cues(transcript(spoken(text)).to_srt())
    assert lines == ["this is a sentence that is", "a little too long for a line"]


def test_a_cue_ends_at_the_longest_pause_near_its_middle():
    first = spoken("one two three four five six seven eight nine", start=0.0)
    then = spoken("ten eleven twelve thirteen fourteen fifteen sixteen seventeen", start=3.3)
    both = segment(*first.words, *then.words)
    assert [lines[0].split()[0] for _, _, lines in cues(transcript(both).to_srt())] == ["one", "ten"]


def test_text_after_a_long_pause_is_a_cue_of_its_own():
    late = segment(Word("wait", 0.0, 0.4, 1.0), Word("now", 3.0, 3.4, 1.0))
    assert [lines for _, _, lines in cues(transcript(late).to_srt())] == [["wait"], ["now"]]


def test_a_short_cue_is_extended_up_to_the_next():
    rushed = transcript(segment(Word("no", 1.0, 1.2, 1.0)), segment(Word("yes", 1.5, 1.7, 1.0)))
    (first_start, first_end, _), (second_start, second_end, _) = cues(rushed.to_srt())
    assert (first_start, first_end, second_start) == (1.0, 1.5, 1.5)
    assert second_end == pytest.approx(2.5, abs=0.001)


def test_a_cue_stays_until_it_can_be_read_but_not_for_ever():
    fast = transcript(spoken("seventeen letters", seconds_a_word=0.1), spoken("after it", start=30.0))
    [(start, end, _), _] = cues(fast.to_srt())
    assert (start, end) == (0.0, 1.0)
    [(_, end, _)] = cues(transcript(spoken("letters " * 7, seconds_a_word=0.1)).to_srt())
    assert end == pytest.approx(54 / 17, abs=0.001)


def test_cues_and_lines_end_with_sentences_and_clauses():
    text = "It was late, and the rain had stopped. They went home by the old road, the long one, with lamps."
    first, second = cues(transcript(spoken(text)).to_srt())
    assert [first[2], second[2]] == [
        ["It was late, and the rain had stopped."],
        ["They went home by the old road,", "the long one, with lamps."],
    ]


def test_sentences_are_joined_to_paragraphs_until_a_pause():
    said = transcript(
        spoken("One two."),
        spoken("Three?", start=1.0),
        spoken("Four.", start=4.0),
        spoken("five six", start=5.0),
    )
    assert said.to_txt() == "One two. Three?\nFour. five six\n"
    assert transcript(spoken("no mark"), spoken("Next.", start=1.0)).to_txt() == "no mark\nNext.\n"


def test_a_paragraph_of_many_characters_ends():
    said = transcript(*(spoken(f"{'word ' * 19}end.", start=6.0 * i) for i in range(20)))
    lines = said.to_txt().splitlines()
    assert len(lines) > 2 and all(599 <= len(line) <= 700 for line in lines[:-1])


def test_docx_has_the_paragraphs_and_their_times(tmp_path):
    document = pytest.importorskip("docx", reason="needs python-docx")
    said = transcript(spoken("One <two> & three."), spoken("Four.", start=4.0))
    said.save(tmp_path / "said.docx")
    read = document.Document(tmp_path / "said.docx")
    assert [one.text for one in read.paragraphs] == ["0:00\tOne <two> & three.", "0:04\tFour."]
    assert read.core_properties.author == ""


def test_docx_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "docx", None)
    with pytest.raises(ValueError, match="pip install python-docx"):
        HELLO.save(tmp_path / "said.docx")


@pytest.mark.parametrize("format", [format for format in FORMATS if format != "docx"])
def test_save_uses_the_format_of_the_suffix(tmp_path, format):
    path = tmp_path / f"hello.{format}"
    HELLO.save(path)
    assert path.read_bytes() == HELLO.render(format).encode()


def test_other_formats_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"'pdf'.*txt, srt, vtt, tsv, json, docx"):
        HELLO.save(tmp_path / "hello.pdf")


@st.composite
def transcripts(draw) -> Transcript:
    """Several segments of words in order, with pauses of any length."""
    time, segments = 0.0, []
    for _ in range(draw(st.integers(1, 4))):
        words = []
        for _ in range(draw(st.integers(1, 40))):
            text = draw(st.text("abz'&<>", min_size=1, max_size=draw(st.sampled_from([4, 12, 60]))))
            start = time + draw(st.floats(0, 2))
            time = start + draw(st.floats(0.04, 1))
            words.append(Word(text, start, time, draw(st.floats(0, 1))))
        segments.append(segment(*words))
    return transcript(*segments)


@given(transcripts())
def test_subtitles_are_readable_and_complete(spoken):
    found = cues(spoken.to_srt())
    for start, end, lines in found:
        alone = len(" ".join(lines).split(" ")) == 1
        assert start < end
        assert end - start <= MAX_CUE_SECONDS + 0.0011  # both ends are rounded
        assert 1 <= len(lines) <= 2
        assert alone or all(len(line) <= MAX_LINE_CHARACTERS for line in lines)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(found))
    assert " ".join(line for _, _, lines in found for line in lines) == spoken.text
    starts = {round(word.start, 3) for word in spoken.words}
    assert all(any(abs(start - word) < 0.0006 for word in starts) for start, _, _ in found)


@given(transcripts())
def test_vtt_and_srt_have_the_same_cues(spoken):
    def plain(lines):
        return [line.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") for line in lines]

    assert [(start, end, plain(lines)) for start, end, lines in cues(spoken.to_vtt())] == cues(
        spoken.to_srt()
    )


def test_speakers_are_named_in_every_format():
    said = transcript(
        replace(spoken("Hello there."), speaker="Ann & Bo"),
        replace(spoken("Good day.", start=1.0), channel="left"),
    )
    assert said.to_txt() == "Ann & Bo: Hello there.\nleft: Good day.\n"
    assert "\nAnn & Bo: Hello there.\n" in said.to_srt()
    assert "<v Ann &amp; Bo>Hello there.\n" in said.to_vtt() and "<v left>Good day.\n" in said.to_vtt()
    assert said.to_dict()["segments"][0]["speaker"] == "Ann & Bo"
