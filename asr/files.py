"""Results that appear under their names whole, or not at all."""

import itertools
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes or replaces a file at once: a reader finds the old content or the new. Raises OSError."""
    with _written_aside(path.parent, content) as partial:
        os.replace(partial, path)


def write_new(folder: Path, stem: str, suffix: str, content: str | bytes) -> Path:
    """Writes folder/stem+suffix and returns its path.

    The name of an existing file is not taken, nor one that another process takes at the same time: -2, -3 and
    so on is added to the stem. A stem too long for the file system is cut. Raises OSError.
    """
    longest = os.pathconf(folder, "PC_NAME_MAX")  # bytes
    with _written_aside(folder, content) as partial:
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
def _written_aside(folder: Path, content: str | bytes) -> Iterator[Path]:
    """A file in the folder that holds the content while the block runs; removed unless it was renamed."""
    partial = folder / f".{uuid.uuid4().hex}.partial"  # not by tempfile: only its owner could read it
    try:
        with partial.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        yield partial
    finally:
        partial.unlink(missing_ok=True)
