"""hark stream: sound from standard input or a microphone, and its text while it is spoken."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from asr.audio import SAMPLE_RATE, AudioError, LiveBlock, read_blocks
from asr.containers import EMPTY
from asr.recognizer import Recognizer
from asr.streaming import Event, Partial

BLOCK_SECONDS = 0.1
MOST_BYTES = 2**16  # that are taken at once of what waits in a pipe; 2 s
HEADERS = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"\x1aE\xdf\xa3")  # what else begins standard input is samples
DIM, PLAIN, CLEAR_LINE = "\x1b[2m", "\x1b[0m", "\r\x1b[K"


def main(options: Namespace) -> bool:
    """Prints what is said until the sound ends, or Ctrl-C; whether anything was."""
    if not options.microphone and sys.stdin.isatty():
        raise ValueError("no sound on standard input: pipe it in, or give --microphone")
    show = _json if options.json else _terminal if sys.stdout.isatty() else _lines
    recognizer = Recognizer.load(options.model, threads=options.threads)
    found = False
    with microphone() if options.microphone else standard_input(options.rate) as (rate, blocks):
        stream = recognizer.stream(rate, decoder=options.decoder, hotwords=options.hotwords)
        for block in blocks:
            events = stream.write(block)
            show(events)
            found |= bool(events)
    events = stream.finish()
    show(events)
    return found or bool(events)


class Source:
    """Bytes until the first Ctrl-C, which interrupts the wait for more but no work on what was received.

    Args:
      read: at most so many bytes as soon as there are any; none at the end.
    """

    def __init__(self, read: Callable[[int], bytes]):
        self.name = "standard input"
        self._read, self._waiting, self._stopped = read, False, False

    def __enter__(self) -> Source:
        self._before = signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _stop(self, *_: object) -> None:
        self._stopped = True
        if self._waiting:
            raise KeyboardInterrupt

    def read(self, size: int = MOST_BYTES) -> bytes:
        """What `read` gives, or none after Ctrl-C."""
        if self._stopped:
            return b""
        self._waiting = True
        try:
            return self._read(size)
        except KeyboardInterrupt:
            return b""
        finally:
            self._waiting = False

    def seekable(self) -> bool:
        """It is not."""
        return False


# Where sound comes from: its rate in Hz, and blocks as they come


@contextmanager
def standard_input(rate: float) -> Iterator[tuple[float, Iterator[LiveBlock]]]:
    """16-bit little-endian PCM, mono, of that rate; or a stream with a header, such as WAV, of any kind."""
    file = sys.stdin.buffer
    head = file.peek(4)
    if not head:
        raise AudioError(f"standard input {EMPTY}")
    with Source(file.read1) as source:
        if head.startswith(HEADERS):
            yield SAMPLE_RATE, read_blocks(source, BLOCK_SECONDS)
        else:
            yield rate, iter(source.read, b"")


@contextmanager
def microphone() -> Iterator[tuple[float, Iterator[LiveBlock]]]:
    """The computer's own choice of a microphone.

    Raises ValueError if there is none, or what listens to it is not installed.
    """
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise ValueError(
            "a microphone needs sounddevice: pip install '.[microphone]' in Hark's folder"
        ) from None
    except OSError:
        raise ValueError("a microphone needs PortAudio: apt-get install libportaudio2") from None
    received: SimpleQueue[bytes] = SimpleQueue()

    def read(size: int) -> bytes:
        return b"".join([received.get(), *(received.get() for _ in range(received.qsize()))])

    try:
        rate = sounddevice.query_devices(kind="input")["default_samplerate"]
        listening = sounddevice.RawInputStream(
            samplerate=rate,
            channels=1,
            dtype="int16",
            blocksize=round(BLOCK_SECONDS * rate),
            callback=lambda data, *_: received.put(bytes(data)),
        )
    except sounddevice.PortAudioError as error:
        raise ValueError(f"no microphone can be used: {error}") from None
    with Source(read) as source, listening:
        yield rate, iter(source.read, b"")


# Ways to show events


def _json(events: Iterable[Event]) -> None:
    for event in events:
        print(json.dumps(event.to_dict(), ensure_ascii=False), flush=True)


def _lines(events: Iterable[Event]) -> None:
    for event in events:
        if not isinstance(event, Partial):
            print(event.segment.text, flush=True)


def _terminal(events: Iterable[Event]) -> None:
    for event in events:
        if isinstance(event, Partial):
            columns = shutil.get_terminal_size().columns - 1
            begin = max(0, len(event.text) - columns)  # of a long text the end is seen
            stable = max(begin, event.stable_length)
            line = f"{event.text[begin:stable]}{DIM}{event.text[stable:]}{PLAIN}"
            print(CLEAR_LINE + line, end="", flush=True)
        else:
            print(CLEAR_LINE + event.segment.text, flush=True)
