"""OpenAI's events of a realtime session that transcribes
(https://platform.openai.com/docs/guides/realtime-transcription).

An item is an utterance; without turn detection, all until "input_audio_buffer.commit". Its deltas are words
that do not change while it is being spoken; the text of "completed" replaces them.
"""

import base64
import binascii
import secrets
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from asr.recognizer import Recognizer
from asr.serve.errors import ApiError
from asr.serve.live import Connection, parsed
from asr.serve.openai import TranscriptionForm, hotwords, name_of
from asr.streaming import Event, Final
from asr.tokenizer import WORD_BOUNDARY


class Format(BaseModel):
    """Of the sound: 16-bit little-endian PCM, mono."""

    type: Literal["audio/pcm"] = "audio/pcm"
    rate: float = 24_000


class Transcription(BaseModel):
    """As the fields of a request for a file."""

    model: str | None = None
    language: str | None = None
    languages: list[str] = []
    prompt: str = Field("", max_length=10_000)
    keywords: list[str] = []


class Input(BaseModel):
    """What a client may set; other fields are ignored. Without turn detection it commits each item itself."""

    format: Format = Format()
    transcription: Transcription = Transcription()
    turn_detection: dict[str, Any] | None = {"type": "server_vad"}


class Audio(BaseModel):
    """Where the present API has the fields."""

    input: Input = Input()


class Session(BaseModel):
    """Fields of "session.update", and of "transcription_session.update", which was first."""

    type: Literal["transcription"] = "transcription"
    audio: Audio = Audio()
    input_audio_format: Literal["pcm16"] = "pcm16"
    input_audio_transcription: Transcription = Transcription()
    turn_detection: dict[str, Any] | None = None


class ClientEvent(BaseModel):
    """A message of the client."""

    type: str
    event_id: str | None = None
    audio: str = ""
    session: Session = Session()


class Conversation:
    """One connection: its settings, and the item that is being spoken."""

    def __init__(self, connection: Connection, recognizers: Mapping[str, Recognizer]):
        self._connection, self._recognizers = connection, recognizers
        self._last_item: str | None = None
        self._completed_seconds = self._committed_seconds = 0.0  # of the sound
        self._session_id = f"sess_{secrets.token_hex(8)}"
        self._begin_item()

    def _begin_item(self) -> None:
        self._item = f"item_{secrets.token_hex(8)}"
        self._started, self._end = False, 0.0
        self._texts: list[str] = []  # finals
        self._stable, self._deltas = "", False  # text of the utterance that was sent, and whether any was

    def _configure(self, wanted: Input) -> None:
        asked = wanted.transcription.model_dump()
        asked |= {"languages[]": asked.pop("languages"), "keywords[]": asked.pop("keywords")}
        form = TranscriptionForm.model_validate(asked)
        recognizer = self._recognizers[name_of(form.model, self._recognizers)]
        self._connection.configure(recognizer, wanted.format.rate, hotwords(form, recognizer))
        self._input = wanted

    async def talk(self) -> None:
        """Serves a client until it goes. Raises ApiError for what ends the connection."""
        query, headers = self._connection.query, self._connection.headers
        if query.get("intent") != "transcription":
            raise ApiError(400, "invalid_value", "Only ?intent=transcription is served.", "intent")
        self._configure(Input(transcription=Transcription(model=query.get("model"))))
        kind = "transcription_session" if "realtime=v1" in headers.get("openai-beta", "") else "session"
        await self._send(f"{kind}.created", session=self._session(kind))
        while messages := await self._connection.received():
            sound = b""
            for message in messages:
                try:
                    event = parsed(message, ClientEvent)
                    if event.type == "input_audio_buffer.append":
                        sound += _decoded(event.audio)
                        continue
                except ApiError as error:
                    await self.fail(error)
                    continue
                await self._append(sound)
                sound = b""
                try:
                    await self._obey(event)
                except ApiError as error:
                    await self.fail(error, event.event_id)
            await self._append(sound)

    async def fail(self, error: ApiError, event_id: str | None = None) -> None:
        """Tells the client of an error, in its event of that id if it has one."""
        await self._send("error", error={**error.to_dict()["error"], "event_id": event_id})

    async def _obey(self, event: ClientEvent) -> None:
        match event.type:
            case "session.update" | "transcription_session.update":
                if self._connection.seconds > self._committed_seconds:
                    raise ApiError(400, "session_in_use", "Commit or clear the sound before an update.")
                kind = event.type.removesuffix(".update")
                self._configure(_updated(self._input, event.session))
                await self._send(f"{kind}.updated", session=self._session(kind))
            case "input_audio_buffer.commit":
                if self._connection.seconds == self._committed_seconds:
                    empty = "input_audio_buffer_commit_empty"
                    raise ApiError(400, empty, "There is no sound since the last commit.")
                before = self._last_item
                await self._tell(await self._connection.finish())
                if self._last_item == before:
                    await self._complete()
                self._committed_seconds = self._connection.seconds
            case "input_audio_buffer.clear":
                await self._connection.finish()
                self._begin_item()
                self._committed_seconds = self._connection.seconds
                await self._send("input_audio_buffer.cleared")
            case _:
                raise ApiError(400, "unknown_event", f"{event.type[:50]} is not served.", "type")

    async def _append(self, sound: bytes) -> None:
        async for events in self._connection.write(sound):
            await self._tell(events)

    async def _tell(self, events: list[Event]) -> None:
        """What is new with a part of the sound, in which one utterance ends at most."""
        detects = self._input.turn_detection is not None
        for event in events:
            if isinstance(event, Final):
                await self._start(event.segment.start)
                self._texts.append(event.segment.text)
                self._stable, self._end = "", event.segment.end
                continue
            if detects and (self._texts or not event.text):  # it is over, or was none
                await self._complete()
            if event.text:
                await self._start(event.start)
                self._end = event.end
            await self._send_delta(event.text[: event.stable_length])
        if detects and self._texts:
            await self._complete()

    async def _start(self, seconds: float) -> None:
        if not self._started and self._input.turn_detection is not None:
            kind = "input_audio_buffer.speech_started"
            await self._send(kind, item_id=self._item, audio_start_ms=round(1000 * seconds))
        self._started = True

    async def _send_delta(self, stable: str) -> None:
        new = stable[len(self._stable) :]
        if new:
            space = WORD_BOUNDARY if self._deltas and not self._stable else ""
            kind = "conversation.item.input_audio_transcription.delta"
            await self._send(kind, item_id=self._item, content_index=0, delta=space + new)
            self._deltas = True
        self._stable = stable

    async def _complete(self) -> None:
        item, text = self._item, WORD_BOUNDARY.join(self._texts)
        if self._started and self._input.turn_detection is not None:
            end = round(1000 * self._end)
            await self._send("input_audio_buffer.speech_stopped", item_id=item, audio_end_ms=end)
        after = {"previous_item_id": self._last_item}
        await self._send("input_audio_buffer.committed", item_id=item, **after)
        content = [{"type": "input_audio", "transcript": None}]
        created = {"id": item, "object": "realtime.item", "type": "message", "role": "user"}
        created |= {"status": "completed", "content": content}
        await self._send("conversation.item.created", item=created, **after)
        usage = {"type": "duration", "seconds": round(self._connection.seconds - self._completed_seconds, 3)}
        kind = "conversation.item.input_audio_transcription.completed"
        await self._send(kind, item_id=item, content_index=0, transcript=text, usage=usage)
        self._last_item, self._completed_seconds = item, self._connection.seconds
        self._begin_item()

    async def _send(self, kind: str, **fields: Any) -> None:
        await self._connection.send({"type": kind, "event_id": f"event_{secrets.token_hex(8)}", **fields})

    def _session(self, kind: str) -> dict[str, Any]:
        """As "session.created" describes it, or "transcription_session.created"."""
        found = {"object": "realtime.transcription_session", "id": self._session_id}
        if kind == "session":
            return {**found, "type": "transcription", "audio": {"input": self._input.model_dump()}}
        transcription = self._input.transcription.model_dump()
        found |= {"input_audio_format": "pcm16", "input_audio_transcription": transcription}
        return {**found, "turn_detection": self._input.turn_detection}


async def talk(connection: Connection, recognizers: Mapping[str, Recognizer]) -> None:
    """Serves a client until it goes. Raises ApiError for what ends the connection, after telling it."""
    conversation = Conversation(connection, recognizers)
    try:
        await conversation.talk()
    except ApiError as error:
        await conversation.fail(error)
        raise


def _decoded(audio: str) -> bytes:
    try:
        return base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, "invalid_value", "The audio is not base64.", "audio") from None


def _updated(before: Input, session: Session) -> Input:
    """With what the client has set, in the one place or the other."""
    given = session.audio.input.model_dump(exclude_unset=True)
    if "input_audio_transcription" in session.model_fields_set:
        given["transcription"] = session.input_audio_transcription.model_dump(exclude_unset=True)
    if "turn_detection" in session.model_fields_set:
        given["turn_detection"] = session.turn_detection
    found = before.model_dump()
    for name, value in given.items():
        found[name] = found[name] | value if name != "turn_detection" else value
    return Input.model_validate(found)
