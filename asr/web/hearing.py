"""A recording while it is transcribed: what the page and its API ask of a recogniser."""

from collections.abc import Iterator

from asr.recognizer import Recognizer
from asr.transcript import Segment, Transcript

READINGS = 4  # of each segment: the text, and what else it may have been


class Hearing:
    """Iterate to get the segments of `sound` as they are heard; `transcript` holds those heard so far.

    Args:
      recognizer: does the work, lazily.
      sound: path of a recording.
      decoder: "greedy" or "beam".
      hotwords: names and terms to expect, separated by commas or lines.

    Raises ValueError for an unknown decoder and for hot words that "greedy" cannot use, and while iterating
    AudioError for a recording that cannot be read.
    """

    def __init__(self, recognizer: Recognizer, sound: str, decoder: str, hotwords: str = ""):
        terms = tuple(term.strip() for term in hotwords.replace("\n", ",").split(",") if term.strip())
        self.done_seconds = 0.0
        self.total_seconds: float | None = None  # not known for every kind of file
        self._bundle = recognizer.bundle
        self._segments: list[Segment] = []
        self._source = recognizer.segments(
            sound,
            decoder=decoder,
            hotwords=terms,
            n_best=READINGS if decoder == "beam" else 1,
            progress=self._advance,
        )

    def __iter__(self) -> Iterator[Segment]:
        for segment in self._source:
            self._segments.append(segment)
            yield segment

    def _advance(self, done_seconds: float, total_seconds: float | None) -> None:
        self.done_seconds, self.total_seconds = done_seconds, total_seconds

    @property
    def transcript(self) -> Transcript:
        """What was heard so far; its duration is what was listened to."""
        return Transcript(
            tuple(self._segments), self._bundle.tokenizer.language, self.done_seconds, self._bundle.name
        )
