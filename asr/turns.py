"""Recordings that are recognised at once take turns, utterance by utterance.

So a short recording is done before an hour's, whichever came first.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

from anyio import CancelScope, to_thread

from asr.transcript import Segment

TURN_SECONDS = 1.0  # an utterance takes less; the next one of a silent recording may be hours away


class Turns:
    """Whose turn it is: first come, first served. For one event loop.

    Args:
      at_once: turns at the same time.

    Attributes:
      at_once: the same.
      recordings: that take turns now.
    """

    def __init__(self, at_once: int):
        self.at_once, self.recordings = at_once, 0
        self._turns = asyncio.Semaphore(at_once)

    async def segments(
        self, segments: Iterator[Segment], give_up: Callable[[], None] = lambda: None
    ) -> AsyncIterator[Segment]:
        """The same segments, each computed in a thread and a turn.

        Args:
          segments: a generator, which is closed at the end.
          give_up: asks it to end its work soon; called when this is closed.
        """
        step = None
        self.recordings += 1
        try:
            while True:
                async with self._turns:
                    step = asyncio.create_task(to_thread.run_sync(next, segments, None))
                    await asyncio.wait([step], timeout=TURN_SECONDS)
                await asyncio.wait([step])  # without cancelling it, which a thread cannot be
                segment = step.result()
                if segment is None:
                    return
                yield segment
        finally:
            self.recordings -= 1
            give_up()
            with CancelScope(shield=True):
                if step is not None:
                    await asyncio.wait([step])
                await to_thread.run_sync(segments.close)
