"""Uploads to the API: some are recognised at once, in turns; others wait."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import BinaryIO

from asr.audio import AudioError, duration_seconds
from asr.recognizer import Recognizer
from asr.serve.errors import ApiError, gone
from asr.serve.metrics import Metrics
from asr.transcript import Segment, Transcript
from asr.turns import Turns

MAX_WAITING = 32  # recordings; more would mean minutes of waiting, and fill the disk
RETRY_SECONDS = 10


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


class Line:
    """Recordings that are recognised and those that wait.

    Args:
      at_once: recordings that take turns.
      max_wait_seconds: until a recording's first turn.
    """

    def __init__(self, at_once: int, turns: Turns, max_wait_seconds: float, metrics: Metrics):
        self.turns, self.max_wait_seconds, self.metrics = turns, max_wait_seconds, metrics
        self.max_inside = at_once + MAX_WAITING
        self.inside = 0  # those whose uploads are read, too
        self._places = asyncio.Semaphore(at_once)  # given first come, first served

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """For the whole of a request. Raises ApiError where there are too many."""
        if self.inside >= self.max_inside:
            raise _busy("Too many requests at once; try again later.")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """One of those that are recognised. Raises ApiError where the wait is too long."""
        try:
            with self.metrics.waiting.track_inprogress():
                async with asyncio.timeout(self.max_wait_seconds):
                    await self._places.acquire()
        except TimeoutError:
            raise _busy(f"All is busy, for {self.max_wait_seconds} s by now; try again later.") from None
        try:
            with self.metrics.recognising.track_inprogress():
                yield
        finally:
            self._places.release()

    def segments(self, job: Job) -> AsyncIterator[Segment]:
        """The segments of a job, as soon as each is recognised."""
        return self.turns.segments(job.segments(), job.give_up)


def _busy(message: str) -> ApiError:
    return ApiError(429, "rate_limit_exceeded", message, headers={"Retry-After": str(RETRY_SECONDS)})
