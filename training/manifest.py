"""Manifests list utterances: sound files and their texts, one JSON object a line, with NeMo's field names.

    {"audio_filepath": "audio/1272-0007.opus", "text": "hold on", "duration": 2.4, "speaker": "1272"}

`audio_filepath` is relative to the manifest, `duration` and `offset` are seconds; any further field is kept.
CSV and TSV files with the same headings are read too, and each of them compressed as .gz or .xz.
"""

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asr.files import READ_ERRORS, open_file, reason, replacing

_TABLES: dict[str, dict[str, Any]] = {
    ".csv": {"delimiter": ",", "strict": True},
    # As Common Voice writes it: quotation marks belong to the text.
    ".tsv": {"delimiter": "\t", "quoting": csv.QUOTE_NONE},
}
MANIFESTS = (".jsonl", ".json", ".csv", ".tsv")
TEXT_FIELDS = ("pred_text", "hypothesis", "text")  # NeMo's, jiwer's and Whisper's; the first there counts
_Rows = Iterator[tuple[int, dict[str, Any]]]  # number of the line, its fields
_OWN_FIELDS = ("audio_filepath", "text", "duration", "offset", "speaker")


class ManifestError(ValueError):
    """One line: which file and line, what is wrong, what to do."""


@dataclass(frozen=True)
class Entry:
    """One utterance of a manifest.

    Attributes:
      id: unique in its manifest: the audio path as written, without its suffix; "@offset" follows if any.
        Utterances that would share an id keep the suffix, and if need be "@offset+duration".
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

    @property
    def written(self) -> str | None:
        """The text with capitals and punctuation, the field `text_cased`; None where there is none."""
        return ((self.fields.get("text_cased") or "").strip() or None) if self.text.strip() else ""


def read_manifest(path: Path | str) -> list[Entry]:
    """Every entry of a .jsonl, .csv or .tsv manifest, plain, .gz or .xz, in its order.

    Raises:
      ManifestError: the file cannot be read or is empty, a line is wrong, or an utterance is listed twice.
    """
    path = Path(path)
    rows = list(read_rows(path, ("audio_filepath", "text", "duration")))
    if not rows:
        raise ManifestError(f"{path}: holds no utterance; write some as README.md shows")
    entries = [_entry(path, number, row) for number, row in rows]
    audio = [row["audio_filepath"] for _, row in rows]
    ids = first_distinct(*zip(*map(_ids, audio, entries), strict=True))
    lines: dict[str, int] = {}
    for (number, _), id, name in zip(rows, ids, audio, strict=True):
        if lines.setdefault(id, number) != number:
            raise ManifestError(f"{path}:{number}: {name} is in line {lines[id]} already; remove one of them")
    return [replace(entry, id=id) for entry, id in zip(entries, ids, strict=True)]


def _ids(audio: str, entry: Entry) -> tuple[str, str, str]:
    """Ids from short to long; the first is unique where files or starts differ."""
    start = f"@{entry.offset_seconds:.10g}"
    after = start if entry.offset_seconds else ""
    stem = audio.removesuffix(Path(audio).suffix)
    return stem + after, audio + after, f"{audio}{start}+{entry.duration_seconds:.10g}"


def read_rows(path: Path | str, columns: Sequence[str] = ()) -> _Rows:
    """(number of the line, its fields) of every row of a manifest that is not blank.

    Args:
      path: .csv or .tsv, else JSON Lines; plain, .gz or .xz.
      columns: that the heading of a table must have.

    Raises ManifestError.
    """
    path = Path(path)
    is_table = manifest_kind(path) in _TABLES
    try:
        with open_file(path, newline="" if is_table else None) as file:
            yield from _read_table(path, file, columns) if is_table else _read_json_lines(path, file)
    except FileNotFoundError:
        raise ManifestError(
            f"{path}: no such manifest; check the path, or write one as README.md shows"
        ) from None
    except (UnicodeDecodeError, *READ_ERRORS) as error:
        raise ManifestError(f"{path}: {reason(error)}") from error


def manifest_kind(path: Path | str) -> str:
    """The suffix that tells the format, in lower case and before .gz or .xz: ".jsonl", ".csv", ".tsv", ..."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in (".gz", ".xz")), "")


def distinct_names(paths: Sequence[Path | str]) -> list[str]:
    """A name for each file: its stem, after as many of its folders as tell it from its namesakes.

    Raises ManifestError where a file is given twice.
    """
    files = [Path(os.path.abspath(path)) for path in paths]
    depths = range(1, max(len(file.parts) for file in files))
    names = first_distinct(
        *(["/".join([*file.parts[-depth:-1], file.stem]) for file in files] for depth in depths),
        list(map(str, files)),
    )
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise ManifestError(f"{name}: given {times} times; give every file once")
    return names


def first_distinct(*candidates: Sequence[str]) -> list[str]:
    """For each item the first of its names that no other item has; the last one where there is none."""
    found = list(candidates[0])
    for longer in candidates[1:]:
        times = Counter(found)
        found = [new if times[old] > 1 else old for old, new in zip(found, longer, strict=True)]
    return found


def write_manifest(path: Path | str, entries: Iterable[Entry]) -> None:
    """Writes JSON Lines with audio paths relative to `path`. `read_manifest` gives the same entries back,
    except that an id follows the path as written, which depends on the folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, open_file(partial, "wt") as file:
        for entry in entries:
            audio = Path(os.path.relpath(entry.audio, path.parent.absolute())).as_posix()
            row = {"audio_filepath": audio, "text": entry.text, "duration": entry.duration_seconds}
            if entry.offset_seconds:
                row["offset"] = entry.offset_seconds
            if entry.speaker:
                row["speaker"] = entry.speaker
            file.write(json.dumps(row | entry.fields, ensure_ascii=False) + "\n")


def _read_json_lines(path: Path, file: Iterable[str]) -> _Rows:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ManifestError(f"{path}:{number}: has half a surrogate pair; write it as UTF-8") from None
        except (ValueError, RecursionError) as error:
            message = getattr(error, "msg", error)
            raise ManifestError(f"{path}:{number}: not JSON ({message}); write one object a line") from None
        if not isinstance(row, dict):
            raise ManifestError(f"{path}:{number}: not a JSON object; write one object a line")
        yield number, row


def _read_table(path: Path, file: Iterable[str], columns: Sequence[str]) -> _Rows:
    dialect = _TABLES[manifest_kind(path)]
    advice = "quote texts" if dialect["delimiter"] == "," else "a text may hold no tab"
    reader = csv.reader(file, **dialect)
    heading: list[str] = []
    number = 0  # of the line before the row
    try:
        for row in reader:
            first, number = number + 1, reader.line_num
            if number > first:
                raise ManifestError(
                    f"{path}:{first}: a quoted field goes on in the next line; close its quotes"
                )
            if not any(cell.strip() for cell in row):
                continue
            if not heading:
                heading = _heading(f"{path}:{number}", row, columns, dialect["delimiter"])
            elif len(row) < len(heading) or any(row[len(heading) :]):
                raise ManifestError(f"{path}:{number}: not the heading's {len(heading)} columns; {advice}")
            else:
                fields = dict(zip(heading, row, strict=False))
                yield number, {name: value for name, value in fields.items() if value or name in TEXT_FIELDS}
    except csv.Error as error:
        raise ManifestError(f"{path}:{number + 1}: {error}; {advice}") from None


def _heading(place: str, row: Sequence[str], columns: Sequence[str], delimiter: str) -> list[str]:
    """The names of the columns, without the empty ones that spreadsheets leave at the end."""
    heading = list(row)
    while not heading[-1]:
        heading.pop()
    found = f"{place}: the heading has"
    if lacking := [name for name in columns if name not in heading]:
        has_other = any(sign in row[0] for sign in ",;\t|" if sign != delimiter)
        advice = f"the delimiter must be {delimiter!r}" if has_other else "rename the column"
        raise ManifestError(f'{found} {", ".join(map(repr, heading))}, but no "{lacking[0]}"; {advice}')
    name, times = Counter(heading).most_common(1)[0]
    if times > 1:
        raise ManifestError(f"{found} {name!r} more than once; rename one of the columns")
    return heading


def _entry(path: Path, number: int, row: dict[str, Any]) -> Entry:
    """An entry, still without its id."""
    place = f"{path}:{number}"
    found = f"(found: {', '.join(row) or 'nothing'})"
    audio, text, speaker = row.get("audio_filepath"), row.get("text"), row.get("speaker")
    if not isinstance(audio, str) or not audio or "\0" in audio:
        raise ManifestError(f'{place}: no "audio_filepath" {found}; give the file, relative to the manifest')
    if not isinstance(text, str):
        raise ManifestError(f'{place}: no "text" {found}; give what is said, "" for nothing')
    if not isinstance(row.get("text_cased"), str | None):
        raise ManifestError(f'{place}: "text_cased" is {row["text_cased"]!r}; give the text as it is written')
    offset = _seconds(place, row, "offset", default=0.0)
    duration = _seconds(place, row, "duration", default=None)
    if duration == 0 or offset < 0:
        raise ManifestError(f"{place}: needs a duration above 0 and an offset from 0 seconds")
    return Entry(
        id="",
        audio=(path.parent / audio).absolute(),
        text=text,
        duration_seconds=duration,
        offset_seconds=offset,
        speaker="" if speaker is None else str(speaker),
        fields={name: value for name, value in row.items() if name not in _OWN_FIELDS},
    )


def _seconds(place: str, row: dict[str, Any], name: str, default: float | None) -> float:
    value = default if row.get(name) is None else row[name]
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if isinstance(value, bool) or not math.isfinite(seconds) or seconds < 0:
        raise ManifestError(f'{place}: "{name}" is {value!r}; give seconds, for instance "{name}": 3.2')
    return seconds
