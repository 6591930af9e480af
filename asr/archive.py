"""What an archive holds: a folder, a pattern, a list or a bucket as recordings, long ones in parts.

fsspec reads every place, so that s3:// and gs:// are the same as a folder (with s3fs or gcsfs installed).
"""

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import PurePath
from typing import IO

import fsspec
import numpy as np
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from pyarrow import csv, json, parquet

from asr.audio import SAMPLE_RATE, AudioError, Source, Warn, duration_seconds, load_audio, read_blocks
from asr.files import READ_ERRORS, SOUND, reason
from asr.segmentation import FRAME_SAMPLES, POSSIBLE_SPEECH, SpeechDetector

PATH_COLUMNS = ("audio_filepath", "path", "file", "uri", "url")  # the first that is there counts
COLUMN_TYPES = {**dict.fromkeys(PATH_COLUMNS, pa.string()), "offset": pa.float64(), "duration": pa.float64()}

LONG_SECONDS = 1200.0  # longer recordings are read in parts, by several processes
PART_SECONDS = 600.0
PAUSE_SECONDS = 30.0  # of sound, in the middle of which the pause between two parts is looked for
# A header is opened only where the file may be long; of the others the length is guessed from the size.
MIN_LONG_BYTES = 2**20
GUESSED_BYTES_PER_SECOND = 4000
READERS = 16  # headers that are opened at the same time
BLOCK_SECONDS = 30.0
FRAME_SECONDS = FRAME_SAMPLES / SAMPLE_RATE

# A shard is a file, and what is lost when a process dies: an hour of sound at most, less of a small archive,
# so that all cores end at about the same time.
MAX_SHARD_SECONDS, MIN_SHARD_SECONDS = 3600.0, 60.0
SHARDS = 200  # of a small archive
MAX_SHARD_STRETCHES = 256

INPUTS = pa.schema(
    [
        ("path", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("seconds", pa.float64()),
        ("whole_seconds", pa.float64()),
        ("shard", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Stretch:
    """A recording or a part of it.

    Attributes:
      path: of the file: absolute, or with its protocol ("s3://bucket/call.mp3").
      start, end: in seconds; no end is the end of the file. Parts of a long recording begin and end at a
        pause near these times.
      seconds: about how long it is.
      whole_seconds: length of the recording, as its header says, if this is a part of a long one.
    """

    path: str
    start: float = 0.0
    end: float | None = None
    seconds: float = 0.0
    whole_seconds: float | None = None


def find_stretches(source: str) -> list[Stretch]:
    """All that is to be recognised, each once, in the order of paths and times.

    Args:
      source: a folder, with all recordings below it; a pattern such as "calls/**/*.mp3"; one recording; or a
        list: a manifest (.jsonl, .csv, .tsv) or a .parquet with a column of paths, relative to the list. Each
        may have a protocol that fsspec knows: s3://, gs://, file://.

    Raises ValueError where there is nothing, or the list has no column of paths.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(source)
        kind = _kind(path)
        found = _rows(filesystem, path, kind) if kind in LISTS else _recordings(filesystem, path)
    except (ImportError, pa.ArrowException, *READ_ERRORS) as error:  # ImportError: s3fs, for instance
        raise ValueError(f"{source}: {reason(error)}; check the path") from error
    except ValueError as error:  # a protocol that there is not, a column that is not there
        raise ValueError(f"{source}: {error}") from None
    if not found:
        raise ValueError(f"{source}: no recording is there; give a folder, a pattern or a list of recordings")
    for stretch, _ in found:
        try:
            stretch.path.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{stretch.path!r}: its name is not UTF-8; rename it") from None
    with ThreadPoolExecutor(READERS) as pool:
        parts = {part: None for parts in pool.map(_in_parts, *zip(*found, strict=True)) for part in parts}
    return sorted(parts, key=lambda part: (part.path, part.start))


def divided(stretches: Sequence[Stretch]) -> list[list[Stretch]]:
    """Shards of about the same length, in order."""
    total = sum(stretch.seconds for stretch in stretches)
    size = min(MAX_SHARD_SECONDS, max(MIN_SHARD_SECONDS, total / SHARDS))
    shards: list[list[Stretch]] = []
    seconds = size
    for stretch in stretches:
        if seconds >= size or len(shards[-1]) == MAX_SHARD_STRETCHES:
            shards.append([])
            seconds = 0.0
        shards[-1].append(stretch)
        seconds += stretch.seconds
    return shards


@contextmanager
def opened(stretch: Stretch, warn: Warn) -> Iterator[tuple[Source, float]]:
    """The sound of a stretch, as the recogniser takes it, and where in the file it starts, in seconds.

    Raises AudioError and OSError.
    """
    with _opened(stretch.path) as file:
        if stretch.start == 0 and stretch.end is None:
            yield file, 0.0
            return
        start, end = stretch.start, stretch.end
        if stretch.whole_seconds is not None:
            start = start and _pause_near(file, start)
            try:
                end = end and _pause_near(file, end)
            except AudioError:
                end = None  # the file ends before its header says so; the next part reports it
        yield _read(file, start, end, warn), start


def _read(source: Source, start: float, end: float | None, warn: Warn) -> Source:
    """The samples from start to end, of both channels where there are two."""
    wanted = None if end is None else round((end - start) * SAMPLE_RATE)
    blocks: list[np.ndarray] = []
    count = 0
    for block in read_blocks(source, BLOCK_SECONDS, offset_seconds=start, channel="mid and side", warn=warn):
        blocks.append(block)
        count += len(block)
        if wanted is not None and count >= wanted:
            break
    samples = np.concatenate(blocks)[:wanted]
    if samples.ndim == 2:
        middle, side = samples.T
        samples = np.stack([middle + side, middle - side], axis=1)
    return samples, SAMPLE_RATE


def _pause_near(source: Source, seconds: float) -> float:
    """The middle of the longest pause around a time, in seconds. It depends on nothing else than the file, so
    that the part before and the part after find the same one. Raises AudioError.
    """
    first = seconds - PAUSE_SECONDS / 2
    samples = load_audio(source, first, PAUSE_SECONDS, warn=lambda message: None)
    probabilities = SpeechDetector()(np.pad(samples, (0, -len(samples) % FRAME_SAMPLES)))
    speech = np.flatnonzero(np.concatenate([[True], probabilities > POSSIBLE_SPEECH, [True]])) - 1
    pauses = np.diff(speech)  # in frames, 1 more than are silent
    longest = int(pauses.argmax())
    middle = (speech[longest] + speech[longest + 1] + 1) / 2
    if pauses[longest] == 1:  # speech all the time
        middle = float(probabilities.argmin())
    # On the frames of the whole file, so that utterances begin at the same samples as if it were not cut.
    return round(first / FRAME_SECONDS + float(middle)) * FRAME_SECONDS


@contextmanager
def _opened(path: str) -> Iterator[Source]:
    if "://" in path:
        with fsspec.open(path, "rb") as file:
            yield file
    else:
        yield path


def _in_parts(stretch: Stretch, size: int | None) -> list[Stretch]:
    """The parts of a long recording of so many bytes; else the one stretch, with its length."""
    if stretch.end is not None or stretch.start > 0:
        return [stretch]
    try:
        if size is None:
            filesystem, path = fsspec.core.url_to_fs(stretch.path)
            size = filesystem.size(path)
        seconds = size / GUESSED_BYTES_PER_SECOND
        if size >= MIN_LONG_BYTES:
            with _opened(stretch.path) as file:
                stated_seconds = duration_seconds(file)
            if stated_seconds is not None and stated_seconds > LONG_SECONDS:
                return _parts(stretch.path, stated_seconds)
            seconds = stated_seconds or seconds
    except (AudioError, ImportError, ValueError, *READ_ERRORS):  # a protocol or a name that cannot be
        seconds = 0.0  # whoever recognises it says what is wrong
    return [replace(stretch, seconds=seconds)]


def _parts(path: str, seconds: float) -> list[Stretch]:
    starts = [number * PART_SECONDS for number in range(round(seconds / PART_SECONDS))]
    ends = [*starts[1:], None]
    return [
        Stretch(path, start, end, (end or seconds) - start, seconds)
        for start, end in zip(starts, ends, strict=True)
    ]


def _recordings(filesystem: fsspec.AbstractFileSystem, path: str) -> list[tuple[Stretch, int | None]]:
    """The files of a folder or pattern, or the one file, with their sizes in bytes."""
    if filesystem.isfile(path):
        infos = {path: filesystem.info(path)}
    elif filesystem.isdir(path):
        infos = filesystem.find(path, detail=True)
        infos = {name: info for name, info in infos.items() if PurePath(name).suffix.lower() in SOUND}
    elif glob.has_magic(path):
        infos = filesystem.glob(path, detail=True)
    else:
        raise ValueError("no such file or folder; check the path")
    return [
        (Stretch(_full_name(filesystem, name)), info["size"])
        for name, info in infos.items()
        if info["type"] == "file"
    ]


def _kind(path: str) -> str:
    """The suffix of a list, before .gz or .xz."""
    suffixes = [suffix.lower() for suffix in PurePath(path).suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in (".gz", ".xz")), "")


def _rows(filesystem: fsspec.AbstractFileSystem, path: str, kind: str) -> list[tuple[Stretch, int | None]]:
    """What a list names. Where a file is in several rows, or has an offset, a row is a stretch of it."""
    with filesystem.open(path, "rb", compression="infer") as file:
        columns = LISTS[kind](file).to_pydict()
    name = next((name for name in PATH_COLUMNS if any(columns.get(name, ()))), None)
    if name is None:
        raise ValueError(f"has no column of paths; name it {PATH_COLUMNS[0]} or {PATH_COLUMNS[1]}")
    folder = _full_name(filesystem, filesystem._parent(path))
    paths = [value and _joined(folder, value) for value in columns[name]]
    times = Counter(paths)
    nothing = [None] * len(paths)
    offsets, durations = columns.get("offset", nothing), columns.get("duration", nothing)
    found = []
    for number, (path, offset, duration) in enumerate(zip(paths, offsets, durations, strict=True), start=1):
        if not path:
            raise ValueError(f"entry {number} has no {name}; give the file")
        if offset or (times[path] > 1 and duration):
            start = offset or 0.0
            if not (0 <= start < inf and 0 < (duration or 1) < inf):
                raise ValueError(f"entry {number} needs an offset from 0 and a duration above 0 seconds")
            end = start + duration if duration else None
            found.append((Stretch(path, start, end, duration or 0.0), None))
        else:
            found.append((Stretch(path), None))
    return found


def _joined(folder: str, path: str) -> str:
    if "://" in path:
        return path
    if "://" in folder and not os.path.isabs(path):
        return f"{folder}/{path}"
    return os.path.abspath(os.path.join(folder, path))


def _full_name(filesystem: fsspec.AbstractFileSystem, name: str) -> str:
    if isinstance(filesystem, LocalFileSystem):
        return os.path.abspath(name)
    return filesystem.unstrip_protocol(name)


def _read_parquet(file: IO[bytes]) -> pa.Table:
    there = parquet.ParquetFile(file)
    columns = [column for column in there.schema_arrow if column.name in COLUMN_TYPES]
    # Not a column "file" of numbers.
    named = [c.name for c in columns if c.name not in PATH_COLUMNS or not pa.types.is_primitive(c.type)]
    table = there.read(named)
    return table.cast(pa.schema([(name, COLUMN_TYPES[name]) for name in table.column_names]))


def _read_json_lines(file: IO[bytes]) -> pa.Table:
    schema = pa.schema(list(COLUMN_TYPES.items()))
    options = json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    return json.read_json(file, parse_options=options)


def _read_csv(file: IO[bytes], delimiter: str = ",", quote: str | bool = '"') -> pa.Table:
    names = list(COLUMN_TYPES)
    convert = csv.ConvertOptions(
        column_types=COLUMN_TYPES, include_columns=names, include_missing_columns=True
    )
    parse = csv.ParseOptions(delimiter=delimiter, quote_char=quote)
    return csv.read_csv(file, parse_options=parse, convert_options=convert)


# As Common Voice writes .tsv: quotation marks belong to the text.
LISTS: dict[str, Callable[[IO[bytes]], pa.Table]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
    ".csv": _read_csv,
    ".tsv": partial(_read_csv, delimiter="\t", quote=False),
}
