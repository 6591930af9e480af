"""Manifests: which speech there is and what is said in it, one JSON object a line, with NeMo's field names.

    {"audio_filepath": "audio/1272-0007.opus", "text": "hold on", "duration": 2.4, "speaker": "1272"}

`audio_filepath` is relative to the manifest, `duration` and `offset` are seconds; any further field is kept.
CSV and TSV files with the same headings are read too.
"""

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_OWN_FIELDS = ("audio_filepath", "text", "duration", "offset", "speaker")


class ManifestError(ValueError):
    """One line: which file and line, what is wrong, what to do."""


@dataclass(frozen=True)
class Entry:
    """One utterance of a manifest.

    Attributes:
      id: unique in its manifest: the audio path as written, without its suffix; "@offset" follows if any.
      audio: absolute path of the sound file, which need not exist.
      text: what is said; "" where nothing is.
      duration_seconds: length of the utterance, > 0.
      offset_seconds: where it starts in the file.
      speaker: who speaks, "" where that is unknown.
      fields: every other field of the line, as read (strings only, from CSV and TSV).
    """

    id: str
    audio: Path
    text: str
    duration_seconds: float
    offset_seconds: float = 0.0
    speaker: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


def read_manifest(path: Path | str) -> list[Entry]:
    """Every entry of a .jsonl, .csv or .tsv manifest, in its order.

    Raises:
      ManifestError: the file is missing or empty, a line is wrong, or an utterance stands twice.
    """
    path = Path(path)
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest; check the path, or write one as README.md shows")
    read_rows = _read_table if path.suffix.lower() in _DELIMITERS else _read_json_lines
    entries: list[Entry] = []
    lines: dict[str, int] = {}
    try:
        for number, row in read_rows(path):
            entry = _entry(path, number, row)
            first = lines.setdefault(entry.id, number)
            if first != number:
                raise ManifestError(f"{path}:{number}: {entry.id} stands in line {first} already; remove one")
            entries.append(entry)
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    if not entries:
        raise ManifestError(f"{path}: holds no utterance; write one JSON object a line")
    return entries


def write_manifest(path: Path | str, entries: Iterable[Entry]) -> None:
    """Writes JSON Lines with audio paths relative to `path`. `read_manifest` gives the same entries back,
    except that an id follows the path as written, which depends on the folder.

    The file appears only when it is whole, so that a killed run leaves none that is half written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        for entry in entries:
            file.write(json.dumps(_row(entry, path.parent), ensure_ascii=False) + "\n")
    partial.replace(path)


def _row(entry: Entry, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {
        "audio_filepath": Path(os.path.relpath(entry.audio, folder.absolute())).as_posix(),
        "text": entry.text,
        "duration": entry.duration_seconds,
    }
    if entry.offset_seconds:
        row["offset"] = entry.offset_seconds
    if entry.speaker:
        row["speaker"] = entry.speaker
    return row | entry.fields


def _read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ManifestError(
                    f"{path}:{number}: not JSON ({error.msg}); write one object a line"
                ) from None
            if not isinstance(row, dict):
                raise ManifestError(f"{path}:{number}: not a JSON object; write one object a line")
            yield number, row


def _read_table(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=_DELIMITERS[path.suffix.lower()], strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    width = len(reader.fieldnames or ())
                    raise ManifestError(
                        f"{path}:{reader.line_num}: not the heading's {width} columns; quote texts"
                    )
                yield (
                    reader.line_num,
                    {name: value for name, value in row.items() if value != "" or name == "text"},
                )
        except csv.Error as error:
            raise ManifestError(f"{path}:{reader.line_num}: {error}; quote texts") from None


def _entry(path: Path, number: int, row: dict[str, Any]) -> Entry:
    place = f"{path}:{number}"
    audio = row.get("audio_filepath")
    if not isinstance(audio, str) or not audio:
        raise ManifestError(f'{place}: no "audio_filepath"; give the sound file, relative to the manifest')
    text = row.get("text")
    if not isinstance(text, str):
        raise ManifestError(f'{place}: no "text"; give what is said, "" for nothing')
    speaker = row.get("speaker")
    offset = _seconds(place, row, "offset", default=0.0)
    duration = _seconds(place, row, "duration", default=None)
    if duration == 0 or offset < 0:
        raise ManifestError(f"{place}: needs a duration above 0 and an offset from 0 seconds")
    stem = audio.removesuffix(Path(audio).suffix)
    return Entry(
        id=f"{stem}@{offset:.10g}" if offset else stem,
        audio=(path.parent / audio).absolute(),
        text=text,
        duration_seconds=duration,
        offset_seconds=offset,
        speaker="" if speaker is None else str(speaker),
        fields={name: value for name, value in row.items() if name not in _OWN_FIELDS},
    )


def _seconds(place: str, row: dict[str, Any], name: str, default: float | None) -> float:
    value = row.get(name, default)
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if isinstance(value, bool) or not math.isfinite(seconds) or seconds < 0:
        raise ManifestError(f'{place}: "{name}" is {value!r}; give seconds, for instance "{name}": 3.2')
    return seconds
