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
        self.levels_db: deque[np.ndarray] = deque(maxlen=HISTORY_BLOCKS)  # [2, channels, frames] each
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
        channels = np.ascontiguousarray(block.T)  # faster than sums over the short axis
        self._find_noise(channels)
        kept = np.flatnonzero(~self.is_noise)
        if 0 < len(kept) < len(channels):
            channels = channels[kept]
        mean = channels.mean(axis=0)
        energies = channels.var(axis=1)
        if energies.mean() > SILENCE:
            if mean.var() * len(channels) >= CANCELLING * energies.mean():
                self.loudest = None
            elif self.loudest is None or self.loudest >= len(channels):
                self.loudest = int(energies.argmax())
        if self.loudest is not None and self.loudest < len(channels):
            mean = channels[self.loudest]
        return mean[:, None]

    def _find_noise(self, channels: np.ndarray) -> None:
        frames = channels.shape[1] // self.frame
        if not frames:
            return
        # Differences weigh the high frequencies more, so that rumble, too, has a steady level.
        steady, loud = (
            _levels_db(samples[:, : frames * self.frame].reshape(len(channels), frames, self.frame))
            for samples in (np.diff(channels, axis=1, prepend=channels[:, :1]), channels)
        )
        self.levels_db.append(np.stack([steady, loud]))
        steady, loud = np.concatenate(self.levels_db, axis=2)
        low, high = np.percentile(steady, [10, 90], axis=1)
        speech = high - low > SPEECH_RANGE_DB
        if speech.any():
            speech_db = np.percentile(loud[speech], 90, axis=1).max()
            covers = np.median(loud, axis=1) > speech_db + HARMLESS_DB
            self.is_noise |= (high - low < NOISE_RANGE_DB) & covers
        self.is_noise &= ~speech


def _levels_db(frames: np.ndarray) -> np.ndarray:
    """Mean squares [channels, frames] of samples [channels, frames, samples], in dB of full scale."""
    return 10 * np.log10(np.einsum("cfs,cfs->cf", frames, frames) / frames.shape[2] + SILENCE)
