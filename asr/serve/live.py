"""Live text over WebSockets: what the protocols of vosk.py and realtime.py share.

Recognition is in threads, in turns, so that nobody has to wait for another's flood. From a client that sends
faster than is recognised no more is read until that is done; what has come meanwhile is one block.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from pydantic import BaseModel, ValidationError
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from asr.audio import AudioError
from asr.recognizer import Recognizer
from asr.serve.errors import ApiError, as_api_error
from asr.serve.line import RETRY_SECONDS
from asr.serve.metrics import Metrics
from asr.serve.settings import BEARER, Settings
from asr.streaming import Event, Final, Stream

# Recognised in one turn. It is shorter than the pause that ends an utterance, so that the finals that come of
# it are of one utterance.
TURN_SECONDS = 1.0
MOST_WAITING_BYTES, MOST_WAITING = 2**16, 1000  # messages, and their size, that are taken together
OPENAI_KEY = "openai-insecure-api-key."  # a subprotocol: how OpenAI's client in a browser sends the key
CLOSE_CODES = {400: 1007, 500: 1011}  # others are 1008 (RFC 6455, 7.4.1)
MOST_REASON_BYTES = 123  # RFC 6455, 5.5

Result = TypeVar("Result")
Message = TypeVar("Message", bound=BaseModel)
log = logging.getLogger("hark")


def websocket_options(settings: Settings) -> dict[str, Any]:
    """For `uvicorn.Config`."""
    return {
        "ws_max_size": settings.max_message_kilobytes * 1000,
        # Of no use for sound, and not safe: a thousandth of the bytes would fill the memory.
        "ws_per_message_deflate": False,
        # The answer would wait behind the sound of a client that sends a file; the idle are closed anyway.
        "ws_ping_interval": None,
    }


class Connection:
    """One client, and the stream of its sound.

    Attributes:
      seconds: of sound so far.
    """

    def __init__(self, websocket: WebSocket, settings: Settings, turns: CapacityLimiter, metrics: Metrics):
        self.headers, self.query = websocket.headers, websocket.query_params
        self.seconds = 0.0
        self._websocket, self._settings, self._turns, self._metrics = websocket, settings, turns, metrics
        self._receiving: asyncio.Task | None = None
        self._stream: Stream | None = None
        self._stream_start = 0.0  # in seconds of the sound

    def configure(
        self, recognizer: Recognizer, rate: float, hotwords: list[str], decoder: str | None = None
    ) -> None:
        """How the next stream is recognised: that of the first sound, or of the first after `finish`.

        Raises ApiError if the model cannot.
        """
        if not recognizer.bundle.has_ctc:
            raise ApiError(400, "no_live_text", f"{recognizer.bundle.name} has no live text.", "model")
        self._configured = rate, lambda: recognizer.stream(rate, decoder=decoder, hotwords=hotwords)

    async def received(self) -> list[str | bytes]:
        """The next message and those that have come with it; none if the client has gone. Raises ApiError."""
        found: list[str | bytes] = []
        size = 0
        while size < MOST_WAITING_BYTES and len(found) < MOST_WAITING:
            self._receiving = self._receiving or asyncio.create_task(self._websocket.receive())
            idle_seconds = 0 if found else self._settings.max_idle_seconds
            done, _ = await asyncio.wait([self._receiving], timeout=idle_seconds)
            if not done and not found:
                raise ApiError(408, "idle", f"Nothing has come for {idle_seconds} s.")
            if not done or self._receiving.result()["type"] == "websocket.disconnect":
                break
            message = self._receiving.result()
            self._receiving = None
            found.append(message["text"] if message.get("text") is not None else message["bytes"])
            size += len(found[-1])
        return found

    async def send(self, message: Mapping[str, Any]) -> None:
        """Raises ApiError if the client reads nothing, WebSocketDisconnect if it has gone."""
        try:
            async with asyncio.timeout(self._settings.max_idle_seconds):
                await self._websocket.send_text(json.dumps(message, ensure_ascii=False))
        except TimeoutError:
            raise ApiError(408, "idle", "The answers are not read.") from None

    async def write(self, sound: bytes) -> AsyncIterator[list[Event]]:
        """The events of each part of the sound, 16-bit little-endian PCM. Raises ApiError."""
        if not sound:
            return
        if self._stream is None:
            self._rate, opened = self._configured
            self._stream_start = self.seconds
            try:
                self._stream = await self._in_turn(opened)
            except ValueError as error:  # a decoder that the model lacks, or that knows no hot words
                raise ApiError(400, "invalid_value", f"{error}.") from None
        turn_bytes = 2 * round(TURN_SECONDS * self._rate)
        for start in range(0, len(sound), turn_bytes):
            part = sound[start : start + turn_bytes]
            yield self._moved(await self._in_turn(self._stream.write, part))
            seconds = len(part) / 2 / self._rate
            self.seconds += seconds
            self._metrics.streamed_seconds.inc(seconds)
            if self.seconds > self._settings.max_seconds:
                raise self.too_long()

    async def finish(self) -> list[Event]:
        """The last events of the stream; sound that comes later begins another one."""
        if self._stream is None:
            return []
        stream, self._stream = self._stream, None
        return self._moved(await self._in_turn(stream.finish))

    def too_long(self) -> ApiError:
        """For a client that has had what it may have."""
        limit = f"{self._settings.max_seconds} s"
        return ApiError(400, "audio_too_long", f"The stream is longer than {limit}; open another one.")

    async def _in_turn(self, function: Callable[..., Result], *arguments: object) -> Result:
        try:
            return await to_thread.run_sync(function, *arguments, limiter=self._turns)
        except AudioError as error:
            raise ApiError(400, "unreadable_audio", f"Not readable: {error}.") from None

    def _moved(self, events: list[Event]) -> list[Event]:
        """From seconds of the stream to seconds of all the sound."""
        return [_moved(event, self._stream_start) for event in events] if self._stream_start else events

    async def close(self, code: int, reason: str) -> None:
        """Says goodbye to a client that may have gone, and forgets it."""
        if self._receiving is not None:
            self._receiving.cancel()
        reason = reason.encode()[:MOST_REASON_BYTES].decode(errors="ignore")
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            async with asyncio.timeout(1):  # it may be one that reads nothing
                await self._websocket.close(code, reason)


def parsed(message: str | bytes, kind: type[Message]) -> Message:
    """A message in JSON. Raises ApiError that names what is wrong in it."""
    try:
        return kind.model_validate_json(message)
    except ValidationError as error:
        [first, *_] = error.errors()
        place = ".".join(map(str, first["loc"]))
        raise ApiError(400, "invalid_value", f"{place or 'The message'}: {first['msg']}.", place) from None


def _moved(event: Event, seconds: float) -> Event:
    def moved(part):
        return replace(part, start=part.start + seconds, end=part.end + seconds)

    if not isinstance(event, Final):
        return moved(event)
    return Final(replace(moved(event.segment), words=tuple(map(moved, event.segment.words))))


class Live:
    """All connections: how many there are, and whose turn it is.

    Args:
      cores: turns at the same time.
    """

    def __init__(self, settings: Settings, cores: int, metrics: Metrics):
        self._settings, self._metrics = settings, metrics
        self._turns = CapacityLimiter(cores)  # first come, first served
        self._count = 0

    async def serve(
        self,
        websocket: WebSocket,
        talk: Callable[[Connection], Awaitable[None]],
        subprotocol: str | None = None,
        for_page: bool = False,
    ) -> None:
        """Talks until the client or `talk` ends it; what `talk` raises is told by the close code.

        With `for_page` only the server's own page may connect, which has no key.
        """
        try:
            self._admit(websocket, for_page)
        except ApiError as error:
            self._metrics.errors.labels(error.code).inc()
            answer = JSONResponse(error.to_dict(), error.status, error.headers)
            await websocket.send_denial_response(answer)
            return
        started, code, reason = time.monotonic(), 1000, ""
        connection = Connection(websocket, self._settings, self._turns, self._metrics)
        self._add(1)
        try:
            await websocket.accept(subprotocol)
            async with asyncio.timeout(self._settings.max_seconds):
                await talk(connection)
        except WebSocketDisconnect:
            pass
        except Exception as error:
            found = connection.too_long() if isinstance(error, TimeoutError) else as_api_error(error)
            self._metrics.errors.labels(found.code).inc()
            code, reason = CLOSE_CODES.get(found.status, 1008), str(found)
            if found.status == 500:
                log.exception("a bug in Hark:")
        finally:
            self._add(-1)
            await connection.close(code, reason)
        path, took = websocket.scope["route"].path, time.monotonic() - started
        log.info("WebSocket %s %d in %.2f s, %.1f s of sound", path, code, took, connection.seconds)

    def _add(self, change: int) -> None:
        self._count += change
        self._metrics.streams.set(self._count)

    def _admit(self, websocket: WebSocket, for_page: bool) -> None:
        """Raises ApiError for whom the server is not there."""
        offered = [name for name in websocket.scope["subprotocols"] if name.startswith(OPENAI_KEY)]
        keys = [name.removeprefix(OPENAI_KEY) for name in offered]
        keys += websocket.query_params.getlist("api_key")
        # As in a header, of which Starlette reads the bytes as Latin-1.
        given = [BEARER + key.encode().decode("latin-1") for key in keys]
        given.append(websocket.headers.get("authorization", ""))
        if not for_page and not any(map(self._settings.admits, given)):
            message = "The API key is wrong or missing; send Authorization: Bearer KEY, or ?api_key=KEY."
            raise ApiError(401, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})
        # Browsers let any page open a WebSocket anywhere, this machine included.
        origin = websocket.headers.get("origin")
        known = () if for_page else (None, *self._settings.cors_origins)
        if origin not in known and (origin or "").partition("://")[2] != websocket.headers.get("host"):
            raise ApiError(403, "foreign_origin", "Pages of this origin may not: see HARK_CORS_ORIGINS.")
        if self._count >= self._settings.max_streams:
            message = f"All {self._settings.max_streams} streams are in use; try again later."
            retry = {"Retry-After": str(RETRY_SECONDS)}
            raise ApiError(429, "rate_limit_exceeded", message, headers=retry)
