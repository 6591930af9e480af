"""Utterances of stereo recordings in which each channel holds another party, as in telephone calls."""

from collections.abc import Iterable, Iterator
from operator import attrgetter

import numpy as np

from asr.audio import SAMPLE_RATE
from asr.channels import NOISE_RANGE_DB, levels_db
from asr.segmentation import CERTAIN_SPEECH, FRAME_SAMPLES, Cutter, SpeechDetector, Utterance, cut_utterances

KEPT_SECONDS = 60.0  # of the side channel, for an utterance that is cut from the mid channel
MIN_OVERLAP_FRAMES = 16  # of speech in both channels at once; 0.5 s
QUIET_DB = -25.0  # below the loudest frames of a channel
# Correlation of the levels: above 0.7 for two microphones in one noisy, echoing room, below 0.3 for two
# parties whose voices leak 20 dB softer into the other's channel. That of the samples is 0.2 for these, and
# more for music with a voice in the middle.
MAX_LEVEL_CORRELATION = 0.5
MAX_CORRELATION = 0.3


def cut_each(blocks: Iterable[np.ndarray]) -> Iterator[Utterance]:
    """The utterances of both channels in order of their starts; blocks: float32 [samples, 2] at 16 kHz."""
    cutters = [Cutter(channel=channel) for channel in ("left", "right")]
    waiting: list[Utterance] = []
    for block in blocks:
        for cutter, column in zip(cutters, block.T, strict=True):
            waiting += cutter.push(column)
        done_seconds = min(cutter.done_seconds for cutter in cutters)
        waiting.sort(key=attrgetter("start"))
        while waiting and waiting[0].start < done_seconds:
            yield waiting.pop(0)
    for cutter in cutters:
        waiting += cutter.finish()
    yield from sorted(waiting, key=attrgetter("start"))


def cut_mean(blocks: Iterable[np.ndarray]) -> Iterator[Utterance]:
    """The utterances of the mean, but of each channel alone where two parties speak at the same time.

    blocks: float32 [samples, 2] at 16 kHz: mid and side of `asr.channels.mixed`; or [samples], which are cut
    as they are.
    """
    kept = np.empty(0, np.float32)  # the last of the side channel
    kept_until = 0  # samples of the recording

    def means() -> Iterator[np.ndarray]:
        nonlocal kept, kept_until
        for block in blocks:
            if block.ndim == 2:
                kept = np.concatenate([kept, block[:, 1]])[-round(KEPT_SECONDS * SAMPLE_RATE) :]
                kept_until += len(block)
                block = block[:, 0]
            yield block

    for utterance in cut_utterances(means()):
        start = round(utterance.start * SAMPLE_RATE) - (kept_until - len(kept))
        side = kept[start : start + len(utterance.samples)]
        both = np.stack([utterance.samples + side, utterance.samples - side]) if side.any() else None
        if both is None or not _are_two_parties(both):
            yield utterance
            continue
        for part in cut_each([both.T]):
            yield Utterance(utterance.start + part.start, part.samples, part.channel)


def _are_two_parties(both: np.ndarray) -> bool:
    """Whether the channels [2, samples] hold different speech at the same time."""
    # Differences whiten the spectrum: low voices are alike in their low frequencies.
    white = np.diff(both, axis=1)
    levels = levels_db(white, FRAME_SAMPLES)
    if not levels.size:
        return False
    low, high = np.percentile(levels, [10, 95], axis=1, keepdims=True)
    if (high - low).min() < NOISE_RANGE_DB:  # hiss or hum
        return False
    loud = levels > high + QUIET_DB
    if np.count_nonzero(loud.all(axis=0)) < MIN_OVERLAP_FRAMES:
        return False
    if abs(np.corrcoef(white)[0, 1]) > MAX_CORRELATION:
        return False
    if np.corrcoef(levels[:, loud.any(axis=0)])[0, 1] > MAX_LEVEL_CORRELATION:
        return False
    padded = np.pad(both, ((0, 0), (0, -both.shape[1] % FRAME_SAMPLES)))
    speech = [SpeechDetector()(channel) > CERTAIN_SPEECH for channel in padded]
    return np.count_nonzero(speech[0] & speech[1]) >= MIN_OVERLAP_FRAMES
