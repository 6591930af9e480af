"""What the modules of all corpora share."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from asr.files import READ_ERRORS, SOUND, open_file, reason

Report = Callable[[str], None]


@dataclass(frozen=True)
class Utterance:
    """One utterance as its corpus lists it.

    Attributes:
      audio: the sound file.
      text: what is said.
      speaker: "" where unknown.
      set: the corpus' own set that it belongs to, such as "train" or "dev-clean"; "" where there are none.
      start_seconds, end_seconds: its place in the file; all of it if the end is None.
      is_written: whether the text has capitals and punctuation.
    """

    audio: Path
    text: str
    speaker: str = ""
    set: str = ""
    start_seconds: float = 0.0
    end_seconds: float | None = None
    is_written: bool = False


def read_text(path: Path, report: Report) -> str:
    """A text file; "" where it cannot be read, which is reported."""
    try:
        with open_file(path) as file:
            return file.read()
    except (UnicodeDecodeError, *READ_ERRORS) as error:
        report(f"{path}: {reason(error)}")
        return ""


def read_lines(path: Path, report: Report) -> list[str]:
    """The lines of a text file that are not blank."""
    return [line.strip() for line in read_text(path, report).splitlines() if line.strip()]


def by_id(path: Path, rows: Iterable[tuple[str, str]], report: Report) -> dict[str, str]:
    """Texts by id; an id that the file lists again is reported, and its first text counts."""
    texts: dict[str, str] = {}
    for id, text in rows:
        if id in texts:
            report(f"{path}: {id} is listed twice; the first text is taken")
        else:
            texts[id] = text
    return texts


def pairs(
    path: Path, texts: Mapping[str, str], files: Mapping[str, Path], report: Report
) -> Iterator[tuple[str, Path, str]]:
    """(id, sound, text) of each id that has both; the others are reported.

    Args:
      path: where the texts are from.
      texts, files: by id.
    """
    for id in sorted(texts.keys() | files.keys()):
        if id not in texts:
            report(f"{files[id]}: no text in {path}")
        elif id not in files:
            report(f"{path}: no sound of {id}")
        else:
            yield id, files[id], texts[id]


def sounds(folder: Path) -> list[Path]:
    """All sound files in a folder and below it, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUND and path.is_file())
