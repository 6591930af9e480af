"""The application: the API, and the page for all other addresses."""

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asr import __version__
from asr.recognizer import Recognizer
from asr.serve import page, realtime, vosk
from asr.serve.errors import ApiError, answer
from asr.serve.line import Line
from asr.serve.live import Live
from asr.serve.metrics import Metrics
from asr.serve.openai import openai_routes
from asr.serve.settings import Settings
from asr.turns import Turns

if TYPE_CHECKING:
    from asr.web.page import Tab

API_ROOT = "/v1/"
API_PATHS = ("/v1", "/healthz", "/metrics", "/openapi.json")
TRANSCRIPTIONS = "/v1/audio/transcriptions"

log = logging.getLogger("hark")


def build_app(
    recognizers: Mapping[str, Recognizer],
    settings: Settings,
    with_page: bool = True,
    tabs: "Mapping[str, Tab] | None" = None,
) -> ASGIApp:
    """The server of `recognizers` (name → recogniser, at least one; the first is the default).

    `tabs` are those that `build_page` takes.
    Raises ModuleNotFoundError where the page is wanted and Gradio is not installed.
    """
    metrics = Metrics()
    turns = Turns(max(recognizer.workers for recognizer in recognizers.values()))  # of the page and the API
    api = build_api(recognizers, settings, turns, metrics, with_page)
    mounted = build_mounted_page(recognizers, turns, tabs) if with_page else api

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")  # none at the start and the end of the server
        # The page, though at the root, too, has no WebSockets.
        is_api = scope["type"] == "websocket" or path in API_PATHS or path.startswith(API_ROOT)
        await (api if is_api else mounted)(scope, receive, send)

    return Observed(app, metrics)


def build_api(
    recognizers: Mapping[str, Recognizer], settings: Settings, turns: Turns, metrics: Metrics, with_page: bool
) -> FastAPI:
    """The API, and of the page the live text."""
    api = FastAPI(
        title="Hark",
        version=__version__,
        summary="Speech to text on this machine, as OpenAI's clients call it.",
        docs_url=None,  # FastAPI's pages load their scripts from other hosts
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    if settings.cors_origins:
        headers = {"allow_methods": ["GET", "POST"], "allow_headers": ["Authorization", "Content-Type"]}
        api.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, **headers)
    for kind in (ApiError, HTTPException, RequestValidationError, Exception):
        api.add_exception_handler(kind, answer)
    line = Line(settings.at_once, turns, settings.max_wait_seconds, metrics)
    api.include_router(openai_routes(recognizers, settings, line, metrics))

    live = Live(settings, turns.at_once, metrics)

    @api.websocket("/")
    async def vosk_server(websocket: WebSocket) -> None:
        await live.serve(websocket, lambda connection: vosk.talk(connection, recognizers))

    @api.websocket("/v1/realtime")
    async def realtime_transcription(websocket: WebSocket) -> None:
        subprotocol = "realtime" if "realtime" in websocket.scope["subprotocols"] else None
        await live.serve(websocket, lambda connection: realtime.talk(connection, recognizers), subprotocol)

    if with_page:

        @api.websocket("/live")
        async def live_text_of_the_page(websocket: WebSocket) -> None:
            await live.serve(websocket, lambda connection: page.talk(connection, recognizers), for_page=True)

    @api.get("/healthz", summary="Whether the server answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @api.get("/metrics", summary="Counters for Prometheus")
    async def counters() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return api


def build_mounted_page(
    recognizers: Mapping[str, Recognizer], turns: Turns, tabs: "Mapping[str, Tab] | None"
) -> FastAPI:
    """The page at the root of an application of its own."""
    import gradio

    from asr.web.page import build_page, serving_options

    blocks = build_page(recognizers, turns, tabs)
    return gradio.mount_gradio_app(FastAPI(openapi_url=None), blocks, "/", **serving_options())


class Observed:
    """Counts and times requests, and logs those to the API, without any of their content."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 499  # if none is sent: the client has gone

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            log.exception("a bug in Hark:")  # it was answered with status 500
        finally:
            self._note(Request(scope), status, time.monotonic() - started)

    def _note(self, request: Request, status: int, seconds: float) -> None:
        # The route's pattern, since an address may hold anything.
        route = getattr(request.scope.get("route"), "path", None)
        is_api = route is not None and (route in API_PATHS or route.startswith(API_ROOT))
        route = route if is_api else "other"
        self.metrics.requests.labels(route, status).inc()
        error = getattr(request.state, "error", None)
        if error is not None:
            self.metrics.errors.labels(error.code).inc()
        if not route.startswith(API_ROOT):
            return
        if route == TRANSCRIPTIONS:
            self.metrics.request_seconds.observe(seconds)
        job = getattr(request.state, "job", None)
        sound = f", {job.done_seconds:.1f} s of sound" if job else ""
        failed = f" {error.code}" if error else ""
        log.info("%s %s %d%s in %.2f s%s", request.method, route, status, failed, seconds, sound)
