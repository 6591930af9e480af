"""A recogniser that needs no model, for tests of what is built on one."""

import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np

from asr.audio import SAMPLE_RATE, Source, duration_seconds, read_blocks
from asr.recognizer import Progress
from asr.tokenizer import Tokenizer
from asr.transcript import Segment, Word

UTTERANCE_SECONDS = 2.0
SPOKEN = ("the", "quick", "brown", "fox's", "den")
OTHERS = ("the quick brown foxes den", "a quick brown fox's den")
CONFIDENCES = (0.99, 0.95, 0.7, 0.93, 0.3)


class LoudnessRecognizer:
    """Hears SPOKEN in each 2 s of a real recording that are loud; keeps the promises of `asr.Recognizer`.

    Attributes:
      pause_seconds: what each utterance takes.
      utterances: how many were worked on.
    """

    def __init__(self, name: str = "tiny", has_language_model: bool = False):
        self.bundle = SimpleNamespace(
            name=name,
            has_language_model=has_language_model,
            tokenizer=Tokenizer.characters("english"),
            config={},
        )
        self.pause_seconds = 0.0
        self.utterances = 0

    def segments(
        self,
        source: Source,
        *,
        decoder: str | None = None,
        hotwords: Sequence[str] = (),
        n_best: int = 1,
        progress: Progress | None = None,
    ) -> Iterator[Segment]:
        if decoder == "greedy" and hotwords:
            raise ValueError("the greedy decoder knows no hot words")
        return self._segments(source, n_best, progress)

    def _segments(self, source: Source, n_best: int, progress: Progress | None) -> Iterator[Segment]:
        total_seconds = duration_seconds(source)
        end = 0.0
        for block in read_blocks(source, UTTERANCE_SECONDS):
            time.sleep(self.pause_seconds)
            self.utterances += 1
            start, end = end, end + len(block) / SAMPLE_RATE
            if np.abs(block).max() > 0.01:
                yield _segment(start, (end - start) / len(SPOKEN), OTHERS[: n_best - 1])
            if progress is not None:
                progress(end, total_seconds)


def _segment(start: float, step: float, alternatives: tuple[str, ...]) -> Segment:
    words = tuple(
        Word(text, start + index * step, start + (index + 0.8) * step, confidence)
        for index, (text, confidence) in enumerate(zip(SPOKEN, CONFIDENCES, strict=True))
    )
    return Segment(words[0].start, words[-1].end, " ".join(SPOKEN), words, alternatives)
