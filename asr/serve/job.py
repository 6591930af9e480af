"""The recognition of one upload to the API."""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from asr.audio import AudioError, duration_seconds
from asr.recognizer import Recognizer
from asr.serve.errors import ApiError, gone
from asr.transcript import Segment, Transcript


class Job:
    """The recognition of one upload; `transcript` holds what was recognised so far.

    Attributes:
      done_seconds: of the recording.
      given_up: whether the work ends soon.
    """

    def __init__(self, recognizer: Recognizer, file: BinaryIO, hotwords: Sequence[str], max_seconds: float):
        self.recognizer, self.file, self.hotwords, self.max_seconds = recognizer, file, hotwords, max_seconds
        self.done_seconds = 0.0
        self.given_up = False
        self._segments: list[Segment] = []
        self._warnings: list[str] = []

    def segments(self) -> Iterator[Segment]:
        """Recognises. Raises ApiError for a recording that cannot be read, or is too long."""
        try:
            self._check(duration_seconds(self.file) or 0.0)
            found = self.recognizer.segments(
                self.file,
                hotwords=self.hotwords,
                progress=self._advance,
                reading=self._check,
                warn=lambda warning: self._warnings.append(self._named(warning)),
            )
            for segment in found:
                self._segments.append(segment)
                yield segment
        except AudioError as error:
            raise ApiError(400, "unreadable_audio", self._named(error), "file") from None

    def give_up(self) -> None:
        """From any thread."""
        self.given_up = True

    def _advance(self, done_seconds: float, stated_seconds: float | None) -> None:
        self.done_seconds = done_seconds

    def _check(self, seconds: float) -> None:
        if self.given_up:
            raise gone()
        if seconds > self.max_seconds:
            message = f"The recording is longer than {self.max_seconds} s; cut it into parts."
            raise ApiError(400, "audio_too_long", message, "file")

    def _named(self, message: object) -> str:
        return str(message).replace(f"the given {type(self.file).__name__}", "The file")

    @property
    def transcript(self) -> Transcript:
        """Of the segments so far."""
        return Transcript(
            tuple(sorted(self._segments, key=lambda segment: segment.start)),
            self.recognizer.tokenizer.language,
            self.done_seconds,
            self.recognizer.bundle.name,
            tuple(self._warnings),
        )
