"""Any recording people have, as mono float32 samples at 16 kHz.

Rates are changed by soxr. Recordings are read in blocks, so that hours of sound never lie in memory at once.
Damaged files give the part that can be read; what gives nothing is refused in one line.
"""

import io
import logging
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from math import inf
from numbers import Real
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soxr

from asr.channels import mixed
from asr.chunks import AudioError, Chunks, Warn, by_kind, in_blocks, scaled
from asr.containers import MAX_CHANNELS, read_chunks, stated_seconds

SAMPLE_RATE = 16_000  # Hz, of every model

MIN_RATE, MAX_RATE = 4_000, 768_000  # Hz; beyond these a header is damaged or no sound is meant
MAX_AMPLITUDE = 100.0  # full scale is 1; far beyond are integers that were cast to float without scaling
MIN_OFFSET = 0.01  # a mean larger than this is a sound card's constant voltage: speech has none
OFFSET_SECONDS = 10.0  # of sound whose mean is the offset
LIVE_OFFSET_SECONDS = 2.0  # of a pipe, whose first words must not wait that long
ARRAY_CHUNK = 2**18  # samples of an array taken at a time

COLUMNS = {"left": [0], "right": [1], "each": [0, 1]}  # of several channels

# Consecutive 32-bit floats that tell what 16-bit samples cannot look like, and the sizes of a sound's.
FLOATS = 256
SMALLEST_FLOAT, LARGEST_FLOAT = 1e-9, 2.0

LiveBlock = bytes | bytearray | memoryview | np.ndarray
Source = str | Path | bytes | BinaryIO | np.ndarray | tuple[np.ndarray, float]

log = logging.getLogger(__name__)


def load_audio(
    source: Source,
    offset_seconds: float = 0.0,
    duration_seconds: float | None = None,
    *,
    channel: str | None = None,
    track: int | None = None,
    warn: Warn = log.warning,
) -> np.ndarray:
    """The whole of a recording, or a stretch of it.

    Args:
      source: a path, "-" (standard input), bytes, a binary file object (read from its start), samples
        [samples] at 16 kHz, or (samples, rate) with samples [samples] or [samples, channels]; floats in
        [-1, 1] or integers, which are scaled by their type.
      offset_seconds, duration_seconds: the stretch; it is cut off where the recording ends.
      channel: "left" or "right" (the first or second of several channels). None takes their mean, without
        channels of mere hiss or hum, or the loudest channel where they cancel each other.
      track: of a file with several sound tracks, counted from 1. None takes the default one, or if that is
        mute the next.
      warn: is called with one line for each thing that was damaged, or left out.

    Returns float32 [samples], mono, 16 kHz, nominally in [-1, 1]. Sample 0 is time 0 of a player: a late
    start of the track, gaps between time stamps and lost packets become silence (at most 6 h altogether).

    A constant offset (mean of the first 10 s beyond ±0.01) is subtracted; sound without one is left as it is.
    Raises AudioError for what is missing, empty, not audio or not finite, for a channel or track that it does
    not have, and for a stretch outside the recording.
    """
    with _naming(source):
        if not 0 <= offset_seconds < inf or not (duration_seconds is None or 0 < duration_seconds < inf):
            stretch = f"{duration_seconds} s from {offset_seconds} s on"
            raise AudioError(f"cannot read {stretch}; give an offset of at least 0 and a duration above 0")
        if channel not in (None, "left", "right"):
            raise AudioError(f"has no channel {channel!r}; choose left or right")
    wanted = None if duration_seconds is None else 4 * round(duration_seconds * SAMPLE_RATE)
    buffer = bytearray()  # grows in place, where joining a list of blocks would hold the recording twice
    for samples in _samples(source, offset_seconds, channel, track, warn):
        buffer += samples.tobytes()
        if wanted is not None and len(buffer) >= wanted:
            del buffer[wanted:]
            break
    return np.frombuffer(buffer, np.float32)


def read_blocks(
    source: Source,
    block_seconds: float = 30.0,
    *,
    offset_seconds: float = 0.0,
    channel: str | None = None,
    track: int | None = None,
    warn: Warn = log.warning,
) -> Iterator[np.ndarray]:
    """The sound of load_audio(source, offset_seconds) in blocks of block_seconds (the last one shorter), in
    bounded memory.

    Arguments are those of load_audio, and channel may be "each", which gives blocks [samples, 2] of a stereo
    recording, or "mid and side", which gives [samples, 2] of a stereo one (see asr.channels.mixed) and
    [samples] of any other. A pipe is opened once, and each block given as soon as it is there.
    Errors are raised when the first block is asked for, or at the block that cannot be used.
    """
    size = round(block_seconds * SAMPLE_RATE)
    with _naming(source):
        if size < 1:
            raise AudioError(
                f"gives no blocks of {block_seconds} s, which are too short; ask for longer ones"
            )
    for block in in_blocks(_samples(source, offset_seconds, channel, track, warn), size):
        yield block[:, 0] if block.shape[1] == 1 else block


def duration_seconds(source: Source) -> float | None:
    """Length of a recording as its header states it, without decoding; None where that is not known.

    Good for progress bars only: a damaged file states what it should have been, and that of raw AAC is
    guessed from the bit rate. A pipe is not opened. Raises AudioError as load_audio does.
    """
    if is_pipe(source):
        return None
    with _naming(source):
        if isinstance(source, np.ndarray | tuple):
            samples, rate = _checked_array(source)
            return len(samples) / rate
        with _opened(source) as file:
            return stated_seconds(file) if file.seekable() else None


def is_pipe(source: Source) -> bool:
    """Whether the source can be read only once, from its start to its end. Asked without opening it."""
    if isinstance(source, str) and source == "-":
        return not sys.stdin.buffer.seekable()
    if isinstance(source, str | os.PathLike):
        try:
            mode = os.stat(source).st_mode
            return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)
        except (OSError, ValueError):
            return False  # and is not there; who opens it says so
    return hasattr(source, "seekable") and not getattr(source, "closed", False) and not source.seekable()


class LiveSamples:
    """Blocks of sound as they come, from a microphone or a socket, to mono samples at 16 kHz, without delay.

    Several channels become their mean, whatever is in them, and a constant offset stays: both would have to
    be listened to first.

    Args:
      rate: of the blocks, in Hz.

    Raises AudioError if the rate is none of sound.
    """

    def __init__(self, rate: float = SAMPLE_RATE):
        _, self.rate = _checked_array((np.empty(0, np.float32), rate))
        same = self.rate == SAMPLE_RATE
        self._resampler = None if same else soxr.ResampleStream(self.rate, SAMPLE_RATE, 1)
        self._odd = b""  # the first byte of a sample
        self._bytes = 0  # so far

    def push(self, block: LiveBlock) -> Iterator[np.ndarray]:
        """The block in parts float32 [samples].

        Args:
          block: of any length: mono 16-bit little-endian PCM as bytes, cut anywhere; or an array [samples] or
            [samples, channels] of floats in [-1, 1] or integers.

        Raises AudioError for what cannot be sound.
        """
        if isinstance(block, np.ndarray):
            samples, _ = _checked_array((block, self.rate))
            for start in range(0, len(samples), ARRAY_CHUNK):
                yield self._at_16_khz(scaled(samples[start : start + ARRAY_CHUNK]).mean(axis=1))
            return
        view = memoryview(block).cast("B")
        for start in range(0, len(view), ARRAY_CHUNK):
            data = self._odd + view[start : start + ARRAY_CHUNK]
            self._refuse_floats(data)
            even = len(data) - len(data) % 2
            self._bytes, self._odd = self._bytes + even, data[even:]
            yield self._at_16_khz(scaled(np.frombuffer(data, "<i2", even // 2)))

    def finish(self) -> np.ndarray:
        """What was held back, at the end. Half a sample is dropped."""
        return self._at_16_khz(np.empty(0, np.float32), last=True)

    def _at_16_khz(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        if len(samples):
            _check_samples(samples)
        return samples if self._resampler is None else self._resampler.resample_chunk(samples, last=last)

    def _refuse_floats(self, data: bytes) -> None:
        """As 16-bit samples, 32-bit floats are loud noise; as floats, speech in 16 bits is NaN and huge."""
        start = -self._bytes % 4
        floats = np.abs(np.frombuffer(data, "<f4", max(0, len(data) - start) // 4, start))
        floats = floats[floats != 0]
        if len(floats) >= FLOATS and ((floats > SMALLEST_FLOAT) & (floats < LARGEST_FLOAT)).all():
            raise AudioError(
                "holds 32-bit floats, not 16-bit samples; send 16-bit little-endian PCM (ffmpeg -f s16le)"
            )


def _samples(
    source: Source, offset_seconds: float, channel: str | None, track: int | None, warn: Warn
) -> Iterator[np.ndarray]:
    """Parts float32 [samples, columns] at 16 kHz from offset_seconds on, without constant offset.

    The columns are those that `channel` names. Raises AudioError if there is not one sample.
    """

    def named_warn(message: str) -> None:
        warn(f"{_name(source)} {message}")

    is_array = isinstance(source, np.ndarray | tuple)
    with _naming(source):
        if is_array:
            chunks = _array_chunks(source, offset_seconds, track)
        else:
            chunks = _file_chunks(source, offset_seconds, track, named_warn)
        head_seconds = OFFSET_SECONDS if is_array or not is_pipe(source) else LIVE_OFFSET_SECONDS
        chunks = _without_constant(_chosen(_checked(chunks), channel), head_seconds)
        first = next(chunks, None)
        if first is None and offset_seconds:
            raise AudioError(f"ends before {offset_seconds} s; give a smaller offset")
        if first is None:
            raise AudioError("holds no sound at all; record or export it again")
        yield from _resampled(chain([first], chunks))


def _chosen(chunks: Chunks, channel: str | None) -> Chunks:
    """The mean of the channels, or those columns that `channel` names."""
    if channel in (None, "mid and side"):
        yield from mixed(chunks, with_side=channel is not None)
        return
    if channel not in COLUMNS:
        raise AudioError(f"has no channel {channel!r}; choose left, right or each")
    count = None
    for rate, samples in chunks:
        count = count or samples.shape[1]
        if count == 1:
            raise AudioError(f"has only one channel, no {channel} one; leave the channel out")
        if channel == "each" and count > 2:
            raise AudioError(f"has {count} channels, not one a party; choose left or right, or none")
        yield rate, samples[:, [min(column, samples.shape[1] - 1) for column in COLUMNS[channel]]]


def _checked(chunks: Chunks) -> Chunks:
    for rate, samples in chunks:
        if not MIN_RATE <= rate <= MAX_RATE:
            rates = f"{MIN_RATE} to {MAX_RATE}"
            raise AudioError(f"claims a rate of {rate:g} Hz, not {rates}; export it again as WAV")
        if len(samples):
            _check_samples(samples)
            yield rate, samples


def _check_samples(samples: np.ndarray) -> None:
    peak = max(samples.max(), -samples.min())  # NaN if any sample is
    if not np.isfinite(peak):
        raise AudioError("holds samples that are NaN or infinite; export it again, best as 16-bit WAV")
    if peak > MAX_AMPLITUDE:
        raise AudioError(
            f"holds samples of {peak:.3g} where full scale is 1; "
            "scale them to [-1, 1] (16-bit values: divide by 32768)"
        )


def _without_constant(chunks: Chunks, head_seconds: float) -> Chunks:
    """Subtracts the mean of the first seconds, if it is one that only a constant can cause."""
    head: list[tuple[float, np.ndarray]] = []
    seconds = 0.0
    while seconds < head_seconds and (chunk := next(chunks, None)):
        head.append(chunk)
        seconds += len(chunk[1]) / chunk[0]
    if head:
        mean = np.concatenate([samples for _, samples in head]).mean(axis=0, dtype=np.float64)
        constant = np.where(np.abs(mean) > MIN_OFFSET, mean, 0.0).astype(np.float32)
    for rate, samples in chain(head, chunks):
        yield rate, samples - constant


def _resampled(chunks: Chunks) -> Iterator[np.ndarray]:
    """Samples at 16 kHz, without a trace of the joints of chunks. A rate that changes midway is followed."""
    for rate, columns, run in by_kind(chunks):
        if rate == SAMPLE_RATE:
            yield from run
            continue
        stream = soxr.ResampleStream(rate, SAMPLE_RATE, columns)
        for samples in run:
            yield stream.resample_chunk(np.ascontiguousarray(samples))
        yield stream.resample_chunk(np.empty((0, columns), np.float32), last=True)


def _checked_array(source: np.ndarray | tuple[np.ndarray, float]) -> tuple[np.ndarray, float]:
    """Samples [samples, channels] and their rate in Hz."""
    if isinstance(source, np.ndarray):
        if source.ndim != 1:
            wanted = "mono samples [samples] at 16 kHz, or (samples, rate) with samples [samples, channels]"
            raise AudioError(f"has the shape {source.shape}; give {wanted}")
        source = source, SAMPLE_RATE
    if len(source) != 2 or np.ndim(source[0]) not in (1, 2) or not isinstance(source[1], Real):
        raise AudioError("is no (samples, rate) with samples [samples] or [samples, channels]; give that")
    samples, rate = np.asarray(source[0]), float(source[1])
    if samples.dtype.kind not in "iuf" or (samples.dtype.kind in "iu" and samples.itemsize > 4):
        raise AudioError(f"has {samples.dtype}s without a known scale; give float32 in [-1, 1] or int16")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(f"has a rate of {rate:g} Hz; give one from {MIN_RATE} to {MAX_RATE}")
    samples = samples[:, None] if samples.ndim == 1 else samples
    if not 1 <= samples.shape[1] <= MAX_CHANNELS:
        raise AudioError(
            f"has {samples.shape[1]} channels; give [samples, channels], not [channels, samples]"
        )
    return samples, rate


def _array_chunks(
    source: np.ndarray | tuple[np.ndarray, float], offset_seconds: float, track: int | None
) -> Chunks:
    if track not in (None, 1):
        raise AudioError("has no tracks; leave the track out")
    samples, rate = _checked_array(source)
    for start in range(round(offset_seconds * rate), len(samples), ARRAY_CHUNK):
        yield rate, scaled(samples[start : start + ARRAY_CHUNK])


def _file_chunks(source: Source, offset_seconds: float, track: int | None, warn: Warn) -> Chunks:
    with _opened(source) as file:
        yield from read_chunks(file, offset_seconds, track, warn)


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    with ExitStack() as stack:
        try:
            if isinstance(source, bytes | bytearray | memoryview):
                file = io.BytesIO(source)
            elif source == "-":
                file = sys.stdin.buffer
            elif isinstance(source, str | os.PathLike):
                file = stack.enter_context(open(source, "rb"))
            else:
                file = source
            is_binary = file.read(0) == b""
        except AttributeError:
            raise AudioError("is no source; give a path, bytes, a binary file or (samples, rate)") from None
        except IsADirectoryError:
            raise AudioError("is a folder; give the audio files in it") from None
        except OSError as error:
            raise AudioError(f"cannot be opened: {error.strerror}; check the path") from None
        except ValueError as error:  # a closed file, a path with a null byte
            raise AudioError(f"cannot be read: {error}; give it anew") from None
        if not is_binary:
            raise AudioError('was opened as text; open it with mode "rb"')
        yield file


@contextmanager
def _naming(source: Source) -> Iterator[None]:
    """Puts the name of the source before the message of an AudioError."""
    try:
        yield
    except AudioError as error:
        raise AudioError(f"{_name(source)} {error}") from error


def _name(source: Source) -> str:
    """What a message calls the source: on one line, whatever the file is called."""
    if isinstance(source, str | os.PathLike):
        return "standard input" if source == "-" else repr(os.fspath(source))
    name = getattr(source, "name", None)
    return repr(name) if isinstance(name, str) else f"the given {type(source).__name__}"
