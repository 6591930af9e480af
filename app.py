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

from asr.bundle import BundleError, available_bundles

from asr import Recognizer

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
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        _fail(f"cannot listen on {host} port {port} ({error}); choose another, for example --port 7861")


def _load(folders: Sequence[str]) -> Mapping[str, Recognizer]:
    recognizers: dict[str, Recognizer] = {}
    try:
        for model in [*folders, *available_bundles()]:
            recognizer = Recognizer.load(model)
            recognizers.setdefault(recognizer.bundle.name, recognizer)
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
    stop.wait()
    page.close(verbose=False)


def _fail(message: str) -> NoReturn:
    print(f"app.py: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
