"""The command line: python -m asr transcribe | stream | align | models; `hark` adds the verbs of training.

Results go to standard output, everything else to standard error. Exit codes: 0 all done; 1 some inputs
failed, each named with its reason, the others done; 2 the call itself was wrong.
"""

import argparse
import difflib
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from asr import CHANNELS, DECODERS, __version__
from asr.files import write_new
from asr.transcript import FORMATS, Segment, Transcript

ALL_DONE, SOME_FAILED, WRONG_CALL = 0, 1, 2
INTERRUPTED, READER_GONE = 130, 141  # what a shell reports: 128 + SIGINT, 128 + SIGPIPE

STANDARD_INPUT = "-"
COMPILING = "compiling the search, once on this machine"  # some 8 s, in which nothing else would move


class Parser(argparse.ArgumentParser):
    """Reports a wrong call in one line, with the closest right word where something is misspelt."""

    def parse_known_args(self, args=None, namespace=None):
        if self._subparsers is None:  # else the options may be those of a command
            self.check_options(args)
        return super().parse_known_args(args, namespace)

    def check_options(self, words: Sequence[str]) -> None:
        """Refuses options that do not exist. argparse would first report what else is missing."""
        known = [option for option in self._option_string_actions if option.startswith("--")]
        for word in words:
            if word == "--":
                return
            name = word.partition("=")[0]
            if word.startswith("--") and " " not in word and not any(o.startswith(name) for o in known):
                self.error(f"there is no option {name}{_suggestion(name, known)}")

    def _check_value(self, action, value) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        suggestion = _suggestion(str(value), choices) or f"; choose one of {', '.join(choices)}"
        if action.option_strings:
            raise argparse.ArgumentError(action, f"{str(value)!r} is not possible{suggestion}")
        raise argparse.ArgumentError(None, f"there is no {action.metavar.lower()} {value!r}{suggestion}")

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_CALL, f"error: {message}; see {self.prog} --help\n")


def _suggestion(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word.lower(), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def build_parser(groups: Mapping[str, Callable[[Any], None]]) -> Parser:
    """The parser of a program. Each group has a title and a function that adds its commands."""
    parser = Parser(
        prog="hark",
        usage="hark COMMAND ...",
        description="Speech recognition on your own machine.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hark {__version__}")
    commands = parser.add_subparsers(prog="hark", required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    lines = []
    for title, add_commands in groups.items():
        before = set(commands.choices)
        add_commands(commands)
        lines += ["", f"{title}:"]
        lines += [f"  {n:16}{p.summary}" for n, p in commands.choices.items() if n not in before]
    parser.epilog = "\n".join([*lines[1:], "", "hark COMMAND --help shows the options of a command."])
    return parser


def add_command(
    commands, name: str, summary: str, run: Callable, details: str = "", more: str = ""
) -> Parser:
    """Adds a command that calls run(options), which returns an exit code, or None for 0.

    Args:
      commands: of `add_subparsers`.
      summary: one line.
      details: shown by --help below the summary.
      more: the list in `options` that positional arguments behind an option are added to.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description="\n\n".join(filter(None, [summary, details])),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.summary = summary
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    parser.set_defaults(run=run, parser=parser, more=more)
    return parser


def execute(parser: Parser, arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; `arguments` are those after the program's name."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options, others = parser.parse_known_args(arguments)
    if others:
        options.parser.check_options(others)
        if not options.more or any(word.startswith("-") and word != STANDARD_INPUT for word in others):
            options.parser.error(f"not understood: {' '.join(others)}")
        values = getattr(options, options.more)
        kind = type(values[0]) if values else str
        setattr(options, options.more, [*values, *map(kind, others)])
    options.arguments = arguments[1:]
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING)  # to standard error
    sys.stdout.reconfigure(errors="surrogateescape")  # a file's name is written back as it came, UTF-8 or not
    output = getattr(options, "output", None)
    is_new = output is not None and not output.exists()
    try:
        if output is not None:
            _make_folder(output)
        code = options.run(options) or ALL_DONE
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # `| head` has read enough
        return READER_GONE
    except ModuleNotFoundError as error:
        if options.debug:
            traceback.print_exception(error)
        missing = f"{options.parser.prog} needs {error.name}, which is not installed"
        # Not "pip install hark[train]", since the package of that name on PyPI is somebody else's.
        print(f"error: {missing}: pip install '.[train]' in Hark's folder", file=sys.stderr)
        return WRONG_CALL
    except (ValueError, OSError, FloatingPointError) as error:
        tell(error, options.debug)
        if isinstance(error, OSError):
            _drop_output()  # what standard output could not take
        if is_new:
            with suppress(OSError):  # not empty, or never made
                output.rmdir()
        return WRONG_CALL
    except Exception as error:
        tell(error, options.debug)
        return SOME_FAILED


def tell(error: Exception, debug: bool) -> None:
    """One line about an error; with `debug` where it came from, too."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.filename or 'standard output'}: {error.strerror}"
    else:
        message = " ".join(str(error).split())
        if not isinstance(error, (ValueError, FloatingPointError)):  # not raised on purpose
            message = f"{type(error).__name__}: {message} (--debug shows where)"
    print(f"error: {message}", file=sys.stderr)


def _drop_output() -> None:
    """Python flushes standard output when it ends: where that cannot succeed, nothing is left to flush."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] | None = None) -> int:
    """The commands that need no training package; the exit code."""
    return execute(build_parser({"Recognise": add_commands}), arguments)


def add_commands(commands) -> None:
    """Adds transcribe, stream, align and models to the commands of a parser."""
    transcribe = add_command(commands, "transcribe", "write down what is said", _transcribe, more="files")
    add = transcribe.add_argument
    add("files", nargs="+", metavar="FILE", help="a recording; - is standard input")
    _add_recognition_options(add)
    _add_results_options(add, "txt")
    _add_decoder_options(add)
    n_best = "texts of each segment, with --format json (1)"
    add("--n-best", type=positive, default=1, metavar="N", help=n_best)
    add("--channel", choices=CHANNELS, help="one of several, or each with its name (all, mixed)")
    add("--track", type=positive, metavar="N", help="sound track, counted from 1 (the default one)")

    details = (
        "arecord -f S16_LE -r 16000 | hark stream\n"
        "ffmpeg -i URL -f s16le -ac 1 -ar 16000 - | hark stream --json\n"
        "Standard input is 16-bit little-endian PCM, mono, or WAV, FLAC or Ogg. On a terminal what is being\n"
        "said is shown, too, dim where it may still change. Ctrl-C ends it."
    )
    add = add_command(commands, "stream", "write down what is being said", _stream, details).add_argument
    add("--microphone", action="store_true", help="listen to it instead of standard input")
    add("--rate", type=positive, default=16_000, metavar="HZ", help="of samples without a header (16000)")
    add("--json", action="store_true", help="print partial and final texts as JSON, one a line")
    _add_recognition_options(add)
    _add_decoder_options(add)

    add = add_command(commands, "align", "find when each word of a text is said", _align).add_argument
    add("audio", metavar="AUDIO", help="a recording; - is standard input")
    add("text", metavar="TEXTFILE", help="what is said in it, as UTF-8; - is standard input")
    _add_recognition_options(add)
    _add_results_options(add, "json")

    details = "hark bulk calls --output texts\nIt goes on where it stopped. docs/bulk.md says more."
    add = add_command(commands, "bulk", "write down an archive, on Ray", _bulk, details).add_argument
    add("source", metavar="SOURCE", help="a folder, pattern, manifest or Parquet of paths; s3://, gs:// too")
    add("--output", type=Path, required=True, metavar="DIR", help="of the results, in Parquet")
    add("--model", default="english", metavar="NAME|DIR", help="a shipped model or its folder (english)")
    add("--decoder", choices=DECODERS, help="(the model's best)")
    add("--address", metavar="URL", help="ray://HOST:10001 of a cluster (this machine alone)")
    formats = "writes a file for each recording, too"
    add("--format", nargs="+", dest="formats", choices=FORMATS, default=[], metavar="F", help=formats)
    add("--retry-failed", action="store_true", help="do again what failed before")

    add_command(commands, "models", "list what is installed", _models)


def _add_recognition_options(add: Callable) -> None:
    add("--model", default="english", metavar="NAME|DIR", help="a shipped model or its folder (english)")
    add("--threads", type=positive, metavar="N", help="cores to use (all)")


def _add_decoder_options(add: Callable) -> None:
    decoders = "joint writes sentences; greedy, and beam with a language model, words (the model's best)"
    add("--decoder", choices=DECODERS, help=decoders)
    hotword = "a name or term to expect; repeatable"
    add("--hotword", dest="hotwords", action="append", default=[], metavar="W", help=hotword)


def _add_results_options(add: Callable, format: str) -> None:
    add("--format", choices=FORMATS, default=format, help=f"of the result ({format})")
    add("--output", type=Path, metavar="DIR", help="write DIR/<stem>.<format>, never over another file")


def positive(text: str) -> int:
    """A type for arguments: an integer above 0."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number


def _transcribe(options: argparse.Namespace) -> int:
    from asr.audio import is_pipe
    from asr.recognizer import Recognizer

    files = options.files
    if files.count(STANDARD_INPUT) > 1:
        raise ValueError("standard input can be read only once")
    _check_printable(options)
    if len(files) > 1 and options.format != "txt" and options.output is None:
        raise ValueError(f"each of several inputs needs its own file as {options.format}: give --output DIR")
    if options.n_best > 1 and options.format != "json":
        raise ValueError(f"{options.format} has room for one text only: --n-best needs --format json")
    recognizer = Recognizer.load(options.model, threads=options.threads)
    names = ("decoder", "hotwords", "n_best", "channel", "track")
    choices = {name: getattr(options, name) for name in names}
    if len(files) == 1 and options.format == "txt" and options.output is None and is_pipe(files[0]):
        return _print_live(recognizer.segments(files[0], warn=_warn, **choices), files[0], options.debug)
    results = recognizer.transcribe_many(files, progress=lambda *seconds: show(*seconds), **choices)
    code = ALL_DONE
    for file in files:
        with _progress_bar(file) as show:
            result = next(results)
        if isinstance(result, Exception):
            tell(result, options.debug)
            code = SOME_FAILED
            continue
        if not result.segments:
            _warn(f"no speech was found in {file!r}")
        if len(files) > 1 and options.output is None:
            print(f"==> {file} <==")
        code = max(code, _deliver(result, file, options))
    return code


def _print_live(segments: Iterator[Segment], file: str, debug: bool) -> int:
    """Prints each segment of a pipe as soon as it is recognised."""
    from asr.audio import AudioError

    found = False
    try:
        for segment in segments:
            print(segment.labelled_text, flush=True)
            found = True
    except AudioError as error:
        tell(error, debug)
        return SOME_FAILED
    if not found:
        _warn(f"no speech was found in {file!r}")
    return ALL_DONE


def _stream(options: argparse.Namespace) -> int:
    from asr import listen
    from asr.audio import AudioError

    try:
        if not listen.main(options):
            _warn("no speech was found")
    except AudioError as error:
        tell(error, options.debug)
        return SOME_FAILED
    return ALL_DONE


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _align(options: argparse.Namespace) -> int:
    from asr.audio import AudioError
    from asr.recognizer import Recognizer

    if options.audio == options.text == STANDARD_INPUT:
        raise ValueError("standard input can be read only once")
    _check_printable(options)
    recognizer = Recognizer.load(options.model, threads=options.threads)
    try:
        text = _read_text(options.text)
        with _progress_bar(options.audio) as show:
            transcript = recognizer.align(options.audio, text, progress=show)
    except (AudioError, TextError) as error:
        tell(error, options.debug)
        return SOME_FAILED
    except ValueError as error:
        tell(TextError(f"{options.text!r} does not fit {options.audio!r}: {error}"), options.debug)
        return SOME_FAILED
    return _deliver(transcript, options.audio, options)


def _bulk(options: argparse.Namespace) -> int:
    try:
        import ray  # noqa: F401

        from asr.bulk import run_bulk
    except ModuleNotFoundError as error:
        raise ValueError(f"bulk needs {error.name}: pip install '.[bulk]' in Hark's folder") from error

    names = ("model", "decoder", "address", "formats", "retry_failed")
    failed = run_bulk(options.source, options.output, **{name: getattr(options, name) for name in names})
    if failed:
        tell(
            ValueError(f"{failed} inputs failed: {options.output / 'failures.jsonl'} names them"),
            options.debug,
        )
    return SOME_FAILED if failed else ALL_DONE


def _models(options: argparse.Namespace) -> int:
    from asr.bundle import available_bundles

    for bundle in available_bundles():
        files = (path for path in bundle.directory.rglob("*") if path.is_file())
        megabytes = sum(path.stat().st_size for path in files) / 1e6
        rates = ", ".join(f"{name} {rate:.1f} %" for name, rate in bundle.config.get("wer", {}).items())
        print(f"{bundle.name}\t{megabytes:.1f} MB\t{bundle.tokenizer.language}\tWER {rates or 'not stated'}")
    return ALL_DONE


class TextError(ValueError):
    """One line: which text cannot be aligned, and why."""


def _read_text(file: str) -> str:
    """A text in UTF-8. Raises TextError."""
    try:
        data = sys.stdin.buffer.read() if file == STANDARD_INPUT else Path(file).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise TextError(f"{file!r} cannot be opened: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise TextError(f"{file!r} is not UTF-8 text; save it as UTF-8") from error


def _check_printable(options: argparse.Namespace) -> None:
    if options.format == "docx" and options.output is None:
        raise ValueError("docx is no text that can be printed: give a folder for it, --output DIR")


def _make_folder(folder: Path) -> None:
    """Makes sure that results can be written there, before hours are spent on them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"nothing can be written to {str(folder)!r}: {error.strerror}") from error


def _deliver(transcript: Transcript, file: str, options: argparse.Namespace) -> int:
    """Prints the transcript, or writes it to a file of its own in the output folder; the exit code."""
    for warning in transcript.warnings:
        _warn(warning)
    text = transcript.render(options.format)
    if options.output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return ALL_DONE
    stem = "stdin" if file == STANDARD_INPUT else Path(file).stem
    try:
        path = write_new(options.output, stem, f".{options.format}", text)
    except OSError as error:
        message = f"{file!r}: its result cannot be written to {str(options.output)!r}: {error.strerror}"
        tell(ValueError(message), options.debug)
        return SOME_FAILED
    if path.name != f"{stem}.{options.format}":
        _warn(f"{file!r} is written to {str(path)!r}: its name is taken or too long there")
    return ALL_DONE


@contextmanager
def _progress_bar(file: str) -> Iterator[Callable[[float, float | None], None]]:
    """A callback for the recogniser that, on a terminal, shows how much is done until the block ends."""
    if not sys.stderr.isatty():
        yield lambda done_seconds, total_seconds: None
        return
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from asr.decoding.compilation import on_compilation

    with (
        tqdm(desc=Path(file).name, unit=" s", leave=False) as bar,
        logging_redirect_tqdm(),
        on_compilation(lambda: bar.set_postfix_str(COMPILING)),
    ):

        def show(done_seconds: float, total_seconds: float | None) -> None:
            bar.set_postfix_str("", refresh=False)
            bar.total = total_seconds and round(total_seconds)
            bar.update(round(done_seconds) - bar.n)

        yield show
