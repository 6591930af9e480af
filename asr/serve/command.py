"""The command `hark serve`, and its other name `python app.py`: starts and ends the server."""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from asr.cli import add_command, positive
from asr.serve.settings import Settings

if TYPE_CHECKING:
    from asr.recognizer import Recognizer
    from asr.web.page import Tab

LARGEST_PORT = 65535
POLL_SECONDS = 0.2  # between two looks for a signal, or for a worker that has died
GRACE_SECONDS = 3  # that open connections get when the server ends

log = logging.getLogger("hark")

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
    workers = "processes that share the port, the models and the cores (1); more than 1 need --no-page"
    add("--workers", type=positive, default=1, metavar="N", help=workers)


def _serve(tabs: Mapping[str, Tab] | None, options: argparse.Namespace) -> None:
    """Serves until Ctrl-C, and then ends the process. Raises ValueError for a bad option, port or model."""
    settings = Settings.from_environment(os.environ)
    count = options.workers
    _check_workers(count, options.no_page)
    listener = _listener(options.host, options.port)
    recognizers = load(options.model, count)
    with tempfile.TemporaryDirectory(prefix="hark-") as temporary:  # deleted at the end
        os.environ["GRADIO_TEMP_DIR"] = temporary  # read when Gradio is imported
        if count > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = temporary  # read when prometheus_client is imported
        try:
            from asr.serve.app import build_app

            app = build_app(recognizers, settings, not options.no_page, tabs)
        except ModuleNotFoundError as error:
            extra, or_else = ("serve", "") if options.no_page else ("page", ", or --no-page for the API only")
            missing = f"the server needs {error.name}, which is not installed"
            raise ValueError(f"{missing}: pip install '.[{extra}]' in Hark's folder{or_else}") from None
        received: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: received.append(number))
        _log_requests()
        if count == 1:
            threading.Thread(target=warm_up, args=[recognizers], daemon=True).start()
        else:
            warm_up(recognizers)  # before there are workers, which share what it loads
        print(f"Hark is listening on http://{options.host}:{options.port}", flush=True)
        run = partial(_run, app, listener, settings, received)
        run() if count == 1 else _supervise(run, count, received)
    # A normal exit would abort if a daemon thread is still inside ONNX Runtime
    # (https://github.com/pybind/pybind11/issues/2215).
    sys.stdout.flush()
    os._exit(0)


def _check_workers(count: int, no_page: bool) -> None:
    if count == 1:
        return
    if not no_page:
        raise ValueError(f"--workers {count} needs --no-page: a page and its recordings are in one process")
    if not hasattr(os, "fork"):
        raise ValueError(f"--workers {count} needs a system that can fork, such as Linux; leave it out")
    cores = os.cpu_count() or 1
    if count > cores:
        print(
            f"warning: {count} workers share {cores} cores; more workers than cores are no faster",
            file=sys.stderr,
        )


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


def load(folders: Sequence[str], workers: int = 1) -> Mapping[str, Recognizer]:
    """Recognisers by model name, or by folder if the name is taken; for so many processes to share.

    Raises ValueError where there is none, or one that processes cannot share.
    """
    from asr.bundle import Bundle, available_bundles
    from asr.engine import ENGINE_GRAPH
    from asr.recognizer import Recognizer

    recognizers: dict[str, Recognizer] = {}
    for folder in [*folders, *(str(bundle.directory) for bundle in available_bundles())]:
        if workers > 1 and not (Bundle.load(folder).directory / ENGINE_GRAPH).exists():
            raise ValueError(f"{folder}: has no {ENGINE_GRAPH}, which --workers needs: hark export {folder}")
        # ONNX Runtime's threads do not survive a fork, and with one it starts none.
        recognizer = Recognizer.load(folder, threads=None if workers == 1 else 1)
        if workers > 1:
            recognizer.workers = max(1, (os.cpu_count() or 1) // workers)
        name = recognizer.bundle.name
        recognizers[folder if name in recognizers else name] = recognizer
    if not recognizers:
        raise ValueError("no model is installed: pass a folder with --model DIR")
    return recognizers


def _run(app, listener: socket.socket, settings: Settings, received: Sequence[int]) -> None:
    """Serves until a signal is received, or what has forked this process is gone."""
    import uvicorn

    from asr.serve.live import websocket_options

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
    parent = multiprocessing.parent_process()
    # Not signal.pause(): it goes on sleeping where the kernel hands the signal to another thread.
    while not received and serving.is_alive() and (parent is None or parent.is_alive()):
        time.sleep(POLL_SECONDS)
    server.should_exit = True
    serving.join(GRACE_SECONDS + 1)


def _supervise(run: Callable[[], None], count: int, received: Sequence[int]) -> None:
    """Runs `run` in `count` processes, and again for each that dies, until a signal is received.

    They are forks of this process, since what it has loaded is then in memory once; uvicorn's own would each
    load it again. Nothing here may have threads, but for those of OpenBLAS, which survive a fork.
    """
    from prometheus_client.multiprocess import mark_process_dead

    def work() -> None:
        run()
        os._exit(0)  # see _serve

    def start() -> multiprocessing.Process:
        worker = multiprocessing.get_context("fork").Process(target=work)
        worker.start()
        return worker

    gc.freeze()  # or a collection would write to what is shared, of which each worker then had 30 MB more
    workers = [start() for _ in range(count)]
    while not received:
        time.sleep(POLL_SECONDS)
        for place, worker in enumerate(workers):
            if not worker.is_alive() and not received:
                mark_process_dead(worker.pid)  # or what it was doing would be counted as going on
                log.error(
                    "worker %d has died (exit code %d); another takes its place", worker.pid, worker.exitcode
                )
                workers[place] = start()
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(GRACE_SECONDS + 2)
        worker.kill()


def _log_requests() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
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
