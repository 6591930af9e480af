"""The road of a sound, walked: recording → utterances → log-probs → hypotheses → transcript."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from asr.decoding import Hypothesis
from asr.decoding.greedy import greedy_decode
from asr.decoding.words import words_of
from asr.tokenizer import WORD_BOUNDARY, Tokenizer
from asr.transcript import Segment, Transcript, Word

# What reads sound and runs models is imported where it is needed, so that `--help` does not wait for it.
if TYPE_CHECKING:
    from asr.audio import AudioError, Source
    from asr.bundle import Bundle
    from asr.engine import Engine
    from asr.segmentation import Utterance

DECODERS = ("greedy", "beam")

Decoder = Callable[[np.ndarray], list[Word]]
# From an utterance's log-probs [steps, units] to its words, in seconds from its start, and its other texts.
Hear = Callable[[np.ndarray], tuple[list[Word], tuple[str, ...]]]
Progress = Callable[[float, float | None], None]


class Recognizer:
    """Speech to text with one model.

        recognizer = Recognizer.load("english")
        print(recognizer.transcribe("meeting.m4a").text)

    A source is whatever `asr.audio` reads: a path, "-" (standard input), bytes, a binary file object or
    (samples, rate). `progress` is called as `progress(done_seconds, total_seconds)` after each utterance; the
    total is what the recording's header says, or None. Its last call has the true duration twice.

    Args:
      bundle: the model's folder.
      engine: what computes its log-probs; called from several threads if there are several workers.
      workers: utterances that are computed at the same time.
    """

    def __init__(self, bundle: Bundle, engine: Engine, workers: int = 1):
        self.bundle = bundle
        self.engine = engine
        self.workers = workers

    @classmethod
    def load(cls, name_or_dir: str = "english", *, threads: int | None = None) -> Recognizer:
        """A shipped model by its name, or any bundle by its folder, on `threads` cores (None: all).

        Raises BundleError for what is no sound bundle.
        """
        from asr.bundle import Bundle
        from asr.engine import Engine

        threads = threads or os.cpu_count() or 1
        bundle = Bundle.load(name_or_dir)
        # Cores that share an utterance wait for each other, and batches of like length save nothing from 12 s
        # on; two utterances at once took 0.8 of the time for the same clips (ONNX Runtime on two busy cores).
        return cls(bundle, Engine.load(bundle, threads=threads), workers=threads)

    @property
    def tokenizer(self) -> Tokenizer:
        """The normaliser, units and language of the model."""
        return self.bundle.tokenizer

    def transcribe(
        self,
        source: Source,
        *,
        decoder: str | None = None,
        hotwords: Sequence[str] = (),
        n_best: int = 1,
        progress: Progress | None = None,
    ) -> Transcript:
        """The transcript of one recording; without speech it has no segments.

        Args:
          decoder: one of `DECODERS`. None takes beam search if the model ships a language model, there are
            hot words or several texts are wanted, else greedy.
          hotwords: names and terms to expect, a string alone being one; only beam search knows them.
          n_best: texts to give of each segment, its alternatives included; only beam search has several.

        Raises:
          AudioError: the source cannot be read.
          ValueError: an unknown decoder, or hot words or several texts wanted of the greedy one.
        """
        [result] = self.transcribe_many(
            [source], decoder=decoder, hotwords=hotwords, n_best=n_best, progress=progress
        )
        if isinstance(result, Exception):
            raise result
        return result

    def transcribe_many(
        self,
        sources: Iterable[Source],
        *,
        decoder: str | None = None,
        hotwords: Sequence[str] = (),
        n_best: int = 1,
        progress: Progress | None = None,
    ) -> Iterator[Transcript | AudioError]:
        """What became of each source, in order: its transcript, or the AudioError that it ended in.

        So a broken recording costs nobody the others. Sources are read a few utterances ahead; `progress` is
        that of the source whose result comes next. Raises ValueError as `transcribe` does.
        """
        return self._transcripts(sources, self._hear(decoder, hotwords, n_best), progress)

    def segments(
        self,
        source: Source,
        *,
        decoder: str | None = None,
        hotwords: Sequence[str] = (),
        n_best: int = 1,
        progress: Progress | None = None,
    ) -> Iterator[Segment]:
        """Each segment as soon as it is heard, in memory that does not grow with the recording.

        Stopping the iteration cancels the work. Arguments and errors are those of `transcribe`.
        """
        return self._segments(source, self._hear(decoder, hotwords, n_best), progress)

    def align(self, source: Source, text: str, *, progress: Progress | None = None) -> Transcript:
        """When each word of a known text was said.

        Words keep their spelling. What has no letters ("–", "1984") is not looked for and stays with the word
        before it. Segments lie between pauses, as in `transcribe`.

        Raises:
          AudioError: the source cannot be read.
          ValueError: the text has no words, or more than the recording has room for.
        """
        unit_ids = self.tokenizer.encode(self.tokenizer.normalize(text))
        if not unit_ids:
            raise ValueError("the text has no words: give what is said in the recording")
        heard: list[tuple[float, np.ndarray]] = []
        for recording, start, log_probs in self._heard([source], progress):
            if log_probs is not None:
                heard.append((start, log_probs))
            elif recording.error is not None:
                raise recording.error
        if not heard:
            raise ValueError("no speech was found in the recording")
        return self._transcript(self._aligned(heard, text, unit_ids), recording)

    def decoder(self, name: str | None = None, hotwords: Sequence[str] = ()) -> Decoder:
        """The function from one utterance's log-probs [steps, units] to its words, in seconds from its start.

        Arguments and errors are those of `transcribe`.
        """
        hear = self._hear(name, hotwords, n_best=1)
        return lambda log_probs: hear(log_probs)[0]

    def _hear(self, name: str | None, hotwords: Sequence[str], n_best: int) -> Hear:
        name = name or ("beam" if hotwords or n_best > 1 or self.bundle.has_language_model else "greedy")
        decode = self._decode(name, hotwords, n_best)

        def hear(log_probs: np.ndarray) -> tuple[list[Word], tuple[str, ...]]:
            best, *others = decode(log_probs)
            words = self._words(best, log_probs, self.bundle.step_seconds, name)
            return words, tuple(other.text for other in others)

        return hear

    def _transcripts(
        self, sources: Iterable[Source], hear: Hear, progress: Progress | None
    ) -> Iterator[Transcript | AudioError]:
        segments: list[Segment] = []
        for recording, start, log_probs in self._heard(sources, progress):
            if log_probs is not None:
                segments += _segments_of(*hear(log_probs), start)
            else:
                yield recording.error or self._transcript(segments, recording)
                segments = []

    def _segments(self, source: Source, hear: Hear, progress: Progress | None) -> Iterator[Segment]:
        for recording, start, log_probs in self._heard([source], progress):
            if log_probs is not None:
                yield from _segments_of(*hear(log_probs), start)
            elif recording.error is not None:
                raise recording.error

    def _aligned(
        self, heard: Sequence[tuple[float, np.ndarray]], text: str, unit_ids: list[int]
    ) -> list[Segment]:
        """The segments of a known text. `heard`: each utterance's start in seconds and log-probs."""
        from asr.decoding.alignment import align

        # Nobody knows which words are in which utterance, so all are aligned in one go, on steps.
        log_probs = np.concatenate([log_probs for _, log_probs in heard])
        step_words = iter(self._words(align(log_probs, unit_ids), log_probs, 1, "greedy"))

        step_seconds = self.bundle.step_seconds
        step_starts = np.concatenate(
            [start + step_seconds * np.arange(len(log_probs)) for start, log_probs in heard]
        )
        step_utterances = np.repeat(np.arange(len(heard)), [len(log_probs) for _, log_probs in heard])
        found: list[tuple[int, Word]] = []
        for written, count in _written_words(text, self.tokenizer):
            parts = list(islice(step_words, count))
            first, last = round(parts[0].start), round(parts[-1].end) - 1
            start, end = float(step_starts[first]), float(step_starts[last]) + step_seconds
            confidence = min(part.confidence for part in parts)
            found.append((step_utterances[first], Word(written, start, end, confidence)))
        return [_segment([word for _, word in group]) for _, group in groupby(found, key=itemgetter(0))]

    def _heard(
        self, sources: Iterable[Source], progress: Progress | None
    ) -> Iterator[tuple[_Recording, float, np.ndarray | None]]:
        """Recording, start in seconds and log-probs [steps, units] of each utterance; None at its end."""
        from asr.audio import SAMPLE_RATE

        def log_probs_of(item: tuple[_Recording, Utterance | None]) -> np.ndarray | None:
            _, utterance = item
            return None if utterance is None else self.engine.log_probs(utterance.samples)

        tell = progress or (lambda done_seconds, total_seconds: None)
        for (recording, utterance), log_probs in _map_ahead(log_probs_of, _utterances(sources), self.workers):
            if utterance is None:
                if recording.error is None:
                    tell(recording.seconds, recording.seconds)
                yield recording, recording.seconds, None
            else:
                yield recording, utterance.start, log_probs
                tell(utterance.start + len(utterance.samples) / SAMPLE_RATE, recording.stated_seconds)

    def _decode(
        self, decoder: str, hotwords: Sequence[str], n_best: int
    ) -> Callable[[np.ndarray], list[Hypothesis]]:
        """The function from log-probs [steps, units] to the best hypotheses."""
        if decoder not in DECODERS:
            raise ValueError(f"no decoder {decoder!r}: choose one of {', '.join(DECODERS)}")
        if n_best < 1:
            raise ValueError(f"n_best must be at least 1, not {n_best}")
        if decoder == "greedy":
            if hotwords:
                raise ValueError("the greedy decoder knows no hot words: choose the beam decoder")
            if n_best > 1:
                raise ValueError("the greedy decoder has only one text: choose the beam decoder")
            return lambda log_probs: [greedy_decode(log_probs, self.tokenizer)]

        from asr.decoding.beam import BeamDecoder

        beam = BeamDecoder.from_bundle(self.bundle, hotwords)
        return lambda log_probs: beam.decode(log_probs, n_best)

    def _words(
        self, hypothesis: Hypothesis, log_probs: np.ndarray, step_seconds: float, decoder: str
    ) -> list[Word]:
        calibration = self.bundle.config.get("confidence", {}).get(decoder)
        return words_of(hypothesis, log_probs, self.tokenizer, step_seconds, calibration)

    def _transcript(self, segments: Sequence[Segment], recording: _Recording) -> Transcript:
        return Transcript(tuple(segments), self.tokenizer.language, recording.seconds, self.bundle.name)


@dataclass
class _Recording:
    """What is known of a source so far; all of it when its last utterance was cut."""

    seconds: float = 0.0
    stated_seconds: float | None = None  # by the header
    error: AudioError | None = None


def _utterances(sources: Iterable[Source]) -> Iterator[tuple[_Recording, Utterance | None]]:
    """The utterances of all sources, and None at the end of each."""
    from asr.audio import SAMPLE_RATE, AudioError, duration_seconds, read_blocks
    from asr.segmentation import cut_utterances

    def counted(source: Source, recording: _Recording) -> Iterator[np.ndarray]:
        for block in read_blocks(source):
            recording.seconds += len(block) / SAMPLE_RATE
            yield block

    for source in sources:
        recording = _Recording()
        try:
            recording.stated_seconds = duration_seconds(source)
            for utterance in cut_utterances(counted(source, recording)):
                yield recording, utterance
        except AudioError as error:
            recording.error = error
        yield recording, None


def _map_ahead(function: Callable, items: Iterable, workers: int) -> Iterator[tuple]:
    """(item, function(item)) in order, computed by threads a few items ahead of the caller."""
    pool = ThreadPoolExecutor(workers)
    waiting: deque = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            while waiting and (len(waiting) > 4 * workers or waiting[0][1].done()):
                item, result = waiting.popleft()
                yield item, result.result()
        while waiting:
            item, result = waiting.popleft()
            yield item, result.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _segments_of(words: Sequence[Word], alternatives: tuple[str, ...], start: float) -> list[Segment]:
    """The segment of an utterance that starts at `start` seconds; none if no word was heard in it."""
    if not words:
        return []
    moved = [replace(word, start=start + word.start, end=start + word.end) for word in words]
    return [_segment(moved, alternatives)]


def _segment(words: Sequence[Word], alternatives: tuple[str, ...] = ()) -> Segment:
    text = WORD_BOUNDARY.join(word.text for word in words)
    return Segment(words[0].start, words[-1].end, text, tuple(words), alternatives)


def _written_words(text: str, tokenizer: Tokenizer) -> list[tuple[str, int]]:
    """The words as they are written, each with the number of words it is when normalised: ("twenty-one,", 2).

    What is none ("–") is joined to the word before it, or at the beginning of the text to the word after it.
    """
    written: list[tuple[str, int]] = []
    for token in text.split():
        count = len(tokenizer.normalize(token).split())
        if written and 0 in (count, written[-1][1]):
            before, before_count = written.pop()
            token, count = f"{before} {token}", before_count + count
        written.append((token, count))
    return written
