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
    waiting: dict[int, np.ndarray | AudioError | tuple[int, int]] = {}  # or place and bytes in the file
    with tempfile.TemporaryFile() as file:
        for wanted in range(len(entries)):
            while wanted not in waiting:
                index, result = next(results)
                if index != wanted and isinstance(result, np.ndarray):
                    result = file.seek(0, 2), file.write(result.tobytes())
                waiting[index] = result
            result = waiting.pop(wanted)
            if isinstance(result, tuple):
                file.seek(result[0])
                result = np.frombuffer(file.read(result[1]), np.float32)
            yield result


def _by_file(entries: Sequence[Entry]) -> Iterator[tuple[int, np.ndarray | AudioError]]:
    """Index and sound of each entry, file by file."""
    groups: dict[str, dict[int, Entry]] = {}
    for index, entry in enumerate(entries):
        groups.setdefault(str(entry.audio), {})[index] = entry
    for group in groups.values():
        if len(group) > 1:
            yield from _stretches(group)
            continue
        [(index, entry)] = group.items()
        try:
            yield index, load_audio(entry.audio, entry.offset_seconds, entry.duration_seconds)
        except AudioError as error:
            yield index, error


def _stretches(group: dict[int, Entry]) -> Iterator[tuple[int, np.ndarray | AudioError]]:
    """Index and sound of the entries of one file, which is read once, each as soon as its end is read."""
    starts = {i: round(entry.offset_seconds * SAMPLE_RATE) for i, entry in group.items()}
    ends = {i: starts[i] + round(entry.duration_seconds * SAMPLE_RATE) for i, entry in group.items()}
    parts: dict[int, list[np.ndarray]] = {i: [] for i in sorted(group, key=starts.get)}
    [audio] = {entry.audio for entry in group.values()}
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
        yield from ((i, error) for i in parts)
        return
    for i, pieces in parts.items():  # cut off where the recording ends
        late = f"{str(audio)!r} ends before {group[i].offset_seconds} s; give a smaller offset"
        yield i, np.concatenate(pieces) if pieces else AudioError(late)
