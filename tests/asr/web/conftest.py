"""A recogniser that needs no model: real segments, cut from the real sound by its loudness."""

from types import SimpleNamespace

import numpy as np
import pytest

from asr.audio import SAMPLE_RATE, duration_seconds, read_blocks
from asr.transcript import Segment, Word

UTTERANCE_SECONDS = 2.0
SPOKEN = ("the", "quick", "brown", "fox's", "den")
CONFIDENCES = (0.99, 0.95, 0.7, 0.93, 0.3)


class LoudnessRecognizer:
    """Hears SPOKEN in each 2 s that are not silent; keeps the promises of `asr.recognizer.Recognizer`."""

    def __init__(self, name="tiny", has_language_model=False, work=lambda: None):
        self.bundle = SimpleNamespace(name=name, has_language_model=has_language_model, config={})
        self.asked = []  # (decoder, hotwords) of each call
        self.work = work  # called for each utterance

    def segments(self, source, *, decoder=None, hotwords=(), progress=None):
        self.asked.append((decoder, hotwords))
        total = duration_seconds(source)
        done = 0.0
        for block in read_blocks(source, UTTERANCE_SECONDS):
            self.work()
            start, done = done, done + len(block) / SAMPLE_RATE
            if progress:
                progress(done, total)
            if np.abs(block).max() > 0.01:
                step = (done - start) / len(SPOKEN)
                words = tuple(
                    Word(text, start + index * step, start + (index + 0.8) * step, confidence)
                    for index, (text, confidence) in enumerate(zip(SPOKEN, CONFIDENCES, strict=True))
                )
                yield Segment(words[0].start, words[-1].end, " ".join(SPOKEN), words)


@pytest.fixture
def recognizer():
    return LoudnessRecognizer()
