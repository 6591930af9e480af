"""The road of a sound, walked: recording → utterances → log-probs → hypotheses → transcript."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from asr.decoding import Hypothesis
from asr.decoding.greedy import greedy_decode, words_of
from asr.text import WORD_BOUNDARY, Units, normalize
from asr.transcript import Segment, Transcript, Word

# What reads sound and runs models is imported where it is needed, so that `--help` does not wait for it.
if TYPE_CHECKING:
    from asr.audio import AudioError, Source
    from asr.bundle import Bundle
    from asr.decoding.ngram import NgramModel
    from asr.engine import Engine

DECODERS = ("greedy", "beam")

Progress = Callable[[float, float | None], None]


class Recognizer:
    """Speech to text with one model.

        recognizer = Recognizer.load("english")
        print(recognizer.transcribe("meeting.m4a").text)

    A source is whatever `asr.audio` reads: a path, "-" (standard input), bytes, a binary file object or
    (samples, rate). `progress` is called as `progress(done_seconds, total_seconds)` after each utterance; the
    total is what the recording's header says, or None. Its last call has the true duration twice.

    Attributes:
      bundle: the model's folder.
      engine: what computes its log-probs.
    """

    def __init__(self, bundle: Bundle, engine: Engine):
        self.bundle = bundle
        self.engine = engine

    @classmethod
    def load(cls, name_or_dir: str = "english", *, threads: int | None = None) -> Recognizer:
        """A shipped model by its name, or any bundle by its folder, on `threads` cores (None: all).

        Raises BundleError for what is no sound bundle.
        """
        from asr.bundle import Bundle
        from asr.engine import Engine

        bundle = Bundle.load(name_or_dir)
        return cls(bundle, Engine.load(bundle, threads=threads))

    @property
    def units(self) -> Units:
        """What the model writes."""
        return self.bundle.units

    def transcribe(
        self,
        source: Source,
        *,
        decoder: str | None = None,
        hotwords: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> Transcript:
        """The transcript of one recording; without speech it has no segments.

        Args:
          decoder: one of `DECODERS`. None takes beam search if the model ships a language model or there are
            hot words, else greedy.
          hotwords: names and terms to expect; only beam search knows them.

        Raises:
          AudioError: the source cannot be read.
          ValueError: an unknown decoder, or hot words for the greedy one.
        """
        clock = _Clock(progress)
        segments = self.segments(source, decoder=decoder, hotwords=hotwords, progress=clock)
        return self._transcript(segments, clock)

    def segments(
        self,
        source: Source,
        *,
        decoder: str | None = None,
        hotwords: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> Iterator[Segment]:
        """Each segment as soon as it is heard, in memory that does not grow with the recording.

        Stopping the iteration cancels the work. Arguments and errors are those of `transcribe`.
        """
        return self._segments(source, self._decode(decoder, hotwords), progress)

    def transcribe_many(
        self,
        sources: Iterable[Source],
        *,
        decoder: str | None = None,
        hotwords: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> Iterator[Transcript | AudioError]:
        """What became of each source, in order: its transcript, or the AudioError that it ended in.

        So a broken recording costs nobody the others. `progress` starts anew for each source.
        """
        from asr.audio import AudioError

        for source in sources:
            try:
                yield self.transcribe(source, decoder=decoder, hotwords=hotwords, progress=progress)
            except AudioError as error:
                yield error

    def align(self, source: Source, text: str, *, progress: Progress | None = None) -> Transcript:
        """When each word of a known text was said.

        Words keep their spelling. What has no letters ("–", "1984") is not looked for and stays with the word
        before it. Segments lie between pauses, as in `transcribe`.

        Raises:
          AudioError: the source cannot be read.
          ValueError: the text has no words, or more than the recording has room for.
        """
        clock = _Clock(progress)
        return self._transcript(self._aligned(source, text, clock), clock)

    def _segments(
        self, source: Source, decode: Callable[[np.ndarray], Hypothesis], progress: Progress | None
    ) -> Iterator[Segment]:
        step_seconds = self.bundle.step_seconds
        for start, log_probs in self._heard(source, progress):
            hypothesis = decode(log_probs)
            words = words_of(hypothesis, log_probs, self.units, step_seconds, self._calibration)
            if words:
                yield _segment(
                    Word(word.text, start + word.start, start + word.end, word.confidence) for word in words
                )

    def _aligned(self, source: Source, text: str, progress: Progress) -> Iterator[Segment]:
        from asr.decoding.alignment import align

        unit_ids = self.units.encode(normalize(text))
        if not unit_ids:
            raise ValueError("the text has no words: give what is said in the recording")
        heard = list(self._heard(source, progress))
        if not heard:
            raise ValueError("no speech was found in the recording")
        log_probs = np.concatenate([log_probs for _, log_probs in heard])
        hypothesis = align(log_probs, unit_ids)

        # Nobody knows which words are in which utterance, so all are aligned in one go, on steps.
        step_seconds = self.bundle.step_seconds
        utterance_of = np.repeat(np.arange(len(heard)), [len(log_probs) for _, log_probs in heard])
        seconds_of = np.concatenate(
            [start + step_seconds * np.arange(len(log_probs)) for start, log_probs in heard]
        )
        spelled = iter(words_of(hypothesis, log_probs, self.units, 1, self._calibration))  # times in steps
        found: list[tuple[int, Word]] = []
        for written, count in _written_words(text):
            parts = list(islice(spelled, count))
            first, last = round(parts[0].start), round(parts[-1].end) - 1
            start, end = float(seconds_of[first]), float(seconds_of[last]) + step_seconds
            confidence = min(part.confidence for part in parts)
            found.append((utterance_of[first], Word(written, start, end, confidence)))
        for _, group in groupby(found, key=itemgetter(0)):
            yield _segment(word for _, word in group)

    def _heard(self, source: Source, progress: Progress | None) -> Iterator[tuple[float, np.ndarray]]:
        """Each utterance's start in seconds and log-probs [steps, units], in order of time."""
        from asr.audio import SAMPLE_RATE, duration_seconds, read_blocks
        from asr.segmentation import cut_utterances

        total_seconds = duration_seconds(source)
        read_seconds = 0.0

        def counted() -> Iterator[np.ndarray]:
            nonlocal read_seconds
            for block in read_blocks(source):
                read_seconds += len(block) / SAMPLE_RATE
                yield block

        for utterance in cut_utterances(counted()):
            [log_probs] = self.engine.log_probs([utterance.samples])
            yield float(utterance.start), log_probs
            if progress is not None:
                progress(utterance.start + len(utterance.samples) / SAMPLE_RATE, total_seconds)
        if progress is not None:
            progress(read_seconds, read_seconds)

    def _decode(self, decoder: str | None, hotwords: Sequence[str]) -> Callable[[np.ndarray], Hypothesis]:
        """The function from log-probs [steps, units] to the best hypothesis."""
        if decoder is None:
            decoder = "beam" if hotwords or self.bundle.has_language_model else "greedy"
        if decoder not in DECODERS:
            raise ValueError(f"no decoder {decoder!r}: choose one of {', '.join(DECODERS)}")
        if decoder == "greedy":
            if hotwords:
                raise ValueError("the greedy decoder knows no hot words: choose the beam decoder")
            return partial(greedy_decode, units=self.units)

        from asr.decoding.beam import BeamDecoder

        language_model, weights = self._language_model
        beam = BeamDecoder(self.units, language_model, hotwords=tuple(hotwords), **weights)
        return lambda log_probs: beam.decode(log_probs)[0]

    @cached_property
    def _language_model(self) -> tuple[NgramModel | None, dict[str, float]]:
        """The bundle's language model, read once, and the weights that it was tuned to."""
        if not self.bundle.has_language_model:
            return None, {}
        from asr.decoding.ngram import NgramModel

        folder = self.bundle.directory / "lm"
        weights = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return NgramModel.load(folder / "ngram.bin"), weights

    @property
    def _calibration(self) -> dict[str, float] | None:
        return self.bundle.config.get("confidence")

    def _transcript(self, segments: Iterable[Segment], clock: _Clock) -> Transcript:
        segments = tuple(segments)  # the clock has run to its end when all are heard
        language = self.bundle.config["language"]
        return Transcript(segments, language, clock.seconds, self.bundle.name)


class _Clock:
    """Passes progress on, and knows how long the recording was when it is over."""

    def __init__(self, progress: Progress | None):
        self.progress = progress
        self.seconds = 0.0

    def __call__(self, done_seconds: float, total_seconds: float | None) -> None:
        self.seconds = done_seconds
        if self.progress is not None:
            self.progress(done_seconds, total_seconds)


def _segment(words: Iterable[Word]) -> Segment:
    words = tuple(words)
    return Segment(words[0].start, words[-1].end, WORD_BOUNDARY.join(word.text for word in words), words)


def _written_words(text: str) -> list[tuple[str, int]]:
    """The words as they are written, each with the number of words it is when normalised: ("twenty-one,", 2).

    What is none ("–") is joined to the word before it, or at the beginning of the text to the word after it.
    """
    written: list[tuple[str, int]] = []
    for token in text.split():
        count = len(normalize(token).split())
        if written and 0 in (count, written[-1][1]):
            before, before_count = written.pop()
            token, count = f"{before} {token}", before_count + count
        written.append((token, count))
    return written
