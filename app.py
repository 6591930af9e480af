"""Serves the web page: run `python app.py` and open http://127.0.0.1:7860. Local access only by default."""

import argparse
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np

from asr import Recognizer
from asr.audio import SAMPLE_RATE
from asr.bundle import BundleError, available_bundles

LARGEST_PORT = 65535
POLL_SECONDS = 0.2  # between two looks for a signal
LOCAL_HOSTS = ("localhost", "127.0.0.1")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves the page until Ctrl-C. Exits with code 2 and one line for a bad option, port or model."""
    options = _parse(arguments)
    _refuse_port_in_use(options.host, options.port)
    recognizers = _load(options.model)
    with tempfile.TemporaryDirectory(prefix="hark-") as uploads:  # deleted at the end
        os.environ["GRADIO_TEMP_DIR"] = uploads
        # Gradio requests its own address once at the start, which a proxy could not reach.
        for name in ("NO_PROXY", "no_proxy"):
            others = filter(None, [os.environ.get(name)])
            os.environ[name] = ",".join([*others, *LOCAL_HOSTS, options.host])
        _serve(recognizers, options.host, options.port)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="app.py", description="Speech to text in the browser, offline.")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="DIR",
        help="also offer the model in this folder, and select it by default; repeatable",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default: %(default)s)")
    return parser.parse_args(arguments)


def _refuse_port_in_use(host: str, port: int) -> None:
    """Checked before models and Gradio are loaded, so that the answer comes at once."""
    if not 0 < port <= LARGEST_PORT:
        _fail(f"--port {port} is not between 1 and {LARGEST_PORT}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror.lower()
        _fail(f"cannot listen on {host} port {port}: {reason}; try another --port, for example {port + 1}")


def _load(folders: Sequence[str]) -> Mapping[str, Recognizer]:
    """Recognisers by model name, or by folder if the name is taken."""
    recognizers: dict[str, Recognizer] = {}
    try:
        for folder in [*folders, *(str(bundle.directory) for bundle in available_bundles())]:
            recognizer = Recognizer.load(folder)
            name = recognizer.bundle.name
            recognizers[folder if name in recognizers else name] = recognizer
    except BundleError as error:
        _fail(str(error))
    if not recognizers:
        _fail("no model is installed: pass a folder with --model DIR")
    return recognizers


def _serve(recognizers: Mapping[str, Recognizer], host: str, port: int) -> None:
    try:
        from asr.web.page import build_page, serving_options  # Gradio reads the environment when imported
    except ModuleNotFoundError as error:
        _fail(f"the page needs {error.name}, which is not installed: pip install '.[page]' in Hark's folder")

    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: received.append(number))
    page = build_page(recognizers)
    page.launch(server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, **serving_options())
    print(f"Hark is listening on http://{host}:{port}", flush=True)
    threading.Thread(target=_warm_up, args=[recognizers], daemon=True).start()
    # Not signal.pause(): it goes on sleeping where the kernel hands the signal to another thread.
    while not received:
        time.sleep(POLL_SECONDS)
    page.close(verbose=False)


def _warm_up(recognizers: Mapping[str, Recognizer]) -> None:
    """Decodes once with each model, since the first beam search on a machine has to be compiled."""
    second = np.zeros(SAMPLE_RATE, np.float32)
    for recognizer in recognizers.values():
        decode = recognizer.decoder()
        decode(recognizer.engine.encode(second))


def _fail(message: str) -> NoReturn:
    print(f"app.py: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
    # A normal exit would abort if a daemon thread is still inside ONNX Runtime
    # (https://github.com/pybind/pybind11/issues/2215).
    os._exit(0)
