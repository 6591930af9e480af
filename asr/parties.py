"""Utterances of stereo recordings in which each channel holds another party, as in telephone calls."""

from collections.abc import Iterable, Iterator

import numpy as np

from asr.audio import SAMPLE_RATE
from asr.segmentation import CERTAIN_SPEECH, FRAME_SAMPLES, Cutter, SpeechDetector, Utterance, cut_utterances

CHANNELS = ("left", "right")
KEPT_SECONDS = 60.0  # of both channels, for an utterance that is cut from their mean
MIN_OVERLAP_SECONDS = 0.5  # of speech in both channels at once
MAX_LAG_SECONDS = 0.02  # between the channels of one room
MAX_CORRELATION = 0.1  # of channels that hold different speech


def cut_each(blocks: Iterable[np.ndarray]) -> Iterator[Utterance]:
    """The utterances of both channels in order of their starts; blocks: float32 [samples, 2] at 16 kHz."""
    cutters = [Cutter(channel=channel) for channel in CHANNELS]
    waiting: list[Utterance] = []
    for block in blocks:
        for cutter, column in zip(cutters, block.T, strict=True):
            waiting += cutter.push(column)
        done_seconds = min(cutter.done_seconds for cutter in cutters)
        waiting.sort(key=lambda utterance: utterance.start)
        while waiting and waiting[0].start < done_seconds:
            yield waiting.pop(0)
    for cutter in cutters:
        waiting += cutter.finish()
    yield from sorted(waiting, key=lambda utterance: utterance.start)


def cut_mean(blocks: Iterable[np.ndarray]) -> Iterator[Utterance]:
    """The utterances of the mean, but of each channel alone where two parties speak at the same time.

    blocks: float32 [samples, 3] at 16 kHz: mean, left, right; or [samples], which are cut as they are.
    """
    kept = np.empty((0, 2), np.float32)
    kept_until = 0  # samples of the recording

    def means() -> Iterator[np.ndarray]:
        nonlocal kept, kept_until
        for block in blocks:
            if block.ndim == 2:
                kept = np.concatenate([kept, block[:, 1:]])[-round(KEPT_SECONDS * SAMPLE_RATE) :]
                kept_until += len(block)
                block = block[:, 0]
            yield block

    for utterance in cut_utterances(means()):
        start = round(utterance.start * SAMPLE_RATE) - (kept_until - len(kept))
        both = kept[start : start + len(utterance.samples)] if kept_until else kept
        if not _are_two_parties(both):
            yield utterance
            continue
        apart = [
            Utterance(utterance.start + part.start, part.samples, part.channel)
            for channel, column in zip(CHANNELS, both.T, strict=True)
            for part in cut_utterances([column], channel=channel)
        ]
        yield from sorted(apart, key=lambda part: part.start)


def _are_two_parties(both: np.ndarray) -> bool:
    """Whether the channels of [samples, 2] hold different speech at the same time."""
    if len(both) < MIN_OVERLAP_SECONDS * SAMPLE_RATE or not both.any(axis=0).all():
        return False
    # Differences whiten the spectrum: low voices are alike in their low frequencies.
    left, right = np.diff(both, axis=0).T
    lag = round(MAX_LAG_SECONDS * SAMPLE_RATE)
    size = 1 << (len(left) + lag).bit_length()  # room for the lags, and fast
    products = np.fft.irfft(np.fft.rfft(left, size) * np.fft.rfft(right, size).conj(), size)
    alike = np.abs(np.concatenate([products[: lag + 1], products[-lag:]])).max()
    if alike > MAX_CORRELATION * np.linalg.norm(left) * np.linalg.norm(right):
        return False
    padded = np.pad(both, ((0, -len(both) % FRAME_SAMPLES), (0, 0)))
    speech = [SpeechDetector()(np.ascontiguousarray(column)) > CERTAIN_SPEECH for column in padded.T]
    return np.count_nonzero(speech[0] & speech[1]) * FRAME_SAMPLES >= MIN_OVERLAP_SECONDS * SAMPLE_RATE
