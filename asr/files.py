"""Files: compressed ones opened like plain ones, and results that appear only when they are complete."""

import gzip
import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

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
    """A path to write to; the file takes the name `path` only if the block ends without an error.

    So a full disk or a killed run leaves the old file, or none, but never half of one. Raises OSError that
    names `path`.
    """
    path = Path(path)
    partial = path.with_name(f"{path.stem[:40]}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise OSError(error.errno, reason(error), str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
