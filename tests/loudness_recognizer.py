"""A recogniser without a model, for tests of the page and the command line."""

import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import numpy as np

from asr.audio import SAMPLE_RATE, Source, duration_seconds, read_blocks
from asr.recognizer import Progress
from asr.tokenizer import Tokenizer
from asr.transcript import Segment, Transcript, Word

UTTERANCE_SECONDS = 2.0
SPOKEN = ("the", "quick", "brown", "fox's", "den")
OTHERS = ("the quick brown foxes den", "a quick brown fox's den")
CONFIDENCES = (0.99, 0.95, 0.7, 0.93, 0.3)


class LoudnessRecognizer:
    """Returns SPOKEN for every 2 s of a recording that are loud; has the interface of `asr.Recognizer`.

    Attributes:
      pause_seconds: time that each utterance takes.
      utterances: number of utterances so far.
    """

    def __init__(self, name: str = "tiny", has_language_model: bool = False):
        self.bundle = SimpleNamespace(
            name=name,
            has_language_model=has_language_model,
            has_ctc=True,
            vocabulary=None,
            tokenizer=Tokenizer.characters("english"),
            config={},
        )
        self.engine = SimpleNamespace(encode=lambda samples: samples)
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
        warn: Callable[[str], None] = print,
    ) -> Iterator[Segment]:
        if decoder == "greedy" and hotwords:
            raise ValueError("the greedy decoder knows no hot words")
        return self._segments(source, n_best, progress, warn)

    def decoder(self, name: str | None = None) -> Callable[[np.ndarray], list[Word]]:
        """From what the engine says of an utterance, here the samples, to its words."""
        return lambda samples: [word for segment in self.segments(samples) for word in segment.words]

    def align(self, source: Source, text: str) -> Transcript:
        """The words of the text, each as long as the others."""
        duration = len(source) / SAMPLE_RATE
        step = duration / len(text.split())
        words = [Word(word, at * step, (at + 1) * step, 0.5) for at, word in enumerate(text.split())]
        return Transcript((Segment(0.0, duration, text, tuple(words)),), "english", duration, "tiny")

    def _segments(
        self, source: Source, n_best: int, progress: Progress | None, warn: Callable[[str], None]
    ) -> Iterator[Segment]:
        total_seconds = duration_seconds(source)
        end = 0.0
        for block in read_blocks(source, UTTERANCE_SECONDS, warn=warn):
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
