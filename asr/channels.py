"""Several channels to one: their mean, unless that would lose the speech in them.

The mean of a channel and its inverted copy is silence, and a dead microphone's hiss or hum covers what the
other channel says. Both are looked for in blocks of a second, so that a recording is read as it comes.
"""

from collections import deque

import numpy as np

from asr.chunks import Chunks, by_kind, in_blocks

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


def mixed(chunks: Chunks, with_side: bool = False) -> Chunks:
    """The mean of the channels [samples, 1], without those that hold only noise beside another's speech.

    Channels that cancel each other give way to the loudest of them.

    Args:
      with_side: gives [samples, 2] of a recording that starts with two channels: their mean ("mid") and half
        of their difference ("side"), so that left is mid + side and right mid - side. The side is zero where
        one channel is left out.
    """
    for number, (rate, channels, run) in enumerate(by_kind(chunks)):
        with_side &= number > 0 or channels == 2
        if channels == 1:
            for samples in run:
                yield rate, np.pad(samples, ((0, 0), (0, 1))) if with_side else samples
            continue
        mixer = _Mixer(rate, channels)
        for block in in_blocks(run, max(1, round(BLOCK_SECONDS * rate))):
            mean, is_mean = mixer.mix(np.ascontiguousarray(block.T))  # faster than sums over the short axis
            side = (block[:, 0] - block[:, 1]) / 2 if is_mean and channels == 2 else np.zeros_like(mean)
            yield rate, np.stack([mean, side] if with_side else [mean], axis=1)


def levels_db(channels: np.ndarray, frame: int) -> np.ndarray:
    """Level of each whole frame of so many samples of [channels, samples]: [channels, frames] in dB."""
    frames = channels[:, : channels.shape[1] // frame * frame].reshape(len(channels), -1, frame)
    return 10 * np.log10(np.einsum("cfs,cfs->cf", frames, frames) / frame + SILENCE)


class _Mixer:
    """Mixes blocks of one rate and number of channels."""

    def __init__(self, rate: float, channels: int):
        self.frame = max(1, round(FRAME_SECONDS * rate))
        self.levels_db: deque[np.ndarray] = deque(maxlen=HISTORY_BLOCKS)  # [2, channels, frames] each
        self.is_noise = np.zeros(channels, bool)
        self.loudest: int | None = None  # of channels that cancel each other

    def mix(self, channels: np.ndarray) -> tuple[np.ndarray, bool]:
        """One channel [samples] of [channels, samples], and whether it is the mean of all."""
        self._find_noise(channels)
        count = len(channels)
        kept = np.flatnonzero(~self.is_noise)
        if 0 < len(kept) < count:
            channels = channels[kept]
        mean, energies = channels.mean(axis=0), channels.var(axis=1)
        if energies.mean() > SILENCE:
            if mean.var() * len(channels) >= CANCELLING * energies.mean():
                self.loudest = None
            elif self.loudest is None or self.loudest >= len(channels):
                self.loudest = int(energies.argmax())
        if self.loudest is not None and self.loudest < len(channels):
            return channels[self.loudest], False
        return mean, len(channels) == count

    def _find_noise(self, channels: np.ndarray) -> None:
        if channels.shape[1] < self.frame:
            return
        # Differences weigh the high frequencies more, so that rumble, too, has a steady level.
        steady = levels_db(np.diff(channels, axis=1, prepend=channels[:, :1]), self.frame)
        self.levels_db.append(np.stack([steady, levels_db(channels, self.frame)]))
        steady, loud = np.concatenate(self.levels_db, axis=2)
        low, high = np.percentile(steady, [10, 90], axis=1)
        speech = high - low > SPEECH_RANGE_DB
        if speech.any():
            speech_db = np.percentile(loud[speech], 90, axis=1).max()
            covers = np.median(loud, axis=1) > speech_db + HARMLESS_DB
            self.is_noise |= (high - low < NOISE_RANGE_DB) & covers
        self.is_noise &= ~speech
