"""Uploads to the API: some are recognised at once, in turns; others wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from asr.serve.errors import ApiError
from asr.serve.job import Job
from asr.serve.metrics import Metrics
from asr.transcript import Segment
from asr.turns import Turns

MAX_WAITING = 32  # recordings; more would mean minutes of waiting, and fill the disk
RETRY_SECONDS = 10


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
