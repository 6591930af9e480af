"""The command `hark serve`, and its other name `python app.py`: starts and ends the server."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from asr.cli import add_command
from asr.serve.settings import Settings

if TYPE_CHECKING:
    from asr.recognizer import Recognizer
    from asr.web.page import Tab

LARGEST_PORT = 65535
POLL_SECONDS = 0.2  # between two looks for a signal
GRACE_SECONDS = 3  # that open connections get when the server ends

DETAILS = """\
The page is at the printed address, the API below its /v1. Only this machine reaches it by default.
HARK_API_KEY and further environment variables limit the API: docs/serving.md."""


def add_serving(commands, tabs: Mapping[str, Tab] | None = None) -> None:
    """Adds `serve` to the commands of a parser. `tabs` are those that the page has besides its own."""
    summary = "the page and the API, for a browser and for programs"
    add = add_command(commands, "serve", summary, partial(_serve, tabs), DETAILS).add_argument
    model = "also offer the model in this folder, and select it by default; repeatable"
    add("--model", action="append", default=[], metavar="DIR", help=model)
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    add("--port", type=int, default=7860, help="port to listen on (7860)")
    add("--no-page", action="store_true", help="the API only, which needs no Gradio")


def _serve(tabs: Mapping[str, Tab] | None, options: argparse.Namespace) -> None:
    """Serves until Ctrl-C, and then ends the process. Raises ValueError for a bad option, port or model."""
    settings = Settings.from_environment(os.environ)
    listener = _listener(options.host, options.port)
    recognizers = load(options.model)
    with tempfile.TemporaryDirectory(prefix="hark-") as uploads:  # deleted at the end
        os.environ["GRADIO_TEMP_DIR"] = uploads  # read when Gradio is imported
        try:
            from asr.serve.app import build_app

            app = build_app(recognizers, settings, not options.no_page, tabs)
        except ModuleNotFoundError as error:
            extra, or_else = ("serve", "") if options.no_page else ("page", ", or --no-page for the API only")
            missing = f"the server needs {error.name}, which is not installed"
            raise ValueError(f"{missing}: pip install '.[{extra}]' in Hark's folder{or_else}") from None
        _run(app, listener, f"http://{options.host}:{options.port}", recognizers, settings)
    # A normal exit would abort if a daemon thread is still inside ONNX Runtime
    # (https://github.com/pybind/pybind11/issues/2215).
    sys.stdout.flush()
    os._exit(0)


def _listener(host: str, port: int) -> socket.socket:
    """Before models and Gradio are loaded, so that a port in use is refused at once."""
    if not 0 < port <= LARGEST_PORT:
        raise ValueError(f"--port {port} is not between 1 and {LARGEST_PORT}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        refused = f"cannot listen on {host} port {port}: {error.strerror.lower()}"
        raise ValueError(f"{refused}; try another --port, for example {port + 1}") from None
    return listener


def load(folders: Sequence[str]) -> Mapping[str, Recognizer]:
    """Recognisers by model name, or by folder if the name is taken."""
    from asr.bundle import available_bundles
    from asr.recognizer import Recognizer

    recognizers: dict[str, Recognizer] = {}
    for folder in [*folders, *(str(bundle.directory) for bundle in available_bundles())]:
        recognizer = Recognizer.load(folder)
        name = recognizer.bundle.name
        recognizers[folder if name in recognizers else name] = recognizer
    if not recognizers:
        raise ValueError("no model is installed: pass a folder with --model DIR")
    return recognizers


def _run(
    app, listener: socket.socket, address: str, recognizers: Mapping[str, Recognizer], settings: Settings
) -> None:
    import uvicorn

    from asr.serve.live import websocket_options

    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: received.append(number))
    _log_requests()
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="critical",  # errors are logged by the application
        access_log=False,  # which would hold what was asked for
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=GRACE_SECONDS,
        **websocket_options(settings),
    )
    server = uvicorn.Server(config)
    # Not in the main thread, where uvicorn would end the process by the signal.
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    serving.start()
    while not (server.started or received) and serving.is_alive():
        time.sleep(POLL_SECONDS / 10)
    print(f"Hark is listening on {address}", flush=True)
    threading.Thread(target=warm_up, args=[recognizers], daemon=True).start()
    # Not signal.pause(): it goes on sleeping where the kernel hands the signal to another thread.
    while not received and serving.is_alive():
        time.sleep(POLL_SECONDS)
    server.should_exit = True
    serving.join(GRACE_SECONDS + 1)


def _log_requests() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("hark")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    # It warns of broken forms, of which their senders are told.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


def warm_up(recognizers: Mapping[str, Recognizer]) -> None:
    """Decodes once with each model, since the first search and alignment on a machine have to be compiled."""
    import numpy as np

    from asr.audio import SAMPLE_RATE
    from asr.decoding.alignment import forced_align

    second = np.zeros(SAMPLE_RATE, np.float32)
    for recognizer in recognizers.values():
        decode = recognizer.decoder()
        encoding = recognizer.engine.encode(second)
        decode(encoding)
        if encoding.log_probs is not None:
            forced_align(encoding.log_probs, [1])
