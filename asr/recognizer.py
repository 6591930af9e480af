"""The pipeline: recording → utterances → log-probs → hypotheses → transcript."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np

from asr import CHANNELS
from asr.ahead import map_ahead
from asr.align import aligned_segments
from asr.decode import decode_with
from asr.tokenizer import Tokenizer
from asr.transcript import Segment, Transcript, Word, sentences

# What reads sound and runs models is imported where it is needed, so that `--help` does not wait for it.
if TYPE_CHECKING:
    from asr.audio import AudioError, Source
    from asr.bundle import Bundle
    from asr.engine import Encoding, Engine
    from asr.segmentation import Utterance
    from asr.streaming import Stream

BLOCK_SECONDS = 1.0  # read at a time, so that words of a pipe come soon

Progress = Callable[[float, float | None], None]


class Options(TypedDict, total=False):
    """How to transcribe.

    decoder: one of `asr.DECODERS`. None takes "joint" if the model has an attention decoder, else "beam" if
      it has a language model, there are hot words or several texts are wanted, else "greedy".
    hotwords: names and terms to expect, a string alone being one; the greedy decoder does not know them.
    n_best: texts to give of each segment, its alternatives included; the greedy decoder has only one.
    channel: "left" or "right" of several channels, or "each" of a stereo recording with one party a channel;
      segments then name theirs. None takes the mean, and the channels apart only where they hold different
      speech at the same time.
    track: of a file with several sound tracks, counted from 1. None takes the default one, or if that is mute
      the next.
    """

    decoder: str | None
    hotwords: Sequence[str]
    n_best: int
    channel: str | None
    track: int | None


class Recognizer:
    """Speech to text with one model.

        recognizer = Recognizer.load("english")
        print(recognizer.transcribe("meeting.m4a").text)

    A source is whatever `asr.audio` reads: a path, "-" (standard input), bytes, a binary file object, mono
    samples at 16 kHz (a NumPy array [samples]), or (samples, rate).

    `progress` is called as `progress(done_seconds, total_seconds)` after each utterance; the total is what
    the recording's header says, or None. Its last call has the true duration twice.

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
        # One utterance a core: several cores on one utterance wait for each other (the same clips took 0.8 of
        # the time on two busy cores), and batches of similar length save nothing above 12 s.
        return cls(bundle, Engine.load(bundle, threads=threads), workers=threads)

    @property
    def tokenizer(self) -> Tokenizer:
        """The normaliser, units and language of the model."""
        return self.bundle.tokenizer

    def transcribe(
        self, source: Source, *, progress: Progress | None = None, **options: Unpack[Options]
    ) -> Transcript:
        """The transcript of one recording; without speech it has no segments.

        The transcript's `warnings` name what was damaged or left out.

        Raises:
          AudioError: the source cannot be read, or has no such channel or track.
          ValueError: an unknown decoder or channel, or hot words or several texts wanted of the greedy one.
        """
        [result] = self.transcribe_many([source], progress=progress, **options)
        if isinstance(result, Exception):
            raise result
        return result

    def transcribe_many(
        self, sources: Iterable[Source], *, progress: Progress | None = None, **options: Unpack[Options]
    ) -> Iterator[Transcript | AudioError]:
        """The transcript of each source, in order, or the AudioError that says why there is none.

        Sources are read a few utterances ahead; `progress` is that of the source whose result comes next.
        Raises ValueError as `transcribe` does.
        """
        return self._transcripts(self._recognised(sources, progress, **options))

    def segments(
        self,
        source: Source,
        *,
        progress: Progress | None = None,
        warn: Callable[[str], None] | None = None,
        reading: Callable[[float], None] | None = None,
        **options: Unpack[Options],
    ) -> Iterator[Segment]:
        """Each segment as soon as it is recognised, in memory that does not grow with the recording.

        Of a pipe, segments come while it is still written to. Stopping the iteration cancels the work.
        Errors are those of `transcribe`; `warn` is called with each warning when all is read. `reading` is
        called by another thread with the seconds read so far; what it raises ends the work, in the midst of
        silence, too, and is raised here.
        """
        return _segments(self._recognised([source], progress, reading, **options), warn)

    def stream(
        self, rate: float = 16_000, *, decoder: str | None = None, hotwords: Sequence[str] = ()
    ) -> Stream:
        """Live transcription of sound that is pushed block by block, see `asr.streaming.Stream`.

        Args:
          rate: of the samples, in Hz.
          decoder, hotwords: as in `transcribe`, of the final text. While one speaks, the beam decoder reads
            if the model has a language model or there are hot words, else the greedy one.

        Raises:
          AudioError: the rate is none of sound.
          ValueError: as `transcribe`; or the model has no CTC head.
        """
        from asr.streaming import Stream

        if not self.bundle.has_ctc:
            raise ValueError(f"{self.bundle.name} has no CTC head, which writes while one speaks")
        decode = self._segments_with(decoder, hotwords)
        name = "beam" if hotwords or self.bundle.has_language_model else "greedy"
        draft = decode_with(self.bundle, self.engine, name, hotwords, draft=True)
        draft(self.engine.encode(np.zeros(0, np.float32)))  # or the first word would wait for what it loads
        return Stream(self.engine.encode, lambda encoding: draft(encoding)[0], decode, rate)

    def align(self, source: Source, text: str, *, progress: Progress | None = None) -> Transcript:
        """When each word of a known text is spoken.

        Words keep their spelling. What has no letters ("–", "1984") is joined to the word before it. Segments
        end at pauses, as in `transcribe`.

        Raises:
          AudioError: the source cannot be read.
          ValueError: the text has no words, or more than the recording has room for.
        """
        if not self.bundle.has_ctc:
            raise ValueError(f"{self.bundle.name} has no CTC head, which finds the times")
        if not self.tokenizer.normalize(text):
            raise ValueError("the text has no words: give what is said in the recording")
        utterances = _utterances([source])
        *computed, (recording, _) = self._computed(lambda *result: result, utterances, progress)
        if recording.error is not None:
            raise recording.error
        if not computed:
            raise ValueError("no speech was found in the recording")
        log_probs = [encoding.log_probs for _, (_, encoding) in computed]
        starts = [utterance.start for _, (utterance, _) in computed]
        return self._transcript(aligned_segments(self.bundle, text, starts, log_probs), recording)

    def decoder(
        self, name: str | None = None, hotwords: Sequence[str] = ()
    ) -> Callable[[Encoding], list[Word]]:
        """The function from what the engine says of an utterance to its words, in seconds from its start.

        Arguments and errors are those of `transcribe`.
        """
        decode = decode_with(self.bundle, self.engine, name, hotwords)
        return lambda encoding: decode(encoding)[0]

    def _recognised(
        self, sources, progress, reading=None, decoder=None, hotwords=(), n_best=1, channel=None, track=None
    ) -> Recognised:
        """What `use` of `_computed` gives; the options are checked before any work."""
        segments = self._segments_with(decoder, hotwords, n_best)
        if channel not in (None, *CHANNELS):
            raise ValueError(f"no channel {channel!r}: choose one of {', '.join(CHANNELS)}")
        if track is not None and track < 1:
            raise ValueError(f"tracks count from 1; there is no track {track}")
        return self._computed(segments, _utterances(sources, channel, track, reading), progress)

    def _segments_with(
        self, decoder: str | None, hotwords: Sequence[str], n_best: int = 1
    ) -> Callable[[Utterance, Encoding], list[Segment]]:
        """The function from an utterance, and what the engine says of it, to its segments."""
        decode = decode_with(self.bundle, self.engine, decoder, hotwords, n_best)

        def segments(utterance: Utterance, encoding: Encoding) -> list[Segment]:
            words, alternatives = decode(encoding)
            start = utterance.start
            moved = [replace(word, start=start + word.start, end=start + word.end) for word in words]
            # Alternatives are of the whole utterance.
            parts = [moved] if alternatives else sentences(moved)
            return [Segment.of(part, alternatives, utterance.channel) for part in parts if part]

        return segments

    def _transcripts(self, recognised: Recognised) -> Iterator[Transcript | AudioError]:
        segments: list[Segment] = []
        for recording, found in recognised:
            if found is not None:
                segments += found
            else:
                yield recording.error or self._transcript(segments, recording)
                segments = []

    def _computed(
        self, use: Callable[[Utterance, Encoding], Any], utterances: Utterances, progress: Progress | None
    ) -> Iterator[tuple[_Recording, Any]]:
        """Recordings with use(utterance, what the engine says) of each utterance, or None at the end."""

        def compute(item: tuple[_Recording, Utterance | None]) -> Any:
            _, utterance = item
            return None if utterance is None else use(utterance, self.engine.encode(utterance.samples))

        tell = progress or (lambda done_seconds, total_seconds: None)
        for (recording, utterance), result in map_ahead(compute, utterances, self.workers):
            yield recording, result
            if utterance is not None:
                tell(utterance.end, recording.stated_seconds)
            elif recording.error is None:
                tell(recording.seconds, recording.seconds)

    def _transcript(self, segments: Sequence[Segment], recording: _Recording) -> Transcript:
        return Transcript(
            tuple(sorted(segments, key=attrgetter("start"))),
            self.tokenizer.language,
            recording.seconds,
            self.bundle.name,
            tuple(recording.warnings),
        )


@dataclass
class _Recording:
    """What is known of a source so far; all of it when its last utterance was cut."""

    seconds: float = 0.0
    stated_seconds: float | None = None  # by the header
    warnings: list[str] = field(default_factory=list)
    error: AudioError | None = None


# Of each recording its utterances, or their segments (one, or none without words), and None at its end.
Utterances = Iterator[tuple[_Recording, "Utterance | None"]]
Recognised = Iterator[tuple[_Recording, list[Segment] | None]]


def _segments(recognised: Recognised, warn: Callable[[str], None] | None) -> Iterator[Segment]:
    for recording, found in recognised:
        if found is not None:
            yield from found
            continue
        for warning in recording.warnings if warn else ():
            warn(warning)
        if recording.error is not None:
            raise recording.error


def _utterances(
    sources: Iterable[Source],
    channel: str | None = None,
    track: int | None = None,
    reading: Callable[[float], None] | None = None,
) -> Utterances:
    """The utterances of all sources, and None at the end of each."""
    from asr.audio import SAMPLE_RATE, AudioError, duration_seconds, read_blocks
    from asr.parties import cut_each, cut_mean

    def counted(source: Source, recording: _Recording) -> Iterator[np.ndarray]:
        options = {"channel": channel or "mid and side", "track": track, "warn": recording.warnings.append}
        for block in read_blocks(source, BLOCK_SECONDS, **options):
            recording.seconds += len(block) / SAMPLE_RATE
            if reading is not None:
                reading(recording.seconds)
            yield block

    for source in sources:
        recording = _Recording()
        try:
            recording.stated_seconds = duration_seconds(source)
            cut = cut_each if channel == "each" else cut_mean
            for utterance in cut(counted(source, recording)):
                yield recording, utterance
        except AudioError as error:
            recording.error = error
        yield recording, None
