"""Servers for tests: in this process, on a free port, with a recogniser of a voice made by code."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from asr.serve.app import build_app
from asr.serve.live import websocket_options
from asr.serve.settings import Settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(recognizers, **settings) -> Iterator[str]:
    """The address of a server without the page, until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    limits = Settings(**settings)
    app = build_app(recognizers, limits, with_page=False)
    options = {"log_config": None, "timeout_graceful_shutdown": 1, **websocket_options(limits)}
    server = uvicorn.Server(uvicorn.Config(app, **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def wait_until(happened, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"it has not happened for {seconds} s"
        time.sleep(0.02)
