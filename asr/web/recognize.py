"""Transcription of one recording, segment by segment, for the page and its API."""

from collections.abc import Iterator
from pathlib import Path

from asr.recognizer import Recognizer
from asr.transcript import Segment, Transcript

N_BEST = 4  # hypotheses per segment: its text and three alternatives


def separated(hotwords: str) -> tuple[str, ...]:
    """Hot words that are separated by commas or line breaks."""
    return tuple(term.strip() for term in hotwords.replace("\n", ",").split(",") if term.strip())


class Recognition:
    """Iterate to get the segments of `sound` one by one; `transcript` holds those recognised so far.

    Args:
      recognizer: recognises lazily, while this is iterated.
      sound: path of a recording.
      decoder: one of `asr.DECODERS`.
      hotwords: names and terms to expect, separated by commas or line breaks.

    Raises ValueError for an unknown decoder and for hot words with "greedy", which cannot use them. Iterating
    raises AudioError for a recording that cannot be read.
    """

    def __init__(self, recognizer: Recognizer, sound: str, decoder: str, hotwords: str = ""):
        self.done_seconds = 0.0
        self.total_seconds: float | None = None  # some files do not say
        self._bundle = recognizer.bundle
        self._segments: list[Segment] = []
        self._warnings: list[str] = []
        self._source = recognizer.segments(
            sound,
            decoder=decoder,
            hotwords=separated(hotwords),
            n_best=N_BEST if decoder == "beam" else 1,
            progress=self._advance,
            warn=lambda warning: self._warnings.append(warning.replace(sound, Path(sound).name)),
        )

    def __iter__(self) -> Iterator[Segment]:
        for segment in self._source:
            self._segments.append(segment)
            yield segment

    def _advance(self, done_seconds: float, total_seconds: float | None) -> None:
        self.done_seconds, self.total_seconds = done_seconds, total_seconds

    @property
    def transcript(self) -> Transcript:
        """The segments so far; its duration is the part of the recording that was processed."""
        return Transcript(
            tuple(sorted(self._segments, key=lambda segment: segment.start)),
            self._bundle.tokenizer.language,
            self.done_seconds,
            self._bundle.name,
            tuple(self._warnings),
        )
