"""The page's own protocol of live text.

The first message says how to recognise: {"rate": 48000, "model": ..., "decoder": ..., "hotwords": "A, B"}.
All others are 16-bit little-endian PCM. The first answer is {"transcript": ...}, without segments yet. Then
come {"partial": TEXT, "stable_length": ..., "start": ...} and {"segment": ...}, as asr/streaming.py has them,
in seconds since the first sound. Transcript and segments are those of asr/web/edited.py.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from asr.recognizer import Recognizer
from asr.serve.errors import ApiError
from asr.serve.live import Connection, parsed
from asr.serve.openai import is_spelled, name_of
from asr.streaming import Event, Final
from asr.transcript import Transcript
from asr.web.edited import segment_to_page, to_page
from asr.web.recognize import separated


class Wanted(BaseModel):
    """What the page has chosen."""

    rate: float
    model: str
    decoder: str
    hotwords: str = Field("", max_length=10_000)


async def talk(connection: Connection, recognizers: Mapping[str, Recognizer]) -> None:
    """Serves the page until it goes. Raises ApiError for what it should not send."""
    first, *rest = await connection.received() or [b""]
    wanted = parsed(first, Wanted)
    recognizer = recognizers[name_of(wanted.model, recognizers)]
    hotwords = [word for word in separated(wanted.hotwords) if is_spelled(word, recognizer.tokenizer)]
    connection.configure(recognizer, wanted.rate, hotwords, wanted.decoder)
    empty = Transcript((), recognizer.tokenizer.language, 0.0, recognizer.bundle.name)
    await connection.send({"transcript": to_page(empty)})
    while rest or (rest := await connection.received()):
        if not all(isinstance(message, bytes) for message in rest):
            raise ApiError(400, "invalid_value", "After the first message there is only sound.")
        async for events in connection.write(b"".join(rest)):
            for event in events:
                await connection.send(_described(event))
        rest = []


def _described(event: Event) -> dict[str, Any]:
    if isinstance(event, Final):
        return {"segment": segment_to_page(event.segment)}
    return {"partial": event.text, "stable_length": event.stable_length, "start": round(event.start, 3)}
