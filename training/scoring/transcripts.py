"""Reads references and hypotheses: manifests, JSON Lines, and NIST's trn, stm and ctm."""

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asr.audio import AudioError, load_audio
from asr.files import READ_ERRORS, open_file, reason
from training.manifest import (
    TEXT_FIELDS,
    ManifestError,
    distinct_names,
    first_distinct,
    read_manifest,
    read_rows,
)

CLEAN = "clean"  # the condition that changes nothing
_ALTERNATIVES = re.compile(r"(^|\s)[{}](\s|$)|<ALT", re.IGNORECASE)
_IGNORED_SEGMENT = "ignore_time_segment_in_scoring"


@dataclass(frozen=True)
class TimedWord:
    """A word, its start and end in seconds from the start of the utterance; confidence in [0, 1], or None."""

    text: str
    start: float
    end: float
    confidence: float | None = None


@dataclass(frozen=True)
class Reference:
    """One utterance and what is said in it.

    Attributes:
      set: name of the file it comes from: without suffix, with folders where two files have one name.
      id: unique among all references.
      text, speaker: as written; the speaker is "" where unknown.
      recording: the name in ctm files of the recording that it is part of.
      start_seconds, end_seconds: its place there; the end is None where the recording is this utterance
        alone.
      duration_seconds: None where the file does not tell.
      audio: None where the file names no sound.
      words: with times, where the manifest has a field "words" ({"word", "start", "end"} each).
      fields: every further field of the manifest.
      ignored: marked as not to be scored (in stm).
      written: the text with capitals and punctuation; None where the file does not tell.
    """

    set: str
    id: str
    text: str
    speaker: str = ""
    recording: str = ""
    start_seconds: float = 0.0
    end_seconds: float | None = None
    duration_seconds: float | None = None
    audio: Path | None = None
    words: tuple[TimedWord, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)
    ignored: bool = False
    written: str | None = None


@dataclass(frozen=True)
class Recognised:
    """What a system recognised in one utterance; words only where it gives their times."""

    text: str
    words: tuple[TimedWord, ...] = ()


@dataclass(frozen=True)
class Output:
    """The hypotheses of one system under one condition.

    Attributes:
      recognised: by id of the reference, of those that have a hypothesis.
      extra: what the system gave that no reference asks for.
      duplicates: ids given more than once; the first counts.
    """

    system: str
    recognised: Mapping[str, Recognised]
    condition: str = CLEAN
    extra: Sequence[str] = ()
    duplicates: Sequence[str] = ()


def read_references(path: Path | str) -> list[Reference]:
    """References from a manifest, or a .trn or .stm file.

    Raises:
      ManifestError: one line that names the file, the line and what to do.
    """
    path = Path(path)
    if path.suffix.lower() == ".trn":
        # As for sclite, the speaker is the id up to its first - or _.
        rows = _read_trn(path)
        return [Reference(path.stem, id, text, re.split("[-_]", id)[0], id) for id, text in rows]
    if path.suffix.lower() == ".stm":
        return _read_stm(path)
    return [
        Reference(
            set=path.stem,
            id=entry.id,
            text=entry.text,
            speaker=entry.speaker,
            recording=os.path.splitext(entry.audio)[0],
            start_seconds=entry.offset_seconds,
            end_seconds=entry.offset_seconds + entry.duration_seconds if entry.offset_seconds else None,
            duration_seconds=entry.duration_seconds,
            audio=entry.audio,
            words=tuple(_timed_words(f"{path}: {entry.id}", entry.fields.get("words"))),
            fields=entry.fields,
            written=entry.written,
        )
        for entry in read_manifest(path)
    ]


def read_all_references(paths: Sequence[Path]) -> list[Reference]:
    """References of all files. Where an id occurs in several files, it begins with the set.

    Raises ValueError where an utterance is given twice, since no hypothesis could be paired.
    """
    references = [
        replace(one, set=name)
        for path, name in zip(paths, distinct_names(paths), strict=True)
        for one in read_references(path)
    ]
    if not references:
        raise ManifestError(f"{paths[0]}: holds no reference; give a manifest, or a .trn or .stm file")
    sounds = Counter((one.audio or one.id, one.start_seconds, one.duration_seconds) for one in references)
    (sound, *_), times = sounds.most_common(1)[0]
    if times > 1:
        raise ManifestError(f"{sound} is {times} times in the references; give every utterance once")
    ids = first_distinct([one.id for one in references], [f"{one.set}/{one.id}" for one in references])
    return [replace(one, id=id) for one, id in zip(references, ids, strict=True)]


def read_samples(reference: Reference) -> np.ndarray:
    """Sound of a reference, float32 [samples]. Raises AudioError."""
    if reference.audio is None:
        raise AudioError(f"{reference.id}: the references name no sound; give a manifest")
    if reference.end_seconds is None:
        return load_audio(reference.audio)
    duration_seconds = reference.end_seconds - reference.start_seconds
    return load_audio(reference.audio, reference.start_seconds, duration_seconds)


def read_hypotheses(path: Path | str, references: list[Reference], condition: str = CLEAN) -> list[Output]:
    """Pairs a system's .jsonl, .trn or .ctm with references, never by line; one output for each condition.

    A JSON line has "id" or "audio_filepath" (with "offset" where that is not 0, and "duration" where several
    references begin there), the text as "pred_text", "hypothesis" or "text", "words" where it has times, and
    "condition" where the sound was degraded. A sound file pairs by its path, absolute or relative to the
    hypotheses; else by its name as an id. An id may be the end of a reference's id from a "/" on, if of one
    reference only: "1272-0007" for "audio/1272/1272-0007". The words of a ctm belong to the reference in
    whose seconds their middle is.

    Args:
      path: the hypotheses.
      references: what they are compared with.
      condition: of all hypotheses that name none.

    Raises:
      ManifestError: one line that names the file, the line and what to do.
    """
    path = Path(path)
    if path.suffix.lower() == ".ctm":
        return [_pair_ctm(path, references, condition)]
    if path.suffix.lower() == ".trn":
        rows = {condition: [(_Key((id,)), Recognised(text)) for id, text in _read_trn(path)]}
    else:
        rows = _read_rows(path, condition)
    return [_pair(path, pairs, references, condition) for condition, pairs in rows.items()]


class _Key(NamedTuple):
    """Which utterance a hypothesis is of: by its sound if that is known, else by one of its names."""

    names: tuple[str, ...]
    audio: str = ""
    offset_seconds: float = 0.0
    duration_seconds: float | None = None


def _pair(
    path: Path, rows: list[tuple[_Key, Recognised]], references: list[Reference], condition: str
) -> Output:
    ids = _ends(reference.id for reference in references)
    starts: dict[tuple[str, float], list[Reference]] = defaultdict(list)
    for one in references:
        if one.audio is not None:
            starts[os.path.realpath(one.audio), one.start_seconds].append(one)
    recognised: dict[str, Recognised] = {}
    extra, duplicates = [], []
    for key, hypothesis in rows:
        same = starts[os.path.realpath(path.parent / key.audio), key.offset_seconds] if key.audio else []
        if len(same) > 1:
            same = [one for one in same if one.duration_seconds == key.duration_seconds]
        id = same[0].id if same else next((ids[name] for name in key.names if name in ids), None)
        if id is None:
            extra.append(key.names[0])
        elif id in recognised:
            duplicates.append(key.names[0])
        else:
            recognised[id] = hypothesis
    return Output(path.stem, recognised, condition, extra, duplicates)


def _ends(names: Iterable[str]) -> dict[str, str]:
    """From every name, and every end of a name at a "/" that no other name has, to the name."""
    names = set(names)
    ends: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for slash in re.finditer("/", name):
            ends[name[slash.end() :]].append(name)
    return {end: found[0] for end, found in ends.items() if len(found) == 1} | {name: name for name in names}


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines with something in them, numbered; ";;" starts a comment in NIST's formats."""
    try:
        with open_file(path) as file:
            text = file.read()
    except (UnicodeDecodeError, *READ_ERRORS) as error:
        raise ManifestError(f"{path}: {reason(error)}") from None
    lines = enumerate(text.split("\n"), 1)
    return [(number, line) for number, line in lines if line.strip() and not line.startswith(";;")]


def _read_trn(path: Path) -> list[tuple[str, str]]:
    """(id, text) of lines such as "hold on (1272_0007)"."""
    rows = []
    for number, line in _lines(path):
        match = re.fullmatch(r"(.*)\(([^()]+)\)\s*", line)
        if not match:
            raise ManifestError(
                f"{path}:{number}: no (id) at the end; write for instance: hold on (1272_0007)"
            )
        _refuse_alternatives(f"{path}:{number}", match[1])
        rows.append((match[2].strip(), match[1].strip()))
    return rows


def _read_stm(path: Path) -> list[Reference]:
    """Lines "file channel speaker begin end [<label>] text"."""
    references = []
    for number, line in _lines(path):
        parts = line.split(maxsplit=5)
        try:
            recording, channel, speaker, begin, end = parts[:5]
            start_seconds, end_seconds = float(begin), float(end)
            if not 0 <= start_seconds < end_seconds < math.inf:
                raise ValueError
        except ValueError:
            raise ManifestError(
                f"{path}:{number}: not an stm line; write: file channel speaker begin end text"
            ) from None
        text = re.sub(r"^<[^>]*>\s*", "", parts[5] if len(parts) > 5 else "").strip()
        _refuse_alternatives(f"{path}:{number}", text)
        references.append(
            Reference(
                set=path.stem,
                id=f"{recording}-{channel}@{start_seconds:.10g}",
                text=text,
                speaker=speaker,
                recording=f"{recording} {channel}",
                start_seconds=start_seconds,
                end_seconds=end_seconds,
                duration_seconds=end_seconds - start_seconds,
                ignored=text.lower() == _IGNORED_SEGMENT,
            )
        )
    ids = first_distinct(
        [one.id for one in references], [f"{one.id}+{one.duration_seconds:.10g}" for one in references]
    )
    return [replace(one, id=id) for one, id in zip(references, ids, strict=True)]


def _refuse_alternatives(place: str, text: str) -> None:
    if _ALTERNATIVES.search(text):
        raise ManifestError(f"{place}: has alternatives {{ / }}, which are not scored; keep one of them")


def _read_rows(path: Path, condition: str) -> dict[str, list[tuple[_Key, Recognised]]]:
    """(utterance, hypothesis) by condition; of an empty file none, by `condition`."""
    rows: dict[str, list[tuple[_Key, Recognised]]] = {}
    for number, row in read_rows(path):
        place = f"{path}:{number}"
        text = next((row[name] for name in TEXT_FIELDS if isinstance(row.get(name), str)), None)
        if text is None:
            raise ManifestError(f'{place}: no "text"; give what was recognised, "" for nothing')
        recognised = Recognised(text, tuple(_timed_words(place, row.get("words"))))
        rows.setdefault(str(row.get("condition", condition)), []).append((_key(place, row), recognised))
    return rows or {condition: []}


def _key(place: str, row: dict[str, Any]) -> _Key:
    if isinstance(row.get("id"), str | int):
        return _Key((str(row["id"]),))
    audio = row.get("audio_filepath")
    if not isinstance(audio, str) or not audio:
        raise ManifestError(f'{place}: no "id"; give the id, or "audio_filepath", of the utterance')
    try:
        offset = float(row.get("offset") or 0)
        duration = None if row.get("duration") is None else float(row["duration"])
    except (TypeError, ValueError, OverflowError):
        raise ManifestError(f'{place}: "offset" and "duration" must be seconds') from None
    after = f"@{offset:.10g}" if offset else ""
    name = Path(audio).as_posix()
    return _Key((name.removesuffix(Path(audio).suffix) + after, name + after), audio, offset, duration)


def _timed_words(place: str, words: Any) -> list[TimedWord]:
    try:
        found = []
        for word in words or ():
            start, end, confidence = float(word["start"]), float(word["end"]), word.get("confidence")
            found.append(TimedWord(str(word["word"]), start, end, _confidence(confidence)))
        return found
    except (TypeError, KeyError, ValueError, AttributeError):
        raise ManifestError(
            f'{place}: "words" must be objects with "word", "start" and "end" (seconds), and perhaps '
            '"confidence" (0 to 1); correct or drop them'
        ) from None


def _confidence(value: Any) -> float | None:
    """Raises ValueError where a confidence is not a number from 0 to 1."""
    if value in (None, "NA"):
        return None
    if not 0 <= float(value) <= 1:
        raise ValueError
    return float(value)


def _pair_ctm(path: Path, references: list[Reference], condition: str) -> Output:
    """Lines "recording channel begin duration word [confidence]"."""
    recordings = _ends(reference.recording for reference in references)
    inside = defaultdict(list)
    for reference in references:
        inside[reference.recording].append(reference)
    words: dict[str, list[TimedWord]] = defaultdict(list)
    extra = []
    for number, line in _lines(path):
        parts = line.split()
        try:
            recording, channel, begin, length, word = parts[:5]
            start, end = float(begin), float(begin) + float(length)
            confidence = _confidence(parts[5] if len(parts) > 5 else None)
        except ValueError:
            _refuse_alternatives(f"{path}:{number}", line)
            raise ManifestError(
                f"{path}:{number}: not a ctm line; write: recording channel begin duration word [confidence]"
            ) from None
        known = recordings.get(f"{recording} {channel}") or recordings.get(recording)
        for reference in inside[known]:
            at = reference.start_seconds
            if reference.end_seconds is None or at <= (start + end) / 2 < reference.end_seconds:
                words[reference.id].append(TimedWord(word, start - at, end - at, confidence))
                break
        else:
            extra.append(f"{recording} {channel} {begin} {word}")
    recognised = {}
    for id, spoken in words.items():
        spoken.sort(key=lambda word: (word.start, word.end))
        recognised[id] = Recognised(" ".join(word.text for word in spoken), tuple(spoken))
    return Output(path.stem, recognised, condition, extra)
