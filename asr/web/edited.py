"""The transcript as the page has it, where it can be edited: as JSON, and back."""

import math
from collections.abc import Sequence
from typing import Any

from asr.audio import load_audio
from asr.recognizer import Recognizer
from asr.transcript import Segment, Transcript, Word

ALIGNED_MARGIN_SECONDS = 0.2  # before and after a segment
LONGEST_ALIGNED_SECONDS = 60.0  # utterances are shorter; only a damaged request asks for more


def to_page(transcript: Transcript) -> dict[str, Any]:
    """Language, duration in seconds, model, warnings, and the segments with their words."""
    return {
        "language": transcript.language,
        "duration": transcript.duration,
        "model": transcript.model,
        "warnings": list(transcript.warnings),
        "segments": list(map(segment_to_page, transcript.segments)),
    }


def segment_to_page(segment: Segment) -> dict[str, Any]:
    """Times in seconds, channel, speaker, alternatives, and the words."""
    return {
        "start": segment.start,
        "end": segment.end,
        "channel": segment.channel,
        "speaker": segment.speaker,
        "alternatives": list(segment.alternatives),
        "words": [
            {
                "text": word.text,
                "start": round(float(word.start), 3),
                "end": round(float(word.end), 3),
                "confidence": round(float(word.confidence), 4),
            }
            for word in segment.words
        ],
    }


def from_page(data: Any) -> Transcript:
    """The opposite of `to_page`. Raises ValueError for anything else."""
    try:
        return Transcript(
            tuple(segment_from_page(segment) for segment in data["segments"]),
            str(data["language"]),
            _seconds(data["duration"]),
            str(data["model"]),
            tuple(map(str, data["warnings"])),
        )
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"not a transcript of this page: {error!r}") from None


def segment_from_page(data: Any) -> Segment:
    """A segment of at least one word. Raises ValueError for anything else."""
    try:
        words = tuple(
            Word(
                str(word["text"]),
                _seconds(word["start"]),
                _seconds(word["end"]),
                min(_seconds(word["confidence"]), 1.0),
            )
            for word in data["words"]
        )
        return Segment(
            words[0].start,
            words[-1].end,
            " ".join(word.text for word in words),
            words,
            tuple(map(str, data["alternatives"])),
            data["channel"] and str(data["channel"]),
            # Texts that a browser has kept may be older than this field.
            data.get("speaker") and " ".join(str(data["speaker"]).split()),
        )
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"not a segment of this page: {error!r}") from None


def word_times(recognizer: Recognizer, path: str, segment: Segment) -> Sequence[tuple[float, float]] | None:
    """Start and end in seconds of each word of a corrected segment, by forced alignment with its sound.

    None if the model cannot align, or not this text with this sound.
    """
    start = max(0.0, segment.start - ALIGNED_MARGIN_SECONDS)
    duration = min(segment.end + ALIGNED_MARGIN_SECONDS - start, LONGEST_ALIGNED_SECONDS)
    shown_before = {"warn": lambda warning: None}
    try:
        samples = load_audio(path, start, duration, channel=segment.channel, **shown_before)
        found = recognizer.align(samples, segment.text)
    except ValueError:
        return None
    times: list[tuple[float, float]] = []
    for word in found.words:  # "the –" is one word of the aligner and two of the page
        parts = len(word.text.split())
        step = (word.end - word.start) / parts
        times += [
            (start + word.start + part * step, start + word.start + (part + 1) * step)
            for part in range(parts)
        ]
    return times if len(times) == len(segment.words) else None


def _seconds(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"not a time: {number}")
    return number
