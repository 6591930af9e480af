"""OpenAI's routes for transcription, as their clients call them (https://platform.openai.com/docs/api-reference/audio)."""

import asyncio
import json
import math
import re
import time
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import Receive, Scope, Send

from asr.decoding.hotwords import HotwordError, spelled
from asr.recognizer import Recognizer
from asr.serve.errors import HEADERS, ApiError, as_api_error, gone
from asr.serve.job import Job
from asr.serve.line import Line
from asr.serve.metrics import Metrics
from asr.serve.settings import Settings
from asr.serve.upload import read_form
from asr.tokenizer import Tokenizer
from asr.transcript import Segment, Transcript, Word

# What clients have as their default, or as the only choice; all mean the server's first model.
ALIASES = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
)
MAX_HOTWORDS = 100  # each is tried in every utterance
MAX_HOTWORD_CHARACTERS = 100
LIST_WORDS = 4  # a prompt whose parts between commas have no more is a list of terms
SMALLEST_CONFIDENCE = 1e-4  # as words are rounded; its logarithm must be finite
NOSNIFF = {"X-Content-Type-Options": HEADERS["X-Content-Type-Options"]}


class TranscriptionForm(BaseModel):
    """The fields beside `file`. Others are ignored, and so are empty ones."""

    model: str | None = Field(None, description="one of /v1/models; a name of OpenAI's means the first")
    language: str | None = Field(None, description="the model's; any other is refused")
    languages: list[str] = Field([], alias="languages[]", description="the model's must be among them")
    prompt: str = Field("", max_length=10_000, description="names and terms to expect; a list or prose")
    keywords: list[str] = Field([], alias="keywords[]", description="names and terms to expect")
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    temperature: float = Field(0.0, ge=0, le=1, description="ignored: there is no chance in it")
    timestamp_granularities: list[Literal["word", "segment"]] = Field(
        [], alias="timestamp_granularities[]", description="of verbose_json (segment)"
    )
    include: list[Literal["logprobs"]] = Field(
        [], alias="include[]", description="logarithms of the confidence of each word, with json"
    )
    stream: bool = Field(False, description="the text of each segment, in server-sent events")


LISTS = {field.alias for field in TranscriptionForm.model_fields.values() if field.alias}


def form_schema() -> dict[str, Any]:
    """The request body for OpenAPI."""
    schema = TranscriptionForm.model_json_schema()
    schema["properties"] = {"file": {"type": "string", "format": "binary"}, **schema["properties"]}
    schema["required"] = ["file"]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def openai_routes(
    recognizers: Mapping[str, Recognizer], settings: Settings, line: Line, metrics: Metrics
) -> APIRouter:
    """POST /v1/audio/transcriptions and GET /v1/models for `recognizers` (the first is the default)."""
    routes = APIRouter(prefix="/v1")
    started = int(time.time())

    def allow(request: Request) -> None:
        if not settings.admits(request.headers.get("authorization", "")):
            message = "The API key is wrong or missing; send it as: Authorization: Bearer KEY."
            raise ApiError(401, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})

    def described(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": started, "owned_by": "hark"}

    @routes.get("/models", summary="The models of this server")
    async def models(request: Request) -> dict[str, Any]:
        allow(request)
        return {"object": "list", "data": [described(name) for name in recognizers]}

    @routes.get("/models/{model:path}", summary="One model")
    async def model(request: Request, model: str) -> dict[str, Any]:
        allow(request)
        return described(name_of(model, recognizers))

    @routes.post("/audio/transcriptions", summary="The text of a recording", openapi_extra=form_schema())
    async def transcriptions(request: Request) -> Response:
        allow(request)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(line.entered())
            form = await stack.enter_async_context(read_form(request, settings.max_megabytes))
            file, wanted = read_fields(form)
            recognizer = recognizers[name_of(wanted.model, recognizers)]
            job = Job(recognizer, file.file, hotwords(wanted, recognizer), settings.max_seconds)
            await stack.enter_async_context(given_up_without_client(request, job))
            await stack.enter_async_context(line.place())
            if job.given_up:
                raise gone()
            request.state.job = job
            stack.enter_context(metrics.measured(job))
            segments = line.segments(job)
            stack.push_async_callback(segments.aclose)
            if wanted.stream:
                first = await anext(segments, None)  # before the status is sent: the file may be unreadable
                return EventStream(events(first, segments, wanted, request), stack.pop_all())
            async for _ in segments:
                pass
        return rendered(job.transcript, wanted)

    return routes


def name_of(model: str | None, recognizers: Mapping[str, Recognizer]) -> str:
    """The model that a client means. Raises ApiError if there is none."""
    if model in recognizers:
        return model
    if model is None or model in ALIASES:
        return next(iter(recognizers))
    names = " or ".join(recognizers)
    raise ApiError(404, "model_not_found", f"There is no such model; choose {names}.", "model")


def read_fields(form: FormData) -> tuple[UploadFile, TranscriptionForm]:
    """The file and the other fields of a form. Raises ApiError."""
    given: dict[str, Any] = {}
    for name, value in form.multi_items():
        listed = name if name in LISTS else f"{name}[]"
        if listed in LISTS:
            given.setdefault(listed, []).append(value)
        elif value != "":
            given[name] = value
    file = given.pop("file", None)
    if not isinstance(file, UploadFile):
        raise ApiError(400, "missing_file", "The form has no file: send the recording as file.", "file")
    try:
        wanted = TranscriptionForm.model_validate(given)
    except ValidationError as error:
        [first, *_] = error.errors()
        name = str(first["loc"][0])
        raise ApiError(400, "invalid_value", f"{name}: {first['msg']}.", name) from None
    if wanted.timestamp_granularities and wanted.response_format != "verbose_json":
        _refuse("timestamp_granularities[]", "Times need response_format verbose_json.")
    if wanted.include and wanted.response_format != "json":
        _refuse("include[]", "logprobs need response_format json.")
    if wanted.stream and wanted.response_format not in ("json", "text"):
        _refuse("stream", "A stream has text only: leave response_format out.")
    return file, wanted


def hotwords(wanted: TranscriptionForm, recognizer: Recognizer) -> list[str]:
    """The names and terms to expect. Raises ApiError for too many, or another language than the model's."""
    language = recognizer.tokenizer.language
    asked = [*wanted.languages, *([wanted.language] if wanted.language else [])]
    if asked and language not in [code.lower().partition("-")[0] for code in asked]:
        name = "language" if wanted.language else "languages[]"
        _refuse(name, f"{recognizer.bundle.name} knows only the language {language}.")
    if len(wanted.keywords) > MAX_HOTWORDS or any(len(w) > MAX_HOTWORD_CHARACTERS for w in wanted.keywords):
        limit = f"{MAX_HOTWORDS} keywords of {MAX_HOTWORD_CHARACTERS} characters"
        _refuse("keywords[]", f"At most {limit} are possible.")
    if wanted.keywords and not recognizer.bundle.has_ctc:
        _refuse("keywords[]", f"{recognizer.bundle.name} cannot look for keywords.")
    if not recognizer.bundle.has_ctc:  # a prompt is a hint that may be of no use
        return []
    try:
        spelled(wanted.keywords, recognizer.tokenizer)
    except HotwordError as error:
        _refuse("keywords[]", f"{error}.")
    terms = [term for term in terms_of(wanted.prompt) if is_spelled(term, recognizer.tokenizer)]
    return list(dict.fromkeys([*wanted.keywords, *terms]))[:MAX_HOTWORDS]


def is_spelled(term: str, tokenizer: Tokenizer) -> bool:
    """Whether it can be a hot word of a model with this tokenizer."""
    try:
        return len(term) <= MAX_HOTWORD_CHARACTERS and bool(spelled(term, tokenizer))
    except HotwordError:
        return False


def terms_of(prompt: str) -> list[str]:
    """The names and terms in a prompt.

    A list gives its parts: none between commas, semicolons and line breaks has more than LIST_WORDS words.
    Prose gives its runs of words with capitals ("Ann Quillan"), but no single word at a sentence's start,
    whose capital says nothing, and no single letter ("I").

    >>> terms_of("Ann Quillan, Kubernetes, etcd")
    ['Ann Quillan', 'Kubernetes', 'etcd']
    >>> terms_of("The talk is by Ann Quillan on etcd and Kubernetes. Questions come later.")
    ['Ann Quillan', 'Kubernetes']
    """
    parts = [" ".join(part.split()).strip("\"'“”‘’.!?: ") for part in re.split(r"[,;\n\r]+", prompt)]
    parts = [part for part in parts if any(map(str.isalnum, part))]
    if all(len(part.split()) <= LIST_WORDS for part in parts):
        return parts
    found = []
    for sentence in re.split(r"(?<=[.!?])\s+|[,;:\n\r()]+", prompt):
        run: list[str] = []
        for place, word in enumerate([*sentence.split(), ""]):
            bare = word.strip("\"'“”‘’.!?")
            if bare != bare.lower():
                run.append(bare)
                continue
            if len(run) > 1 or (run and place > 1 and len(run[0]) > 1):
                found.append(" ".join(run))
            run = []
    return found


@asynccontextmanager
async def given_up_without_client(request: Request, job: Job) -> AsyncIterator[None]:
    """Gives the job up when the client goes."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        job.give_up()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


class EventStream(Response):
    """Server-sent events; `stack` is closed at their end, however it comes."""

    def __init__(self, events: AsyncIterator[dict], stack: AsyncExitStack):
        super().__init__(media_type="text/event-stream", headers={**NOSNIFF, "Cache-Control": "no-store"})
        del self.headers["content-length"]
        self.events, self.stack = events, stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.stack:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for event in self.events:
                body = f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


async def events(
    first: Segment | None, others: AsyncIterator[Segment], wanted: TranscriptionForm, request: Request
) -> AsyncIterator[dict]:
    """`transcript.text.delta` for each segment and `transcript.text.done`, or an error."""
    text, words = "", []
    try:
        segment = first
        while segment is not None:
            space = " " if text else ""
            delta = space + segment.text
            logprobs = {"logprobs": log_probs(segment.words, space)} if wanted.include else {}
            yield {"type": "transcript.text.delta", "delta": delta, **logprobs}
            text += delta
            words += segment.words
            segment = await anext(others, None)
    except Exception as error:
        request.state.error = as_api_error(error)
        yield request.state.error.to_dict()
        if request.state.error is not error:  # a bug
            raise
        return
    logprobs = {"logprobs": log_probs(words)} if wanted.include else {}
    yield {"type": "transcript.text.done", "text": text, **logprobs}


def rendered(transcript: Transcript, wanted: TranscriptionForm) -> Response:
    """The answer in the wanted format."""
    match wanted.response_format:
        case "text":
            return PlainTextResponse(f"{transcript.text}\n", headers=NOSNIFF)
        case "srt":
            return PlainTextResponse(transcript.to_srt(), headers=NOSNIFF)
        case "vtt":
            return PlainTextResponse(transcript.to_vtt(), headers=NOSNIFF, media_type="text/vtt")
        case "verbose_json":
            return JSONResponse(verbose(transcript, wanted.timestamp_granularities), headers=NOSNIFF)
    body = {"text": transcript.text, "usage": usage(transcript)}
    if wanted.include:
        body["logprobs"] = log_probs(transcript.words)
    return JSONResponse(body, headers=NOSNIFF)


def verbose(transcript: Transcript, granularities: Sequence[str]) -> dict[str, Any]:
    """`Transcript.to_dict` with the fields that OpenAI's types have beside it."""
    found = {**transcript.to_dict(), "usage": usage(transcript)}
    for segment, about in zip(transcript.segments, found["segments"], strict=True):
        data = segment.text.encode()
        about |= {
            # Whisper's mean over tokens; here over words, of how sure it is that each is right.
            "avg_logprob": sum(map(_log_confidence, segment.words)) / len(segment.words),
            "compression_ratio": len(data) / len(zlib.compress(data)),  # as Whisper computes it
            # Hark decodes speech only, without chance, in windows and tokens of its own.
            "no_speech_prob": 0.0,
            "temperature": 0.0,
            "seek": int(100 * segment.start),  # in frames of 10 ms
            "tokens": [],
        }
    if "word" not in granularities:
        del found["words"]
    elif "segment" not in granularities:
        del found["segments"]
    return found


def usage(transcript: Transcript) -> dict[str, Any]:
    """What OpenAI would bill: the seconds of sound."""
    return {"type": "duration", "seconds": round(transcript.duration, 3)}


def log_probs(words: Sequence[Word], space: str = "") -> list[dict[str, Any]]:
    """The natural logarithm of the confidence of each word, in place of each of OpenAI's tokens.

    Joined, the tokens are the text, after `space`.
    """
    tokens = [f"{' ' if place else space}{word.text}" for place, word in enumerate(words)]
    return [
        {"token": token, "bytes": list(token.encode()), "logprob": _log_confidence(word)}
        for token, word in zip(tokens, words, strict=True)
    ]


def _log_confidence(word: Word) -> float:
    return round(math.log(max(word.confidence, SMALLEST_CONFIDENCE)), 4)


def _refuse(param: str, message: str) -> None:
    raise ApiError(400, "invalid_value", message, param)
