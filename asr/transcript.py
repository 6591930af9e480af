"""The transcript of a recording as dataclasses, and its output formats."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr.files import write_whole

FORMATS = ("txt", "srt", "vtt", "tsv", "json", "docx")

SENTENCE_ENDS = (".", "?", "!")
ABBREVIATIONS = (
    "mr.",
    "mrs.",
    "ms.",
    "dr.",
    "st.",
    "jr.",
    "sr.",
    "prof.",
    "rev.",
    "gen.",
    "col.",
    "capt.",
    "vs.",
)

CLAUSE_ENDS = (",", ";", ":", *SENTENCE_ENDS)

# A paragraph ends at the first sentence's end after so many characters, and at a pause this long.
PARAGRAPH_CHARACTERS, PARAGRAPH_PAUSE_SECONDS = 600, 2.0

# Netflix' Timed Text Style Guide: two lines, up to 7 s (general), 42 characters a line (English). The BBC's
# Subtitle Guidelines want time to read, 160 to 180 words a minute: 17 characters a second.
MAX_LINE_CHARACTERS = 42
MIN_CUE_SECONDS, MAX_CUE_SECONDS = 1.0, 7.0
CHARACTERS_PER_SECOND = 17
# After a pause this long a new cue begins, so that its text is not shown before it is spoken.
CUE_PAUSE_SECONDS = 1.0
# What the end of a sentence, or of a clause, is preferred by when a cue is cut, in seconds of pause; and that
# of a clause when a line is, in characters of the longer line.
SENTENCE_BONUS_SECONDS, CLAUSE_BONUS_SECONDS, CLAUSE_BONUS_CHARACTERS = 0.5, 0.25, 8


@dataclass(frozen=True)
class Word:
    """A word with start and end in seconds from the start of the recording, and confidence in [0, 1]."""

    text: str
    start: float
    end: float
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """The fields of a word in OpenAI's `verbose_json`, and `confidence`."""
        return {
            "word": self.text,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "confidence": round(self.confidence, 4),
        }


def sentences(words: Sequence[Word]) -> list[Sequence[Word]]:
    """Words cut after ".", "?" and "!" where a capital follows, though not after "Mr." and initials."""
    ends = [
        place
        for place, (word, after) in enumerate(itertools.pairwise(words), start=1)
        if word.text.endswith(SENTENCE_ENDS)
        and word.text.lower() not in ABBREVIATIONS
        and len(word.text) != 2  # an initial
        and not after.text[0].islower()
    ]
    return [words[start:end] for start, end in itertools.pairwise([0, *ends, len(words)])]


@dataclass(frozen=True)
class Segment:
    """The speech between two pauses, or a sentence of it; times are in seconds.

    Attributes:
      text: its words, joined by single spaces.
      alternatives: other hypotheses, best first, if requested.
      channel: "left" or "right", if only that channel was read.
      speaker: a name, which somebody gave.
    """

    start: float
    end: float
    text: str
    words: tuple[Word, ...]
    alternatives: tuple[str, ...] = ()
    channel: str | None = None
    speaker: str | None = None

    @classmethod
    def of(
        cls, words: Sequence[Word], alternatives: tuple[str, ...] = (), channel: str | None = None
    ) -> "Segment":
        """The segment of these words, of which there is at least one."""
        text = " ".join(word.text for word in words)
        return cls(words[0].start, words[-1].end, text, tuple(words), alternatives, channel)

    @property
    def label(self) -> str | None:
        """Who speaks, as far as it is known: the speaker, or else the channel."""
        return self.speaker or self.channel

    @property
    def labelled_text(self) -> str:
        """The text, after its label if it has one."""
        return _labelled(self.text, self.label)


@dataclass(frozen=True)
class Transcript:
    """The text of one recording; a recording without speech has no segments.

    Attributes:
      segments: in order of time; those of different channels may overlap.
      language: of the model ("en").
      duration: of the recording, in seconds.
      model: name of the model.
      warnings: one line each about damaged or missing parts of the recording.
    """

    segments: tuple[Segment, ...]
    language: str
    duration: float
    model: str
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All segments on one line."""
        return " ".join(segment.text for segment in self.segments)

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of all segments."""
        return tuple(word for segment in self.segments for word in segment.words)

    def cues(self) -> list[tuple[int, int, str]]:
        """Subtitles: start and end in milliseconds, and a text of one or two lines of readable length.

        The text begins with the label if there is one.
        """
        return [(start, end, _labelled(text, label)) for start, end, text, label in self._labelled_cues()]

    def _labelled_cues(self) -> list[tuple[int, int, str, str | None]]:
        """Cues in order of time, each with its label. Only cues of different channels overlap."""
        cues = [
            cue
            for channel in dict.fromkeys(segment.channel for segment in self.segments)
            for cue in _cues([segment for segment in self.segments if segment.channel == channel])
        ]
        return sorted(cues, key=lambda cue: cue[0])

    def paragraphs(self) -> list[list[Segment]]:
        """Sentences that follow each other; a segment without punctuation is one of its own."""
        paragraphs: list[list[Segment]] = []
        for segment in self.segments:
            before = paragraphs[-1] if paragraphs else []
            if (
                before
                and before[-1].text.endswith(SENTENCE_ENDS)
                and before[-1].label == segment.label
                and segment.start - before[-1].end < PARAGRAPH_PAUSE_SECONDS
                and sum(len(one.text) + 1 for one in before) < PARAGRAPH_CHARACTERS
            ):
                before.append(segment)
            else:
                paragraphs.append([segment])
        return paragraphs

    def to_txt(self) -> str:
        """One line per paragraph."""
        return "".join(f"{joined(paragraph)}\n" for paragraph in self.paragraphs())

    def to_docx(self) -> bytes:
        """A document of paragraphs, each after its time. Raises ValueError where python-docx is missing."""
        from asr.document import docx

        return docx((clock(paragraph[0].start), joined(paragraph)) for paragraph in self.paragraphs())

    def to_srt(self) -> str:
        """SubRip subtitles."""
        return "\n".join(
            f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n"
            for number, (start, end, text) in enumerate(self.cues(), start=1)
        )

    def to_vtt(self) -> str:
        """WebVTT captions (https://www.w3.org/TR/webvtt1/), the format of HTML's <track>."""
        text = "WEBVTT\n"
        for start, end, caption, label in self._labelled_cues():
            voice = f"<v {_escaped(label)}>" if label else ""
            caption = _escaped(caption)
            text += f"\n{_clock(start, '.')} --> {_clock(end, '.')}\n{voice}{caption}\n"
        return text

    def to_tsv(self) -> str:
        """One line per segment, with Whisper's columns: start and end in integer milliseconds, text."""
        return "start\tend\ttext\n" + "".join(
            f"{_milliseconds(segment.start)}\t{_milliseconds(segment.end)}\t{segment.labelled_text}\n"
            for segment in self.segments
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields of OpenAI's `verbose_json`, plus `model`, `confidence` of words, and if there are any,
        `warnings`, and the `alternatives`, `channel` and `speaker` of segments.
        """
        return {
            "task": "transcribe",
            "language": self.language,
            "duration": round(self.duration, 3),
            "model": self.model,
            "text": self.text,
            "segments": [
                {
                    "id": id,
                    "start": round(segment.start, 3),
                    "end": round(segment.end, 3),
                    "text": segment.text,
                    **({"alternatives": list(segment.alternatives)} if segment.alternatives else {}),
                    **({"channel": segment.channel} if segment.channel else {}),
                    **({"speaker": segment.speaker} if segment.speaker else {}),
                }
                for id, segment in enumerate(self.segments)
            ],
            "words": [word.to_dict() for word in self.words],
            **({"warnings": list(self.warnings)} if self.warnings else {}),
        }

    def to_json(self) -> str:
        """`to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2, allow_nan=False) + "\n"

    def render(self, format: str) -> str | bytes:
        """The transcript in one of `FORMATS`, bytes for "docx". Raises ValueError for any other."""
        if format not in FORMATS:
            raise ValueError(f"no output format {format!r}: choose one of {', '.join(FORMATS)}")
        return getattr(self, f"to_{format}")()

    def save(self, path: Path | str) -> None:
        """Writes the format of the path's suffix. Raises ValueError if it is not one of `FORMATS`."""
        write_whole(Path(path), self.render(Path(path).suffix.removeprefix(".").lower()))


def clock(seconds: float) -> str:
    """62.4 → "1:02", 3723.0 → "1:02:03"."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def joined(segments: Sequence[Segment]) -> str:
    """The text of a paragraph, after its label if it has one."""
    return _labelled(" ".join(segment.text for segment in segments), segments[0].label)


def _labelled(text: str, label: str | None) -> str:
    return f"{label}: {text}" if label else text


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _clock(milliseconds: int, decimal_sign: str) -> str:
    # Split whole milliseconds: 59.9996 s must become 00:01:00.000, not 00:00:60.000.
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02}:{minutes:02}:{seconds:02}{decimal_sign}{milliseconds:03}"


def _cues(segments: Sequence[Segment]) -> Iterator[tuple[int, int, str, str | None]]:
    """Start and end in milliseconds, text and label of each subtitle.

    Cues are not empty and do not overlap. Only a single long word may exceed the limits. A cue lasts at
    least `MIN_CUE_SECONDS`, and as long as its text takes to read, unless the next one starts earlier.
    """
    groups = [(words, segment.label) for segment in segments for words in _split(segment.words)]
    starts = [_milliseconds(words[0].start) for words, _ in groups]
    previous_end = 0
    for index, (words, label) in enumerate(groups):
        start = max(starts[index], previous_end)
        lines = _lines(words)
        reading_seconds = min(sum(map(len, lines)) / CHARACTERS_PER_SECOND, MAX_CUE_SECONDS)
        shown_seconds = max(MIN_CUE_SECONDS, reading_seconds)
        end = max(_milliseconds(words[-1].end), start + _milliseconds(shown_seconds))
        if index + 1 < len(groups):
            end = min(end, starts[index + 1])
        previous_end = max(end, start + 1)
        yield start, previous_end, "\n".join(lines), label


def _split(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """Splits words into cues that fit, at pauses, ends of sentences and clauses, or else near the middle."""
    pending = [words] if words else []
    while pending:
        words = pending.pop()
        pauses = [after.start - before.end for before, after in itertools.pairwise(words)]
        if len(words) == 1 or (_fits(words) and max(pauses) < CUE_PAUSE_SECONDS):
            yield words
            continue
        # Trades pauses for balance: 1 s of pause outweighs being off the middle by all of the words.
        preference = [
            pause + _bonus_seconds(words[count - 1]) - abs(count / len(words) - 0.5)
            if pause < CUE_PAUSE_SECONDS
            else pause + SENTENCE_BONUS_SECONDS
            for count, pause in enumerate(pauses, start=1)
        ]
        count = 1 + preference.index(max(preference))
        pending += [words[count:], words[:count]]


def _bonus_seconds(word: Word) -> float:
    if word.text.endswith(SENTENCE_ENDS):
        return SENTENCE_BONUS_SECONDS
    return CLAUSE_BONUS_SECONDS if word.text.endswith(CLAUSE_ENDS) else 0.0


def _fits(words: Sequence[Word]) -> bool:
    return (
        words[-1].end - words[0].start <= MAX_CUE_SECONDS
        and sum(len(word.text) + 1 for word in words) <= 2 * (MAX_LINE_CHARACTERS + 1)
        and all(len(line) <= MAX_LINE_CHARACTERS for line in _lines(words))
    )


def _lines(words: Sequence[Word]) -> list[str]:
    """The words on one line, or on two of similar length, the first of which may end with a clause."""
    texts = [word.text for word in words]
    line = " ".join(texts)
    if len(line) <= MAX_LINE_CHARACTERS or len(texts) == 1:
        return [line]
    pairs = [[" ".join(texts[:count]), " ".join(texts[count:])] for count in range(1, len(texts))]

    def unevenness(pair: list[str]) -> int:
        longer = max(map(len, pair))
        fits = longer <= MAX_LINE_CHARACTERS
        return longer - CLAUSE_BONUS_CHARACTERS * (fits and pair[0].endswith(CLAUSE_ENDS))

    return min(pairs, key=unevenness)
