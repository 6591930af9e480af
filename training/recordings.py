"""The sound of manifest entries. A recording is decoded once, however many of its stretches are entries."""

import tempfile
from collections.abc import Iterator, Sequence

import numpy as np

from asr.audio import SAMPLE_RATE, AudioError, load_audio, read_blocks
from training.manifest import Entry

BLOCK_SECONDS = 10.0


def decode_entries(entries: Sequence[Entry]) -> Iterator[np.ndarray | AudioError]:
    """The samples of each entry (float32, 16 kHz), in order, or the AudioError that says what is wrong.

    Entries of one file may lie in any order: what is decoded before its turn waits in a temporary file.
    """
    results = _by_file(entries)
    waiting: dict[int, tuple[int, int] | AudioError] = {}  # place and bytes in the file
    with tempfile.TemporaryFile() as file:
        for wanted in range(len(entries)):
            while wanted not in waiting:
                index, result = next(results)
                if index == wanted:
                    break
                if not isinstance(result, AudioError):
                    place = file.seek(0, 2)
                    result = place, file.write(result.tobytes())
                waiting[index] = result
            else:
                result = waiting.pop(wanted)
                if not isinstance(result, AudioError):
                    file.seek(result[0])
                    result = np.frombuffer(file.read(result[1]), np.float32)
            yield result


def _by_file(entries: Sequence[Entry]) -> Iterator[tuple[int, np.ndarray | AudioError]]:
    """Index and sound of each entry, file by file."""
    indices: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        indices.setdefault(str(entry.audio), []).append(index)
    for group in indices.values():
        if len(group) > 1:
            yield from _stretches(entries, group)
            continue
        entry = entries[group[0]]
        try:
            yield group[0], load_audio(entry.audio, entry.offset_seconds, entry.duration_seconds)
        except AudioError as error:
            yield group[0], error


def _stretches(entries: Sequence[Entry], group: list[int]) -> Iterator[tuple[int, np.ndarray | AudioError]]:
    """Index and sound of the entries of one file, which is read once, each as soon as its end is read."""
    audio = entries[group[0]].audio
    starts = {i: round(entries[i].offset_seconds * SAMPLE_RATE) for i in group}
    ends = {i: starts[i] + round(entries[i].duration_seconds * SAMPLE_RATE) for i in group}
    parts: dict[int, list[np.ndarray]] = {i: [] for i in sorted(group, key=starts.get)}
    position = 0
    try:
        for block in read_blocks(audio, BLOCK_SECONDS):
            for i in [i for i in parts if starts[i] < position + len(block)]:
                parts[i].append(block[max(0, starts[i] - position) : ends[i] - position])
                if ends[i] <= position + len(block):
                    yield i, np.concatenate(parts.pop(i))
            position += len(block)
            if not parts:
                return
    except AudioError as error:
        for i in parts:
            yield i, error
        return
    for i, pieces in parts.items():  # cut off where the recording ends
        if pieces:
            yield i, np.concatenate(pieces)
        else:
            offset = entries[i].offset_seconds
            yield i, AudioError(f"{str(audio)!r} ends before {offset} s; give a smaller offset")
