"""The page: run `python app.py` and open http://127.0.0.1:7860. By default it serves this machine only."""

import argparse
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np

from asr import Recognizer
from asr.audio import SAMPLE_RATE
from asr.bundle import BundleError, available_bundles

LARGEST_PORT = 65535
LOCAL_HOSTS = ("localhost", "127.0.0.1")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves the page until Ctrl-C. Exits with 2 and one line if call, port or model cannot be used."""
    options = _parse(arguments)
    _refuse_port_in_use(options.host, options.port)
    recognizers = _load(options.model)
    with tempfile.TemporaryDirectory(prefix="hark-") as uploads:  # goes with all in it when serving ends
        os.environ["GRADIO_TEMP_DIR"] = uploads
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        # Gradio asks its own address once at the start; a proxy would not find it.
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
        help="offer the model in this folder, too, and choose it first; may be given again",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default: %(default)s)")
    return parser.parse_args(arguments)


def _refuse_port_in_use(host: str, port: int) -> None:
    """Asked first, so that the answer does not have to wait for the models and for Gradio."""
    if not 0 < port <= LARGEST_PORT:
        _fail(f"there is no port {port}; choose one from 1 to {LARGEST_PORT} with --port")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror.lower()
        _fail(f"cannot listen on {host} port {port}: {reason}; try another --port, for example {port + 1}")


def _load(folders: Sequence[str]) -> Mapping[str, Recognizer]:
    """Recognisers by the name of their model, or by its folder where another has the name already."""
    recognizers: dict[str, Recognizer] = {}
    try:
        for folder in [*folders, *(str(bundle.directory) for bundle in available_bundles())]:
            recognizer = Recognizer.load(folder)
            name = recognizer.bundle.name
            recognizers[folder if name in recognizers else name] = recognizer
    except BundleError as error:
        _fail(str(error))
    if not recognizers:
        _fail("no model is installed; name the folder of one with --model DIR")
    return recognizers


def _serve(recognizers: Mapping[str, Recognizer], host: str, port: int) -> None:
    from asr.web.page import build_page, serving_options  # Gradio reads the environment when it is imported

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    page = build_page(recognizers)
    page.launch(server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, **serving_options())
    print(f"Hark is listening on http://{host}:{port}", flush=True)
    threading.Thread(target=_warm_up, args=[recognizers], daemon=True).start()
    stop.wait()
    page.close(verbose=False)


def _warm_up(recognizers: Mapping[str, Recognizer]) -> None:
    """Uses each model once: the first search on a machine compiles itself, so nobody has to wait for that."""
    second = np.zeros(SAMPLE_RATE, np.float32)
    for recognizer in recognizers.values():
        decode = recognizer.decoder()
        decode(recognizer.engine.log_probs(second))


def _fail(message: str) -> NoReturn:
    print(f"app.py: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
    # Not by the interpreter's own end: that kills threads which are still at work, and where one is inside
    # ONNX Runtime, aborts (https://github.com/pybind/pybind11/issues/2215).
    os._exit(0)
