"""Texts of SubRip (.srt) and WebVTT (.vtt) files, with their times."""

import html
import re
from collections.abc import Iterator

_TIMES = re.compile(r"(?:(\d+):)?(\d+):(\d+[.,]\d+)\s*-->\s*(?:(\d+):)?(\d+):(\d+[.,]\d+)")
_MARKS = re.compile(r"<[^<>]*>|\{[^{}]*\}|\[[^][]*\]|\([^()]*\)|[♪♫]")  # tags, and sounds that are described


def subtitles(content: str) -> Iterator[tuple[float, float, str]]:
    """Start and end in seconds, and text, of each subtitle in which something is said."""
    found: list[tuple[float, float, list[str]]] = []
    for block in re.split(r"\n\s*\n", content):
        if times := _TIMES.search(block):
            _, _, said = block[times.end() :].partition("\n")  # after settings such as "align:left"
            found.append((_seconds(*times.groups()[:3]), _seconds(*times.groups()[3:]), [said]))
        elif found and not content.startswith("WEBVTT"):  # which has notes and styles
            found[-1][2].append(block)  # after an empty line in a subtitle
    for start, end, parts in found:
        text = " ".join(html.unescape(_MARKS.sub(" ", " ".join(parts))).split())
        if text and start < end:
            yield start, end, text


def _seconds(hours: str | None, minutes: str, seconds: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds.replace(",", "."))
