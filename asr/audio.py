"""Any recording people have, as mono float32 samples at 16 kHz.

WAV, FLAC, Ogg and their like are read by libsndfile (soundfile); every other container, MP3 included, by
FFmpeg's libraries (PyAV); rates are changed by soxr. Recordings are read in blocks, so that hours of sound
never lie in memory at once. Damaged files give the part that can be read; what gives nothing is refused in
one line.
"""

import io
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from math import inf
from numbers import Real
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

SAMPLE_RATE = 16_000  # Hz; what every model hears

MIN_RATE, MAX_RATE = 4_000, 768_000  # Hz; beyond these a header is damaged or no sound is meant
MAX_CHANNELS = 256
MAX_AMPLITUDE = 100.0  # full scale is 1; far beyond are integers that were cast to float without scaling
MIN_OFFSET = 0.01  # a mean larger than this is a sound card's constant voltage: speech has none
OFFSET_SECONDS = 10.0  # of sound whose mean is the offset

CHUNK_VALUES = 2**18  # decoded at a time, over all channels: 1 MiB of float32

# First bytes of the formats for libsndfile. MP3 is not one: libmpg123 writes complaints to standard error.
SOUNDFILE_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"FORM", b"caff", b".snd")

# Only containers that carry their sound in themselves: playlists (HLS, concat, SDP) make FFmpeg open other
# files and addresses that the sender of the file chose.
FFMPEG_FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,loas,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,"
    "mpeg,mpegts,ogg,rm,tta,w64,wav,wv"
)

Source = str | Path | bytes | BinaryIO | tuple[np.ndarray, float]
Chunks = Iterator[tuple[float, np.ndarray]]  # (rate in Hz, mono float32 [samples]) each

log = logging.getLogger(__name__)


class AudioError(ValueError):
    """A source that gives no sound: one line that names the source, what is wrong and the way out."""


def load_audio(
    source: Source, offset_seconds: float = 0.0, duration_seconds: float | None = None
) -> np.ndarray:
    """The whole of a recording, or a stretch of it.

    source: a path, "-" (standard input), bytes, a binary file object (read from its start), or (samples,
    rate) with samples [samples] or [samples, channels], floats in [-1, 1] or integers, which are scaled by
    their type.
    offset_seconds, duration_seconds: the stretch; it is cut off where the recording ends.

    Returns float32 [samples], mono (the mean of the channels), 16 kHz, nominally in [-1, 1].

    A constant offset (mean of the first 10 s beyond ±0.01) is subtracted; sound without one is left as it is.
    Raises AudioError for what is missing, empty, not audio or not finite, and for a stretch outside the
    recording.
    """
    if not 0 <= offset_seconds < inf or not (duration_seconds is None or 0 < duration_seconds < inf):
        raise AudioError(
            f"{_name(source)}: cannot read {duration_seconds} s from {offset_seconds} s on; "
            "give an offset of at least 0 and a duration above 0"
        )
    wanted = None if duration_seconds is None else 4 * round(duration_seconds * SAMPLE_RATE)
    buffer = bytearray()  # grows in place, where joining a list of blocks would hold the recording twice
    for mono in _resampled(_sound(source, offset_seconds)):
        buffer += mono.tobytes()
        if wanted is not None and len(buffer) >= wanted:
            del buffer[wanted:]
            break
    return np.frombuffer(buffer, np.float32)


def read_blocks(source: Source, block_seconds: float = 30.0) -> Iterator[np.ndarray]:
    """The sound of load_audio(source) in blocks of block_seconds (the last one shorter), in bounded memory.

    Errors are raised when the first block is asked for, or at the block that cannot be used.
    """
    size = round(block_seconds * SAMPLE_RATE)
    if size < 1:
        raise AudioError(
            f"{_name(source)}: blocks of {block_seconds} s are too short; give block_seconds above 0"
        )
    rest = np.empty(0, np.float32)
    for mono in _resampled(_sound(source, 0.0)):
        rest = np.concatenate([rest, mono])
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
    if len(rest):
        yield rest


def duration_seconds(source: Source) -> float | None:
    """Length of a recording as its header states it, without decoding; None where that is not known.

    Good for progress bars only: a damaged file states what it should have been, and that of raw AAC is
    guessed from the bit rate. Raises AudioError as load_audio does.
    """
    if isinstance(source, tuple):
        samples, rate = _checked_array(source)
        return len(samples) / rate
    if source == "-":
        return None
    with _opened(source) as (name, file):
        if not file.seekable():
            return None
        sound = _open_with_soundfile(file)
        if sound is not None:
            return sound.frames / sound.samplerate
        with _open_with_ffmpeg(name, file) as container:
            stream = container.streams.audio[0]
            if stream.duration:
                return float(stream.duration * stream.time_base)
            return container.duration / 1e6 if container.duration else None  # in microseconds


def _sound(source: Source, offset_seconds: float) -> Chunks:
    """Chunks from offset_seconds on, checked, without constant offset; at least one sample or AudioError."""
    name = _name(source)
    if isinstance(source, tuple):
        chunks = _array_chunks(source, offset_seconds)
    else:
        chunks = _file_chunks(source, offset_seconds)
    empty = True
    for rate, mono in _without_constant(_checked(name, chunks)):
        empty = False
        yield rate, mono
    if empty and offset_seconds:
        raise AudioError(f"{name} ends before {offset_seconds} s; give a smaller offset")
    if empty:
        raise AudioError(f"{name} holds no sound at all; record or export it again")


def _checked(name: str, chunks: Chunks) -> Chunks:
    for rate, mono in chunks:
        if not MIN_RATE <= rate <= MAX_RATE:
            raise AudioError(
                f"{name} claims a rate of {rate:g} Hz, not {MIN_RATE} to {MAX_RATE}; export it again as WAV"
            )
        if not len(mono):
            continue
        peak = max(mono.max(), -mono.min())  # NaN if any sample is
        if not np.isfinite(peak):
            raise AudioError(
                f"{name} holds samples that are NaN or infinite; export it again, best as 16-bit WAV"
            )
        if peak > MAX_AMPLITUDE:
            raise AudioError(
                f"{name} holds samples of {peak:.3g} where full scale is 1; "
                "scale them to [-1, 1] (16-bit values: divide by 32768)"
            )
        yield rate, mono


def _without_constant(chunks: Chunks) -> Chunks:
    """Subtracts the mean of the first seconds, if it is one that only a constant can cause."""
    head: list[tuple[float, np.ndarray]] = []
    seconds = 0.0
    for rate, mono in chunks:
        head.append((rate, mono))
        seconds += len(mono) / rate
        if seconds >= OFFSET_SECONDS:
            break
    if not head:
        return
    mean = np.concatenate([mono for _, mono in head]).mean(dtype=np.float64)
    constant = np.float32(mean if abs(mean) > MIN_OFFSET else 0.0)
    for rate, mono in head:
        yield rate, mono - constant
    for rate, mono in chunks:
        yield rate, mono - constant


def _resampled(chunks: Chunks) -> Iterator[np.ndarray]:
    """Samples at 16 kHz, without a trace of the joints of chunks. A rate that changes midway is followed."""
    stream, stream_rate = None, SAMPLE_RATE
    for rate, mono in chunks:
        if rate != stream_rate:
            if stream is not None:
                yield stream.resample_chunk(np.empty(0, np.float32), last=True)
            stream_rate = rate
            stream = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1)
        yield mono if stream is None else stream.resample_chunk(mono)
    if stream is not None:
        yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def _mono(samples: np.ndarray) -> np.ndarray:
    """Samples [samples, channels] of any usual type, as float32 [samples] in [-1, 1]."""
    if samples.dtype.kind in "iu":
        limits = np.iinfo(samples.dtype)
        full_scale = (int(limits.max) - int(limits.min) + 1) // 2
        middle = int(limits.min) + full_scale  # 0, or 128 for 8-bit WAV
        return ((samples.mean(axis=1, dtype=np.float64) - middle) / full_scale).astype(np.float32)
    if samples.shape[1] == 1:
        return samples[:, 0].astype(np.float32, copy=False)
    return samples.mean(axis=1, dtype=np.float32)


def _checked_array(source: tuple[np.ndarray, float]) -> tuple[np.ndarray, float]:
    """Samples [samples, channels] and their rate in Hz."""
    name = _name(source)
    if len(source) != 2 or np.ndim(source[0]) not in (1, 2) or not isinstance(source[1], Real):
        raise AudioError(f"{name}: expected (samples, rate) with samples [samples] or [samples, channels]")
    samples, rate = np.asarray(source[0]), float(source[1])
    if samples.dtype.kind not in "iuf" or (samples.dtype.kind in "iu" and samples.itemsize > 4):
        raise AudioError(
            f"{name}: samples of type {samples.dtype} have no known scale; give float32 in [-1, 1] or int16"
        )
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(f"{name}: the rate is {rate:g} Hz; give one from {MIN_RATE} to {MAX_RATE}")
    samples = samples[:, None] if samples.ndim == 1 else samples
    if not 1 <= samples.shape[1] <= MAX_CHANNELS:
        raise AudioError(
            f"{name}: {samples.shape[1]} channels; give [samples, channels], not [channels, samples]"
        )
    return samples, rate


def _array_chunks(source: tuple[np.ndarray, float], offset_seconds: float) -> Chunks:
    samples, rate = _checked_array(source)
    for start in range(round(offset_seconds * rate), len(samples), CHUNK_VALUES):
        yield rate, _mono(samples[start : start + CHUNK_VALUES])


def _file_chunks(source: Source, offset_seconds: float) -> Chunks:
    with _opened(source) as (name, file), tempfile.TemporaryFile() as copy:
        if not file.seekable():  # a pipe; most containers are read back and forth
            shutil.copyfileobj(file, copy)
            file = copy
        sound = _open_with_soundfile(file)
        if sound is not None:
            try:
                for rate, mono in _soundfile_chunks(sound, offset_seconds):
                    yield rate, mono
                    offset_seconds += len(mono) / rate
                return
            except soundfile.SoundFileError:  # libsndfile stops at the first damage, FFmpeg gets past it
                log.warning("%s is damaged near %.1f s; what can be read is used", name, offset_seconds)
        yield from _ffmpeg_chunks(name, file, offset_seconds)


def _open_with_soundfile(file: BinaryIO) -> soundfile.SoundFile | None:
    """The file as libsndfile sees it, or None where FFmpeg should try."""
    file.seek(0)
    magic = file.read(4)
    file.seek(0)
    if magic not in SOUNDFILE_MAGIC:
        return None
    try:
        sound = soundfile.SoundFile(_PatientFile(file))
    except soundfile.SoundFileError:
        return None
    # No frames: perhaps a recorder that was killed before it wrote the length. FFmpeg reads such to the end.
    return sound if sound.frames and sound.channels <= MAX_CHANNELS else None


class _PatientFile:
    """A file that stays where it is when a damaged header sends it to before its start.

    soundfile would print the exception that files raise then, and go on.
    """

    def __init__(self, file: BinaryIO):
        self.file = file
        self.read, self.tell = file.read, file.tell

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with suppress(OSError, ValueError):
            self.file.seek(offset, whence)
        return self.file.tell()


def _soundfile_chunks(sound: soundfile.SoundFile, offset_seconds: float) -> Chunks:
    rate, size = sound.samplerate, CHUNK_VALUES // sound.channels
    first = round(offset_seconds * rate)
    if first >= sound.frames:
        return
    sound.seek(first)
    while len(samples := sound.read(size, dtype="float32", always_2d=True)):
        yield rate, _mono(samples)


def _open_with_ffmpeg(name: str, file: BinaryIO):
    import av  # takes 0.07 s that WAV and FLAC need not wait for

    file.seek(0)
    try:
        container = av.open(file, metadata_errors="replace", options={"format_whitelist": FFMPEG_FORMATS})
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(
            f"{name} is no audio that can be read; convert it to WAV, FLAC, MP3 or M4A"
        ) from error
    if not container.streams.audio:
        container.close()
        raise AudioError(f"{name} holds no sound track; give a recording with sound")
    return container


def _ffmpeg_chunks(name: str, file: BinaryIO, offset_seconds: float) -> Chunks:
    with _open_with_ffmpeg(name, file) as container:
        parts: list[np.ndarray] = []
        waiting, rate = 0, 0
        skip_seconds = offset_seconds  # decoded and dropped: seeking in compressed sound is not exact
        for frame in _ffmpeg_frames(name, container):
            if parts and (frame.sample_rate != rate or waiting >= CHUNK_VALUES):
                yield rate, np.concatenate(parts)
                parts, waiting = [], 0
            rate = frame.sample_rate
            if skip_seconds * rate >= frame.samples:
                skip_seconds -= frame.samples / rate
                continue
            samples = frame.to_ndarray()
            samples = samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1)
            parts.append(_mono(samples[round(skip_seconds * rate) :]))
            waiting += len(parts[-1])
            skip_seconds = 0.0
        if parts:
            yield rate, np.concatenate(parts)


def _ffmpeg_frames(name: str, container) -> Iterator:
    """The frames of the first sound track; packets that cannot be decoded are left out."""
    import av

    packets = container.demux(container.streams.audio[0])
    damaged = 0
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            frames = packet.decode()
        except av.FFmpegError:
            damaged += 1
            continue
        yield from frames
    if damaged:
        log.warning("%s is damaged in %d places; what can be read is used", name, damaged)


@contextmanager
def _opened(source: Source) -> Iterator[tuple[str, BinaryIO]]:
    """The name of a source and its binary file."""
    name = _name(source)
    with ExitStack() as stack:
        try:
            if isinstance(source, bytes | bytearray | memoryview):
                file = io.BytesIO(source)
            elif source == "-":
                file = sys.stdin.buffer
            elif isinstance(source, str | os.PathLike):
                file = stack.enter_context(open(source, "rb"))
            elif hasattr(source, "read"):
                file = source
            else:
                raise AudioError(f"{name} is no source; give a path, bytes, a binary file or (samples, rate)")
            if file.read(0) != b"":
                raise AudioError(f'{name} was opened as text; open it with mode "rb"')
        except IsADirectoryError:
            raise AudioError(f"{name} is a folder; give the audio files in it") from None
        except OSError as error:
            raise AudioError(f"{name} cannot be opened: {error.strerror}; check the path") from None
        except AudioError:
            raise
        except ValueError as error:  # a closed file, a path with a null byte
            raise AudioError(f"{name}: {error}; give it anew") from None
        yield name, file


def _name(source: Source) -> str:
    """What a message calls the source: on one line, whatever the file is called."""
    if isinstance(source, tuple):
        return "the given array"
    if isinstance(source, bytes | bytearray | memoryview):
        return "the given data"
    if source == "-":
        return "standard input"
    if isinstance(source, str | os.PathLike):
        return repr(os.fspath(source))
    name = getattr(source, "name", None)
    return repr(name) if isinstance(name, str) else f"the given {type(source).__name__}"
