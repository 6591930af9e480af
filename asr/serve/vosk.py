"""The protocol of vosk-server (https://github.com/alphacep/vosk-server), which its clients speak.

The client sends {"config": {...}} if it likes, blocks of 16-bit PCM, and {"eof": 1}; each block is answered
by {"partial": TEXT}, or if something was over with it by {"result": [WORD...], "text": TEXT}.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from pydantic import BaseModel, Field

from asr.recognizer import Recognizer
from asr.serve.errors import ApiError
from asr.serve.live import Connection, parsed
from asr.serve.openai import MAX_HOTWORDS, is_spelled, name_of
from asr.streaming import Event, Final
from asr.tokenizer import WORD_BOUNDARY
from asr.transcript import Word


class Config(BaseModel):
    """What a client may set; other fields are ignored."""

    sample_rate: float = 8000  # vosk-server's default
    phrase_list: list[str] = Field([], max_length=MAX_HOTWORDS)
    words: bool = True
    max_alternatives: int = 0
    model: str | None = None


class Command(BaseModel):
    """A message of text. With "eof" or "reset" comes the final text; after "eof" the connection ends."""

    config: Config | None = None
    eof: Any = None
    reset: Any = None


async def talk(connection: Connection, recognizers: Mapping[str, Recognizer]) -> None:
    """Serves a client until its "eof", or until it goes. Raises ApiError for what it should not send."""
    config, partial = Config(), ""
    _configure(connection, config, recognizers)
    while messages := await connection.received():
        for is_sound, group in groupby(messages, lambda message: isinstance(message, bytes)):
            if is_sound:
                blocks = list(group)
                events = [event async for part in connection.write(b"".join(blocks)) for event in part]
                for _ in blocks[1:]:  # every block gets its answer
                    await connection.send({"partial": partial})
                partial = _partial(events, partial)
                over = any(isinstance(event, Final) for event in events)
                await connection.send(_result(events, config) if over else {"partial": partial})
                continue
            for text in group:
                command = parsed(text, Command)
                if not command.model_fields_set:
                    raise ApiError(400, "invalid_value", "The message has neither config, eof nor reset.")
                if command.config is not None:
                    config = config.model_copy(update=command.config.model_dump(exclude_unset=True))
                    _configure(connection, config, recognizers)
                    continue
                await connection.send(_result(await connection.finish(), config))
                partial = ""
                if command.eof is not None:
                    return


def _configure(connection: Connection, config: Config, recognizers: Mapping[str, Recognizer]) -> None:
    recognizer = recognizers[name_of(config.model, recognizers)]
    # What cannot be written is left out: "[unk]", which stands for all other words there.
    phrases = [phrase for phrase in config.phrase_list if is_spelled(phrase, recognizer.tokenizer)]
    connection.configure(recognizer, config.sample_rate, phrases)


def _partial(events: Iterable[Event], before: str) -> str:
    """The text of the utterance that is being spoken."""
    for event in events:
        before = "" if isinstance(event, Final) else event.text
    return before


def _result(events: Iterable[Event], config: Config) -> dict[str, Any]:
    segments = [event.segment for event in events if isinstance(event, Final)]
    words = [word for segment in segments for word in segment.words]
    found: dict[str, Any] = {"result": list(map(_described, words))} if config.words and words else {}
    found["text"] = WORD_BOUNDARY.join(segment.text for segment in segments)
    if config.max_alternatives > 0:
        confidence = sum(word.confidence for word in words) / max(1, len(words))
        return {"alternatives": [{"confidence": round(confidence, 4), **found}]}
    return found


def _described(word: Word) -> dict[str, Any]:
    times = {"start": round(word.start, 3), "end": round(word.end, 3)}
    return {"conf": round(word.confidence, 4), **times, "word": word.text}
