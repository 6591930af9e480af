"""References from files that somebody uploads: a recording and its text, or a manifest and its recordings.

Names in a manifest or a zip file open nothing: the last part of each is looked up among what was uploaded.
"""

import re
import shutil
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from asr.files import READ_ERRORS, open_file, reason
from training.manifest import ManifestError
from training.scoring.transcripts import Reference, read_all_references
from training.subtitles import subtitles

TEXTS = (".txt", ".srt", ".vtt")
MANIFESTS = (".jsonl", ".json")
MOST_FILES = 1_000
MOST_UTTERANCES = 2_000
LARGEST_MB = 500  # of all files together, unpacked
LARGEST_TEXT_MB = 20  # of subtitles, and of a manifest
LONGEST_TEXT = 200_000  # characters, which is some four hours of speech

_ZIP_ERRORS = (*READ_ERRORS, zipfile.BadZipFile, RuntimeError, ValueError, struct.error)


def read_text(path: Path | str) -> str:
    """What is said, from a .txt as it is, or from the cues of a .srt or .vtt, a line each.

    Raises ManifestError, one line.
    """
    path = Path(path)
    try:
        _check_size(path.name, path)
        with open_file(path) as file:
            text = file.read()
    except (UnicodeDecodeError, *READ_ERRORS) as error:
        raise ManifestError(f"{path.name}: {reason(error)}") from None
    if path.suffix.lower() == ".txt":
        return text.strip()
    return "\n".join(said for _, _, said in subtitles(text))


def read_uploads(
    files: Sequence[Path | str], text: str, folder: Path, stored_as: Callable[[str], str] = str
) -> list[Reference]:
    """The utterances to evaluate, each with its sound.

    Args:
      files: a recording; or a manifest (JSON Lines) and its recordings, as they are or in zip files.
      text: what is said in the recording; not used where there is a manifest.
      folder: where to unpack.
      stored_as: the name that the server gives to an uploaded file, which may lack some characters.

    Raises ManifestError, one line that names the file, and the line of a manifest.
    """
    if not files:
        raise ManifestError("no recording: drop one here, or a manifest with its recordings")
    found = _unpacked([Path(path) for path in files], folder)
    manifests = [name for name in found if Path(name).suffix.lower() in MANIFESTS]
    if len(manifests) > 1:
        raise ManifestError(f"{manifests[0]} and {manifests[1]} are both manifests; give one at a time")
    if manifests:
        return _of_manifest(manifests[0], found, stored_as)
    if len(found) != 1:
        raise ManifestError(
            f"{len(found)} files, and no manifest (.jsonl) that says what is spoken in each; add it, or give "
            "one recording"
        )
    [(name, path)] = found.items()
    if not any(map(str.isalnum, text)):
        raise ManifestError(f"no reference: paste what is said in {name}")
    if len(text) > LONGEST_TEXT:
        raise ManifestError(f"the reference has more than {LONGEST_TEXT:,} characters; cut the recording")
    return [Reference("recording", name, text, audio=path)]


def _unpacked(files: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Every file by its name alone, those of zip files too."""
    found: dict[str, Path] = {}
    megabytes = sum(path.stat().st_size for path in files if path.suffix.lower() != ".zip") / 1e6

    def add(name: str, path: Path) -> None:
        if name in found:
            raise ManifestError(f"two files are called {name}; give each its own name")
        found[name] = path
        if len(found) > MOST_FILES or megabytes > LARGEST_MB:
            raise ManifestError(
                f"more than {MOST_FILES} files or {LARGEST_MB} MB; use `hark evaluate` on the command line"
            )

    for path in files:
        if path.suffix.lower() != ".zip":
            add(path.name, path)
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    name = _last(member.filename)
                    if member.is_dir() or name.startswith("."):  # what macOS adds
                        continue
                    suffix = re.sub("[^.a-z0-9]", "", Path(name).suffix.lower())[:9]
                    unpacked = folder / f"{len(found)}{suffix}"
                    megabytes += member.file_size / 1e6  # where that is a lie, no more than it is unpacked
                    add(name, unpacked)
                    with archive.open(member) as source, unpacked.open("wb") as target:
                        shutil.copyfileobj(source, target)
        except ManifestError:
            raise
        except _ZIP_ERRORS as error:
            raise ManifestError(f"{path.name}: cannot be unpacked ({reason(error)}); zip it again") from None
    return found


def _of_manifest(manifest: str, found: dict[str, Path], stored_as: Callable[[str], str]) -> list[Reference]:
    path = found[manifest]
    _check_size(manifest, path)
    try:
        references = read_all_references([path])
    except ManifestError as error:
        raise ManifestError(str(error).replace(str(path), manifest).replace(f"{path.parent}/", "")) from None
    if len(references) > MOST_UTTERANCES:
        raise ManifestError(
            f"{manifest}: more than {MOST_UTTERANCES} utterances; use `hark evaluate` on the command line"
        )
    stem, written, uploaded = Path(manifest).stem, {}, []
    for one in references:
        name = _last(str(one.audio))
        audio = found.get(name) or found.get(stored_as(name))
        if audio is None:
            raise ManifestError(f"{manifest} names {name}, which was not uploaded; add that file")
        if written.setdefault(audio, one.audio) != one.audio:
            raise ManifestError(f"{manifest} names two files {name}; give each its own name")
        if len(one.text) > LONGEST_TEXT:
            raise ManifestError(
                f"{manifest}: the text of {one.id} has over {LONGEST_TEXT:,} characters; cut it"
            )
        uploaded.append(replace(one, set=stem, recording="", audio=audio))
    return uploaded


def _last(name: str) -> str:
    """The last part of a path, as Linux or Windows write it."""
    return re.split(r"[/\\]", name)[-1]


def _check_size(name: str, path: Path) -> None:
    if path.stat().st_size > LARGEST_TEXT_MB * 1e6:
        raise ManifestError(f"{name}: is larger than {LARGEST_TEXT_MB} MB of text; give a part of it")
