"""A folder of recordings, each with its text beside it: NAME.txt, or subtitles NAME.srt or NAME.vtt."""

import re
from collections.abc import Iterator
from pathlib import Path

from training.corpora.corpus import Report, Utterance, read_text, sounds

LAYOUT = (
    "NAME.wav (or another sound) beside NAME.txt, NAME.srt or NAME.vtt, perhaps in a folder for each speaker"
)
LICENCE = "that of the recordings"
_TIMES = re.compile(r"(?:(\d+):)?(\d+):(\d+[.,]\d+)\s*-->\s*(?:(\d+):)?(\d+):(\d+[.,]\d+)")
_MARKS = re.compile(r"<[^>]*>|\{[^}]*\}|\[[^]]*\]|\([^)]*\)|[♪♫]")  # tags, and sounds that are described


def utterances(source: Path, report: Report) -> Iterator[Utterance]:
    """Recordings with a .txt as they are, those with subtitles cut by their times; folders are speakers."""
    for sound in sounds(source):
        speaker = sound.parent.name if sound.parent != source else ""
        texts = [path for suffix in (".txt", ".srt", ".vtt") if (path := sound.with_suffix(suffix)).is_file()]
        if not texts:
            report(f"{sound}: no .txt, .srt or .vtt of that name beside it")
        elif texts[0].suffix == ".txt":
            text = " ".join(read_text(texts[0], report).split())
            yield Utterance(sound, text, speaker, is_written=True)
        else:
            for start, end, text in subtitles(read_text(texts[0], report)):
                yield Utterance(sound, text, speaker, "", start, end, is_written=True)


def subtitles(content: str) -> Iterator[tuple[float, float, str]]:
    """Start and end in seconds, and text, of each SubRip or WebVTT subtitle in which something is said."""
    for block in re.split(r"\n\s*\n", content):
        if times := _TIMES.search(block):
            _, _, said = block[times.end() :].partition("\n")  # after settings such as "align:left"
            start, end = _seconds(*times.groups()[:3]), _seconds(*times.groups()[3:])
            text = " ".join(_MARKS.sub(" ", said).split())
            if text and start < end:
                yield start, end, text


def _seconds(hours: str | None, minutes: str, seconds: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))
