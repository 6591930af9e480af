"""Files and streams of any kind as chunks of samples, on the clock of a player.

WAV, FLAC, Ogg and their like are read by libsndfile (soundfile), everything else, and what comes through a
pipe, by FFmpeg's libraries (PyAV). Where time stamps jump or packets are lost, silence of that length keeps
later sound in its place.
"""

import io
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import BinaryIO

import soundfile

from asr import tracks
from asr.chunks import AudioError, Chunks, Warn, dropped

MAX_CHANNELS = 256
CHUNK_VALUES = 2**18  # decoded at a time by libsndfile, over all channels: 1 MiB of float32

# First bytes of the formats for libsndfile. MP3 is not one: libmpg123 writes complaints to standard error.
SOUNDFILE_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"FORM", b"caff", b".snd", b"NIST")
# First bytes of what FFmpeg reads from a pipe without going back; a bare MP3 or AAC frame starts with FF.
STREAM_MAGIC = (*b"RIFF RF64 fLaC OggS .snd FLV #!AMR G".split(), b"\x1aE\xdf\xa3", b"\xff")
EMPTY = "is empty (0 bytes); record or export it again"
UNKNOWN_LENGTH = 0x7FFF0000  # bytes; a WAV that states this or more was never finished, as in a pipe
MAX_INDEX_BYTES = 2**24  # of an MP4 in a pipe


def read_chunks(file: BinaryIO, offset_seconds: float, track: int | None, warn: Warn) -> Chunks:
    """The sound of a binary file or stream from offset_seconds on.

    track: which of its sound tracks, from 1; None takes the default one, or the next that is not mute.
    warn: is called with one line for each thing that was damaged, lost or left out.
    Raises AudioError for what is empty, is not audio, or has no such track. Messages lack its name.
    """
    if file.seekable():
        yield from _file_chunks(file, offset_seconds, track, warn)
        return
    stream = _Stream(file)
    if not stream.peek(1):
        raise AudioError(EMPTY)
    stream.skip(_id3_bytes(stream.peek(10)))
    if stream.peek(12).startswith(STREAM_MAGIC) or _starts_with_index(stream):
        yield from dropped(_stream_chunks(stream, track, warn), offset_seconds)
        return
    with tempfile.TemporaryFile() as copy:  # to be read back and forth
        shutil.copyfileobj(stream, copy)
        yield from _file_chunks(copy, offset_seconds, track, warn)


def stated_seconds(file: BinaryIO) -> float | None:
    """Length of a seekable file as its header states it; None where that is not known."""
    links = _links(file)
    if len(links) > 1:
        return None
    sound = _open_with_soundfile(links[0])
    if sound is not None:
        return sound.frames / sound.samplerate
    with tracks.open_container(links[0]) as container:
        stream = container.streams.audio[0]
        if stream.duration:
            return float(stream.duration * stream.time_base)
        return container.duration / 1e6 if container.duration else None  # in microseconds


# Files, and the files within files


def _file_chunks(file: BinaryIO, offset_seconds: float, track: int | None, warn: Warn) -> Chunks:
    links = _links(file)
    if len(links) == 1:
        yield from _link_chunks(links[0], offset_seconds, track, warn)
    else:
        joined = _joined((_link_chunks(link, 0.0, track, warn) for link in links), warn)
        yield from dropped(joined, offset_seconds)


def _joined(links: Iterable[Chunks], warn: Warn) -> Chunks:
    """One link after the other. Only what is wrong with the first is an error."""
    for number, chunks in enumerate(links):
        try:
            yield from chunks
        except AudioError as error:
            if number == 0:
                raise
            warn(f"has a later part that is left out: it {error}")


def _link_chunks(file: "_Part", offset_seconds: float, track: int | None, warn: Warn) -> Chunks:
    sound = _open_with_soundfile(file)
    if sound is None:
        yield from tracks.file_chunks(file.copy, offset_seconds, track, warn)
        return
    if track not in (None, 1):
        raise AudioError(f"has one sound track, no track {track}; leave the track out")
    stated = sound.frames / sound.samplerate * _stated_part(file.copy())
    position, damaged_at = offset_seconds, None
    try:
        for rate, samples in _soundfile_chunks(sound, offset_seconds):
            yield rate, samples
            position += len(samples) / rate
    except soundfile.SoundFileError:  # libsndfile stops at the first damage, FFmpeg gets past it
        damaged_at = position
        with suppress(AudioError):
            for rate, samples in tracks.file_chunks(file.copy, position, None, lambda message: None):
                yield rate, samples
                position += len(samples) / rate
    if offset_seconds < position < stated - tracks.SHORT_SECONDS:
        warn(tracks.TRUNCATED.format(stated, position))
    elif damaged_at is not None:
        warn(f"is damaged near {damaged_at:.1f} s; what can be read is used")


class _Part:
    """The bytes of a file from start to end, as a file. One that begins and ends in `streams` tracks.

    A damaged header may send it to before its start. It then stays where it is: of an exception, soundfile
    would print the traceback and go on.
    """

    def __init__(self, file: BinaryIO, start: int, end: int, streams: int = 1):
        self.file, self.start, self.end, self.streams = file, start, end, streams
        self.position = 0

    def copy(self) -> "_Part":
        return _Part(self.file, self.start, self.end, self.streams)

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.end - self.start}[whence]
        if base + offset >= 0:
            self.position = base + offset
        return self.position

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.end - self.start - self.position)
        self.file.seek(self.start + self.position)
        data = self.file.read(left if size < 0 else min(size, left))
        self.position += len(data)
        return data

    def read_at(self, position: int, size: int) -> bytes:
        """What lies at a position of at least 0."""
        self.seek(position)
        return self.read(size)


def _links(file: BinaryIO) -> list[_Part]:
    """The recordings that follow each other in a file: chained Ogg, WAV or FLAC files joined by `cat`."""
    size = file.seek(0, io.SEEK_END)
    if not size:
        raise AudioError(EMPTY)
    whole = _Part(file, 0, size)
    start = _id3_bytes(whole.read(10))
    magic = whole.read_at(start, 4)
    find = {b"OggS": _ogg_starts, b"fLaC": _flac_starts, b"RIFF": _riff_starts}.get(magic)
    if magic not in SOUNDFILE_MAGIC:
        return [whole.copy()]
    starts = (find(whole, start) if find else {}) or {start: 1}  # none in an Ogg of less than a page
    return [_Part(file, begin, end, starts[begin]) for begin, end in pairwise([*starts, size])]


def _id3_bytes(head: bytes) -> int:
    """Length of the ID3 tag that a file begins with, or 0."""
    if len(head) < 10 or head[:3] != b"ID3":
        return 0
    return 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def _ogg_starts(file: _Part, start: int) -> dict[int, int]:
    """Where the links of a chained Ogg file start, and how many streams each holds at a time."""
    starts: dict[int, int] = {}
    position, first_pages = start, False
    while len(header := file.read_at(position, 27 + 255)) >= 27:
        if header[:4] != b"OggS":  # damaged: on to the next page
            data = file.read_at(position + 1, 2**17)
            found = data.find(b"OggS")
            position += 1 + (found if found >= 0 else max(1, len(data) - 3))
            continue
        begins = bool(header[5] & 2) or not starts  # a logical stream's first page
        if begins:
            link = next(reversed(starts)) if first_pages else position
            starts[link] = starts.get(link, 0) + 1
        first_pages = begins
        position += 27 + header[26] + sum(header[27 : 27 + header[26]])
    return starts


def _flac_starts(file: _Part, start: int) -> dict[int, int]:
    magic = rb"fLaC\x00\x00\x00\x22"  # with the head of the block that always comes first
    starts, position = {start: 1}, start + 1
    while len(data := file.read_at(position, 2**20)) >= 8:
        starts |= {position + match.start(): 1 for match in re.finditer(magic, data)}
        position += len(data) - 7  # the magic may lie across two blocks
    return starts


def _riff_starts(file: _Part, start: int) -> dict[int, int]:
    starts = {start: 1}
    while (size := int.from_bytes(file.read_at(start + 4, 4), "little")) >= 12:
        start += 8 + size + size % 2
        header = file.read_at(start, 12)
        if header[:4] != b"RIFF" or header[8:] != b"WAVE":
            break
        starts[start] = 1
    return starts


def _stated_part(file: _Part) -> float:
    """Sound that the header of a WAV or AIFF states, over that which the file holds; 1 where not known."""
    order = {b"RIFF": "little", b"RIFX": "big", b"FORM": "big"}.get(file.read_at(0, 12)[:4])
    while order and len(header := file.read(8)) == 8:
        size = int.from_bytes(header[4:], order)
        left = file.end - file.start - file.tell()
        if header[:4] in (b"data", b"SSND"):
            return size / left if 0 < left < size < UNKNOWN_LENGTH else 1.0
        file.seek(size + size % 2, io.SEEK_CUR)
    return 1.0


# libsndfile


def _open_with_soundfile(file: _Part) -> soundfile.SoundFile | None:
    """The file as libsndfile sees it, or None where FFmpeg should try."""
    if file.read_at(0, 4) not in SOUNDFILE_MAGIC or file.streams > 1:
        return None
    file.seek(0)
    try:
        sound = soundfile.SoundFile(file)
    except soundfile.SoundFileError:
        return None
    # A recorder that was killed leaves a length of 0; FFmpeg reads such files to their end.
    return sound if sound.frames and sound.channels <= MAX_CHANNELS else None


def _soundfile_chunks(sound: soundfile.SoundFile, offset_seconds: float) -> Chunks:
    def chunks() -> Chunks:
        while len(samples := sound.read(CHUNK_VALUES // sound.channels, dtype="float32", always_2d=True)):
            yield sound.samplerate, samples

    frames = round(offset_seconds * sound.samplerate)
    if frames >= sound.frames:
        return
    if frames and sound.seekable():
        with suppress(soundfile.SoundFileError):  # GSM claims to be seekable, and is not
            sound.seek(frames)
            offset_seconds = 0.0
    yield from dropped(chunks(), offset_seconds)


# Streams: pipes, sockets, whatever cannot go back


class _Stream:
    """A source that is read once: `read` returns the bytes that are there, without waiting for more."""

    def __init__(self, file: BinaryIO):
        self._read = getattr(file, "read1", file.read)
        self.head = b""

    def peek(self, size: int) -> bytes:
        """The next bytes, which stay; fewer only at the end."""
        while len(self.head) < size and (data := self._read(size - len(self.head))):
            self.head += data
        return self.head[:size]

    def read(self, size: int = -1) -> bytes:
        if not self.head:
            return self._read(size)
        data, self.head = (self.head, b"") if size < 0 else (self.head[:size], self.head[size:])
        return data

    def skip(self, size: int) -> None:
        while size > 0 and (data := self.read(min(size, 2**16))):
            size -= len(data)


class _OggLink:
    """The next link of a chained Ogg stream: it ends where another one starts."""

    def __init__(self, stream: _Stream):
        self.stream = stream
        self.left = 0  # bytes of the page that is being read
        self.begun = False  # the pages are past those that start a link

    def read(self, size: int) -> bytes:
        header = b"" if self.left else self.stream.peek(27)
        if header[:4] == b"OggS" and len(header) == 27:
            starts = bool(header[5] & 2)
            if starts and self.begun:
                return b""
            self.begun |= not starts
            self.left = 27 + header[26] + sum(self.stream.peek(27 + header[26])[27:])
        # Where a page is damaged, FFmpeg finds the next one.
        data = self.stream.read(min(size, self.left or size))
        self.left = max(0, self.left - len(data))
        return data


def _starts_with_index(stream: _Stream) -> bool:
    """Whether it is an MP4 whose index comes before its sound, as in live streams and for the web."""
    position = 0
    while (
        stream.peek(8)[4:] in (b"ftyp", b"styp") and len(header := stream.peek(position + 8)) == position + 8
    ):
        size, kind = int.from_bytes(header[position : position + 4], "big"), header[position + 4 :]
        if kind == b"mdat" or not 8 <= size <= MAX_INDEX_BYTES:
            return False
        if kind == b"moov":
            index = stream.peek(position + size)
            return b"mvex" in index or index.count(b"trak") == 1  # else tracks may lie one behind another
        position += size
    return False


def _stream_chunks(stream: _Stream, track: int | None, warn: Warn) -> Chunks:
    if stream.peek(4) != b"OggS":
        yield from _track_of_stream(stream, track, warn)
        return

    def links() -> Iterator[Chunks]:
        while stream.peek(1):
            link = _OggLink(stream)
            yield _track_of_stream(link, track, warn)
            while link.read(2**16):
                pass

    yield from _joined(links(), warn)


def _track_of_stream(stream, track: int | None, warn: Warn) -> Chunks:
    with tracks.open_container(stream) as container:
        index, count = tracks.chosen_track(container, track), len(container.streams.audio)
        if track is None and count > 1:
            tracks.tell_of_others(index, count, index, warn)
        yield from tracks.track_chunks(container, container.streams.audio[index], warn)
