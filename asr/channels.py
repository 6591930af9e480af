"""Several channels to one: their mean, unless that would lose the speech in them.

The mean of a channel and its inverted copy is silence, and a dead microphone's hiss or hum covers what the
other channel says. Both are looked for in blocks of a second, so that a recording is read as it comes.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np

Chunks = Iterator[tuple[float, np.ndarray]]  # (rate in Hz, float32 [samples, channels]) each

BLOCK_SECONDS = 1.0
HISTORY_BLOCKS = 4  # over which a channel's level is compared
FRAME_SECONDS = 0.032
# The level of speech rises and falls by far more than 10 dB within a second, that of hiss or hum hardly.
SPEECH_RANGE_DB = 10.0
NOISE_RANGE_DB = 4.0
HARMLESS_DB = -20.0  # noise further than this below the other channel's speech covers nothing
# Energy of the mean over the mean energy, times the channels: 1 if they are independent, less if they cancel.
CANCELLING = 0.25
SILENCE = 1e-10  # mean square


def mixed(chunks: Chunks) -> Chunks:
    """The mean of the channels [samples, 1], without those that hold only noise beside another's speech.

    Channels that cancel each other give way to the loudest of them.
    """
    mixer = None
    for rate, samples in chunks:
        channels = samples.shape[1]
        if mixer is not None and mixer.kind != (rate, channels):
            yield from mixer.flush()
            mixer = None
        if channels == 1:
            yield rate, samples
            continue
        mixer = mixer or _Mixer(rate, channels)
        yield from mixer.push(samples)
    if mixer is not None:
        yield from mixer.flush()


class _Mixer:
    """Mixes chunks of one rate and number of channels, block by block."""

    def __init__(self, rate: float, channels: int):
        self.kind = rate, channels
        self.rate = rate
        self.block = max(1, round(BLOCK_SECONDS * rate))
        self.frame = max(1, round(FRAME_SECONDS * rate))
        self.waiting = np.empty((0, channels), np.float32)
        self.levels_db: deque[np.ndarray] = deque(maxlen=HISTORY_BLOCKS)  # [2, frames, channels] each
        self.is_noise = np.zeros(channels, bool)
        self.loudest: int | None = None  # of channels that cancel each other

    def push(self, samples: np.ndarray) -> Chunks:
        self.waiting = np.concatenate([self.waiting, samples])
        while len(self.waiting) >= self.block:
            yield self.rate, self._mix(self.waiting[: self.block])
            self.waiting = self.waiting[self.block :]

    def flush(self) -> Chunks:
        if len(self.waiting):
            yield self.rate, self._mix(self.waiting)

    def _mix(self, block: np.ndarray) -> np.ndarray:
        self._find_noise(block)
        kept = np.flatnonzero(~self.is_noise)
        if 0 < len(kept) < block.shape[1]:
            block = block[:, kept]
        mean = block.mean(axis=1, dtype=np.float32)
        energies = block.var(axis=0, dtype=np.float64)
        if energies.mean() > SILENCE:
            cancel = mean.var(dtype=np.float64) * block.shape[1] < CANCELLING * energies.mean()
            if not cancel:
                self.loudest = None
            elif self.loudest is None or self.loudest >= block.shape[1]:
                self.loudest = int(energies.argmax())
        if self.loudest is not None and self.loudest < block.shape[1]:
            mean = block[:, self.loudest]
        return mean[:, None]

    def _find_noise(self, block: np.ndarray) -> None:
        frames = len(block) // self.frame
        if not frames:
            return
        # Differences weigh the high frequencies more, so that rumble, too, has a steady level.
        both = np.stack([np.diff(block, axis=0, prepend=block[:1]), block])[:, : frames * self.frame]
        energies = np.square(both, dtype=np.float64).reshape(2, frames, self.frame, -1).mean(axis=2)
        self.levels_db.append(10 * np.log10(energies + SILENCE))
        steady, loud = np.concatenate(self.levels_db, axis=1)
        low, high = np.percentile(steady, [10, 90], axis=0)
        speech = high - low > SPEECH_RANGE_DB
        if speech.any():
            speech_db = np.percentile(loud[:, speech], 90, axis=0).max()
            covers = np.median(loud, axis=0) > speech_db + HARMLESS_DB
            self.is_noise |= (high - low < NOISE_RANGE_DB) & covers
        self.is_noise &= ~speech
