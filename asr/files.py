"""Files: compressed ones opened like plain ones, and results written whole or not at all."""

import gzip
import itertools
import lzma
import os
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# Suffixes of the files that are taken for recordings where a whole folder is given.
SOUND = {".aac", ".flac", ".m4a", ".mkv", ".mp3", ".mp4", ".ogg", ".opus", ".sph", ".wav", ".webm", ".wma"}

_OPENERS = {".gz": gzip.open, ".xz": lzma.open}
# What reading a missing, unreadable or damaged file raises.
READ_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error)


def open_file(path: Path | str, mode: str = "rt", **options: str | int) -> IO:
    """Opens a file, compressed if its name ends in .gz or .xz; text is UTF-8, with or without a BOM."""
    opener = _OPENERS.get(Path(path).suffix.lower(), open)
    if "b" not in mode:
        options = {"encoding": "utf-8-sig" if "r" in mode else "utf-8", **options}
    return opener(path, mode, **options)


def reason(error: Exception) -> str:
    """Why a file could not be read or written, without its name."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 ({error.reason}); save it as UTF-8"
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A path to write to; the file is renamed to `path` if the block ends without an error, else removed.

    Raises OSError that names `path`.
    """
    path = Path(path)
    try:
        with _aside(path.parent, path.suffix) as partial:
            yield partial
            os.replace(partial, path)
    except OSError as error:
        raise OSError(error.errno, reason(error), str(path)) from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes or replaces a file at once: a reader finds the old content or the new. Raises OSError."""
    with replacing(path) as partial:
        partial.write_bytes(_bytes(content))


def write_new(folder: Path, stem: str, suffix: str, content: str | bytes) -> Path:
    """Writes folder/stem+suffix and returns its path.

    The name of an existing file is not taken, nor one that another process takes at the same time: -2, -3 and
    so on is added to the stem. A stem too long for the file system is cut. Raises OSError.
    """
    longest = os.pathconf(folder, "PC_NAME_MAX")  # bytes
    with _aside(folder) as partial:
        partial.write_bytes(_bytes(content))
        for number in itertools.count(1):
            ending = suffix if number == 1 else f"-{number}{suffix}"
            while len(os.fsencode(stem + ending)) > longest:
                stem = stem[:-1]
            path = folder / (stem + ending)
            try:
                _rename_to_new(partial, path)
            except FileExistsError:
                continue
            return path


def _rename_to_new(partial: Path, path: Path) -> None:
    """Raises FileExistsError where os.replace would overwrite."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        path.open("x").close()
        os.replace(partial, path)


@contextmanager
def _aside(folder: Path, suffix: str = "") -> Iterator[Path]:
    """A name in the folder for the time of the block; a file that is still there under it is removed."""
    partial = folder / f".{uuid.uuid4().hex}.partial{suffix}"  # not by tempfile: only its owner could read it
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content
