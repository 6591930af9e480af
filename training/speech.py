"""From manifests to utterances that can be trained on: checked, decoded once, kept as int16 samples.

What cannot be used is named on standard error with its reason, and left out.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path

import numpy as np

from asr.audio import SAMPLE_RATE, AudioError
from asr.ctc import required_steps
from asr.tokenizer import Tokenizer
from training.cache import RaggedCache
from training.manifest import Entry
from training.recordings import decode_entries

INT16_SCALE = 32767


class Speech:
    """Utterances. `speech[i]` reads the float32 samples of one.

    Attributes:
      entries: of the manifest.
      texts: what is said in each, normalised.
      written: the same as it is written, None where only the letters are known.
      lengths: [utterances] in samples.
      key: differs between different recordings.
    """

    def __init__(
        self, audio: RaggedCache, indices: Sequence[int], entries: Sequence[Entry], texts: Sequence[str]
    ):
        self._audio, self._indices = audio, list(indices)
        self.entries, self.texts = list(entries), list(texts)
        self.written = [entry.written for entry in entries]
        self.lengths = audio.lengths[self._indices]
        self.key = [audio.key, self._indices]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, utterance: int) -> np.ndarray:
        return to_float(self._audio[self._indices[utterance]])

    @property
    def hours(self) -> float:
        """Length of all utterances together."""
        return float(np.sum(self.lengths)) / SAMPLE_RATE / 3600


def tell(problem: str) -> None:
    """One line on standard error."""
    print(problem, file=sys.stderr)


def read_speech(
    entries: Sequence[Entry],
    tokenizer: Tokenizer,
    folder: Path,
    max_seconds: float = inf,
    step_seconds: float = 0.0,
    progress: Callable = iter,
    report: Callable[[str], None] = tell,
) -> Speech:
    """The entries that can be used; the others are named.

    Left out are those that are too long, whose text loses characters in normalising or has no letters, that
    cannot be read, and that have fewer steps than their text needs.

    Args:
      folder: where decoded sound is kept.
      max_seconds: longest utterance.
      step_seconds: length of a step of the network; 0 lets all texts fit.
      report: called with a line about each entry that is left out.
    """

    def reason_against(entry: Entry, seconds: float) -> str | None:
        text = tokenizer.normalize(entry.text)
        if lost := tokenizer.lost(entry.text):
            what = "digits" if lost.isdigit() else " ".join(lost)
            return f"its text has {what}: write it out as it is spoken"
        if entry.text.strip() and not text:
            return 'its text has no letters: write "" where nothing is said'
        if seconds > max_seconds:
            return f"{seconds:.1f} s is too long: cut it to {max_seconds:g} s (data.max_seconds)"
        needed = required_steps(tokenizer.encode(text)) * step_seconds
        return f"its text needs {needed:.1f} s at least, it has {seconds:.1f} s" if seconds < needed else None

    def usable(entry: Entry, seconds: float) -> bool:
        if reason := reason_against(entry, seconds):
            report(f"{entry.id}: left out, {reason}")
        return reason is None

    entries = [entry for entry in entries if usable(entry, entry.duration_seconds)]
    audio, errors = decode_audio(entries, folder, progress)
    for error in errors:
        report(f"left out: {error}")
    # The sound may be shorter than the manifest says.
    seconds = audio.lengths / SAMPLE_RATE
    indices = [i for i, entry in enumerate(entries) if seconds[i] and usable(entry, seconds[i])]
    used = [entries[i] for i in indices]
    texts = [tokenizer.normalize(entry.text) for entry in used]
    return Speech(audio, indices, used, texts)


def decode_audio(entries: Sequence[Entry], folder: Path, progress: Callable) -> tuple[RaggedCache, list[str]]:
    """The sound of all entries as int16 samples, decoded once and kept in `folder`.

    Returns the cache, and what is wrong with the entries that cannot be read, whose sound is empty.
    """
    errors: list[str] = []

    def decoded() -> Iterator[np.ndarray]:
        for _, samples in zip(progress(entries), decode_entries(entries), strict=True):
            if isinstance(samples, AudioError):
                errors.append(str(samples))
                samples = np.zeros(0, "float32")
            yield to_int16(samples)

    audio = RaggedCache.create(folder, [description(entry) for entry in entries], decoded())
    notes = folder / "errors.json"
    if errors:
        notes.write_text(json.dumps(errors), encoding="utf-8")
    elif notes.exists():
        errors = json.loads(notes.read_text(encoding="utf-8"))
    return audio, errors


def description(entry: Entry) -> list:
    """What sound an entry is, for JSON; it changes with the file, so that a replaced one is decoded again."""
    path = entry.audio
    state = [path.stat().st_size, path.stat().st_mtime_ns] if path.exists() else None
    return [entry.id, str(path), state, entry.offset_seconds, entry.duration_seconds]


def to_int16(samples: np.ndarray) -> np.ndarray:
    return np.round(np.clip(samples, -1, 1) * INT16_SCALE).astype("int16")


def to_float(samples: np.ndarray) -> np.ndarray:
    """float32 in [-1, 1] from the int16 samples of `to_int16`."""
    return samples.astype("float32") / INT16_SCALE
