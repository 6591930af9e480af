"""Streams of samples: chunks that each have their rate, as decoders give them."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import numpy as np

Chunks = Iterator[tuple[float, np.ndarray]]  # (rate in Hz, float32 [samples, channels]) each
Warn = Callable[[str], None]


class AudioError(ValueError):
    """A source that gives no sound: one line that names the source, what is wrong and the way out."""


def scaled(samples: np.ndarray) -> np.ndarray:
    """Samples of any usual type as float32, full scale 1."""
    if samples.dtype.kind not in "iu":
        return samples.astype(np.float32, copy=False)
    limits = np.iinfo(samples.dtype)
    full_scale = (int(limits.max) - int(limits.min) + 1) // 2
    middle = int(limits.min) + full_scale  # 0, or 128 for 8-bit WAV
    return ((samples.astype(np.float64) - middle) / full_scale).astype(np.float32)


def dropped(chunks: Chunks, seconds: float) -> Chunks:
    """Chunks without their first seconds."""
    for rate, samples in chunks:
        if seconds > 0:
            count = min(len(samples), round(seconds * rate))
            seconds -= count / rate
            samples = samples[count:]
        if len(samples):
            yield rate, samples


def by_kind(chunks: Chunks) -> Iterator[tuple[float, int, Iterator[np.ndarray]]]:
    """(rate, channels, samples of each chunk) of every run of chunks that agree in both."""
    for (rate, channels), run in groupby(chunks, lambda chunk: (chunk[0], chunk[1].shape[1])):
        yield rate, channels, (samples for _, samples in run)


def in_blocks(parts: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The samples of all parts in blocks of `size`, the last one shorter, each as soon as it is complete."""
    waiting: list[np.ndarray] = []
    count = 0
    for part in parts:
        waiting.append(part)
        count += len(part)
        if count >= size:
            joined = np.concatenate(waiting)
            end = count - count % size
            for start in range(0, end, size):
                yield joined[start : start + size]
            waiting, count = [joined[end:].copy()], count - end
    if count:
        yield np.concatenate(waiting)
