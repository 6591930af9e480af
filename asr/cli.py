"""The command line: python -m asr transcribe | align | models.

Results go to standard output, everything else to standard error. Exit codes: 0 all done; 1 some inputs
failed, each named with its reason, the others done; 2 the call itself was wrong.
"""

import argparse
import itertools
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from asr.recognizer import DECODERS, Recognizer
from asr.transcript import FORMATS, Transcript

ALL_DONE, SOME_FAILED, WRONG_CALL = 0, 1, 2
INTERRUPTED, READER_GONE = 130, 141  # what a shell reports: 128 + SIGINT, 128 + SIGPIPE

STANDARD_INPUT = "-"


class CallError(ValueError):
    """The call itself is wrong: no input would do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; `arguments` are those after the program's name."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING)  # to standard error
    sys.stdout.reconfigure(errors="surrogateescape")  # a file's name is written back as it came, UTF-8 or not
    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except CallError as error:
        _tell(error, options.debug)
        return WRONG_CALL
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # `| head` has read enough, and what Python still flushes when it ends must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except Exception as error:
        _tell(error, options.debug)
        return SOME_FAILED


def _transcribe(options: argparse.Namespace) -> int:
    files = options.files
    if files.count(STANDARD_INPUT) > 1:
        raise CallError("standard input can be read only once")
    if len(files) > 1 and options.format != "txt" and options.output is None:
        raise CallError(f"each of several inputs needs its own file as {options.format}: give --output DIR")
    if options.n_best > 1 and options.format != "json":
        raise CallError(f"{options.format} has room for one text only: --n-best needs --format json")
    _make_folder(options.output)
    recognizer = _load(options)
    bar = _ProgressBar()
    try:
        results = recognizer.transcribe_many(
            files,
            decoder=options.decoder,
            hotwords=options.hotword,
            n_best=options.n_best,
            progress=bar.update,
        )
    except ValueError as error:
        raise CallError(str(error)) from error

    code = ALL_DONE
    for file in files:
        with bar.shown(file):
            result = next(results)
        if isinstance(result, Exception):
            _tell(result, options.debug)
            code = SOME_FAILED
            continue
        if not result.segments:
            print(f"warning: no speech was found in {file!r}", file=sys.stderr)
        if len(files) > 1 and options.output is None:
            print(f"==> {file} <==")
        _deliver(result, file, options)
    return code


def _align(options: argparse.Namespace) -> int:
    from asr.audio import AudioError

    if options.audio == options.text == STANDARD_INPUT:
        raise CallError("standard input can be read only once")
    _make_folder(options.output)
    recognizer = _load(options)
    bar = _ProgressBar()
    text = _read_text(options.text)
    try:
        with bar.shown(options.audio):
            transcript = recognizer.align(options.audio, text, progress=bar.update)
    except AudioError:
        raise
    except ValueError as error:
        raise ValueError(f"{options.text!r} does not fit {options.audio!r}: {error}") from error
    _deliver(transcript, options.audio, options)
    return ALL_DONE


def _models(options: argparse.Namespace) -> int:
    from asr.bundle import available_bundles

    for bundle in available_bundles():
        files = (path for path in bundle.directory.rglob("*") if path.is_file())
        megabytes = sum(path.stat().st_size for path in files) / 1e6
        rates = ", ".join(f"{name} {rate:.1f} %" for name, rate in bundle.config.get("wer", {}).items())
        print(f"{bundle.name}\t{megabytes:.1f} MB\t{bundle.tokenizer.language}\tWER {rates or 'not stated'}")
    return ALL_DONE


def _load(options: argparse.Namespace) -> Recognizer:
    try:
        return Recognizer.load(options.model, threads=options.threads)
    except ValueError as error:
        raise CallError(str(error)) from error


def _read_text(file: str) -> str:
    """A text in UTF-8, or ValueError."""
    try:
        data = sys.stdin.buffer.read() if file == STANDARD_INPUT else Path(file).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{file!r} cannot be opened: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file!r} is no text in UTF-8; save it as UTF-8") from error


def _make_folder(folder: Path | None) -> None:
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CallError(f"no folder can be made at {str(folder)!r}: {error.strerror}") from error


def _deliver(transcript: Transcript, file: str, options: argparse.Namespace) -> None:
    """Prints the transcript, or writes it to a file of its own in the output folder."""
    text = transcript.render(options.format)
    if options.output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    stem = "stdin" if file == STANDARD_INPUT else Path(file).stem
    for number in itertools.count(1):
        name = stem if number == 1 else f"{stem}-{number}"
        path = options.output / f"{name}.{options.format}"
        try:
            with path.open("x", encoding="utf-8", newline="\n") as output:
                output.write(text)
        except FileExistsError:
            continue  # a namesake's, which is kept
        if number > 1:
            print(
                f"warning: {file!r} has an older namesake, so its text is in {str(path)!r}", file=sys.stderr
            )
        return


def _tell(error: Exception, debug: bool) -> None:
    """One line about an error; with `debug` where it came from, too."""
    if debug:
        traceback.print_exception(error)
    message = " ".join(str(error).split())
    if not isinstance(error, ValueError):  # none of ours
        message = f"{type(error).__name__}: {message} (--debug shows where)"
    print(f"error: {message}", file=sys.stderr)


class _ProgressBar:
    """On a terminal, shows how much of a recording is done; elsewhere nothing."""

    def __init__(self):
        self._draw: Callable[[float, float | None], None] | None = None

    @contextmanager
    def shown(self, file: str) -> Iterator[None]:
        """The bar stands while the block runs, and is gone when results are printed."""
        if not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import Progress

        # Redirected by rich, what is printed meanwhile would go to standard error.
        with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
            task = bar.add_task(escape(file), total=None)
            self._draw = lambda done, total: bar.update(task, completed=done, total=total)
            yield
        self._draw = None

    def update(self, done_seconds: float, total_seconds: float | None) -> None:
        """A callback for the recogniser."""
        if self._draw is not None:
            self._draw(done_seconds, total_seconds)


class _Parser(argparse.ArgumentParser):
    """Tells a wrong call in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_CALL, f"error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m asr", description="Speech recognition on your own machine.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="show where an error came from")

    recognition = argparse.ArgumentParser(add_help=False, parents=[shared])
    recognition.add_argument(
        "--model",
        default="english",
        metavar="NAME|DIR",
        help="a shipped model or a bundle's folder (english)",
    )
    recognition.add_argument(
        "--output", type=Path, metavar="DIR", help="write DIR/<stem>.<format>, never over another file"
    )
    recognition.add_argument("--threads", type=_positive, metavar="N", help="cores to use (all)")

    transcribe = commands.add_parser("transcribe", parents=[recognition], help="write down what is said")
    transcribe.set_defaults(run=_transcribe)
    transcribe.add_argument("files", nargs="+", metavar="FILE", help="a recording; - is standard input")
    transcribe.add_argument("--format", choices=FORMATS, default="txt", help="of the result (txt)")
    transcribe.add_argument(
        "--decoder", choices=DECODERS, help="greedy, or a search with the language model (the model's best)"
    )
    transcribe.add_argument(
        "--hotword", action="append", default=[], metavar="W", help="a name or term to expect; repeatable"
    )
    transcribe.add_argument(
        "--n-best",
        type=_positive,
        default=1,
        metavar="N",
        help="texts of each segment, with --format json (1)",
    )

    align = commands.add_parser("align", parents=[recognition], help="find when each word of a text is said")
    align.set_defaults(run=_align)
    align.add_argument("audio", metavar="AUDIO", help="a recording; - is standard input")
    align.add_argument("text", metavar="TEXTFILE", help="what is said in it, as UTF-8; - is standard input")
    align.add_argument("--format", choices=FORMATS, default="json", help="of the result (json)")

    models = commands.add_parser("models", parents=[shared], help="list what is installed")
    models.set_defaults(run=_models)
    return parser


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number
