"""Live transcription: samples in as they are spoken, text out while one speaks.

The utterance that is being spoken is read again and again by the CTC head. A word is stable, and will not
change any more, when two successive decodings agree on it and on those before it ("local agreement", Liu et
al. 2020, "Low-latency sequence-to-sequence speech recognition and translation by partial hypothesis
selection"). When the voice activity detection ends the utterance, the decoder writes the final text: the
cuts, the decoder and so the text are those of a file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from asr.audio import SAMPLE_RATE, AudioError, LiveBlock, LiveSamples
from asr.engine import Encoding
from asr.segmentation import Cutter, Utterance
from asr.tokenizer import WORD_BOUNDARY
from asr.transcript import Segment, Word

# A decoding starts when so much more was received, and when the last one took no more than this share of the
# time since then: those of a long utterance, or on a busy machine, are further apart.
READ_SECONDS = 0.1
READ_SHARE = 0.3
# What ends so close to the end of the sound may be half a word, and a word of less confidence another one.
EDGE_SECONDS = 0.15
SURE = 0.8
# Silence behind an utterance (and its margin) in which its final is written, to be there when the pause has
# become long enough to end it. Only where speech goes on after all was the work for nothing.
AHEAD_SECONDS = 0.6


@dataclass(frozen=True)
class Partial:
    """The text so far of the utterance that is being spoken; times are in seconds from the stream's start.

    It replaces the partial before it, and is replaced by the finals of the utterance. An empty text takes
    back what was shown: no word was said after all.

    Attributes:
      stable_length: characters of the text that no later partial of the utterance changes.
    """

    text: str
    stable_length: int
    start: float
    end: float

    def to_dict(self) -> dict[str, Any]:
        """The fields, and "type": "partial"."""
        times = {"start": round(self.start, 3), "end": round(self.end, 3)}
        return {"type": "partial", "text": self.text, "stable_length": self.stable_length, **times}


@dataclass(frozen=True)
class Final:
    """A sentence, or all of an utterance, that is over; those of one utterance come together."""

    segment: Segment

    def to_dict(self) -> dict[str, Any]:
        """Text, times and words of the segment, and "type": "final"."""
        segment = self.segment
        times = {"start": round(segment.start, 3), "end": round(segment.end, 3)}
        words = [word.to_dict() for word in segment.words]
        return {"type": "final", "text": segment.text, **times, "words": words}


Event = Partial | Final


class Stream:
    """The live transcript of one source of sound; `Recognizer.stream` makes it.

        with recognizer.stream(rate=16_000) as stream:
            for block in microphone:
                for event in stream.write(block):
                    ...
            for event in stream.finish():
                ...

    All work is done in `write` and `finish`, in the thread that calls them. Streams that share a recogniser
    may be used from several threads at once, each stream from one at a time. Memory does not grow.

    Args:
      encode: samples of an utterance → what the engine says of it.
      read: that → words in seconds from the start of the utterance; must be fast.
      decode: an utterance, and what the engine says of it → the final segments.
      rate: of the samples, in Hz.
    """

    def __init__(
        self,
        encode: Callable[[Any], Encoding],
        read: Callable[[Encoding], list[Word]],
        decode: Callable[[Utterance, Encoding], list[Segment]],
        rate: float = SAMPLE_RATE,
    ):
        self._encode, self._read, self._decode = encode, read, decode
        self._live = LiveSamples(rate)
        self._cutter = Cutter()
        self._samples = 0  # received so far
        self._closed = False
        self._begin_utterance()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self._closed = True

    @property
    def seconds(self) -> float:
        """Length of the sound so far."""
        return self._samples / SAMPLE_RATE

    def write(self, block: LiveBlock) -> list[Event]:
        """What is new with the next block of sound: finals, then at most one partial.

        Args:
          block: of any length: 16-bit little-endian PCM, mono, as bytes; or what `asr.audio.load_audio` takes
            as an array, [samples] or [samples, channels] in [-1, 1] or integers.

        Raises:
          AudioError: the block cannot be sound: NaN, too loud, a wrong shape, or other bytes than 16-bit PCM.
          ValueError: the stream is over.
        """
        self._check_open()
        events: list[Event] = []
        try:
            for samples in self._live.push(block):
                events += self._heard(samples)
        except AudioError as error:
            raise AudioError(f"the stream {error}") from error
        if self._samples >= self._read_at and (unfinished := self._cutter.unfinished()):
            utterance, pausing = unfinished
            events += self._partial(utterance, pausing)
            if self.seconds - utterance.end > AHEAD_SECONDS:
                self._segments_of(utterance)  # kept for when it is over
        return events

    def finish(self) -> list[Event]:
        """The finals of what was said last. The stream is then over."""
        self._check_open()
        self._closed = True
        return [*self._heard(self._live.finish()), *self._finals(self._cutter.finish())]

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the stream is over: start another one")

    def _begin_utterance(self) -> None:
        self._text = LiveText()
        self._shown = "", 0  # text and stable length of the last partial
        self._encoding = self._segments = None  # of which sound, and what was found
        self._read_at = 0  # samples of the stream, at which the next decoding may start

    def _heard(self, samples) -> Iterator[Event]:
        self._samples += len(samples)
        return self._finals(self._cutter.push(samples))

    def _finals(self, utterances: Iterable[Utterance]) -> Iterator[Event]:
        for utterance in utterances:
            segments = self._segments_of(utterance)
            yield from map(Final, segments)
            if self._shown[0] and not segments:
                yield Partial("", 0, utterance.start, utterance.end)
            self._begin_utterance()

    def _partial(self, utterance: Utterance, pausing: bool) -> Iterator[Partial]:
        """Reads the unfinished utterance, unless nothing was said since the last decoding."""
        if self._encoding is not None and self._encoding[0] == utterance.span:
            return
        began = time.perf_counter()
        words = self._read(self._encoding_of(utterance))
        took_seconds = time.perf_counter() - began
        self._read_at = self._samples + round(max(READ_SECONDS, took_seconds / READ_SHARE) * SAMPLE_RATE)
        if not pausing:
            heard_seconds = utterance.end - utterance.start - EDGE_SECONDS
            words = list(takewhile(lambda word: word.end <= heard_seconds, words))
        shown = self._text.read(words, pausing)
        if shown != self._shown:
            self._shown = shown
            yield Partial(*shown, utterance.start, utterance.end)

    def _encoding_of(self, utterance: Utterance) -> Encoding:
        if self._encoding is None or self._encoding[0] != utterance.span:
            self._encoding = utterance.span, self._encode(utterance.samples)
        return self._encoding[1]

    def _segments_of(self, utterance: Utterance) -> list[Segment]:
        if self._segments is None or self._segments[0] != utterance.span:
            self._segments = utterance.span, self._decode(utterance, self._encoding_of(utterance))
        return self._segments[1]


class LiveText:
    """The text of an utterance from decodings that differ in their last words."""

    def __init__(self):
        self._stable: list[Word] = []
        self._before: list[Word] = []  # the last decoding

    def read(self, words: list[Word], pausing: bool = False) -> tuple[str, int]:
        """The text with another decoding, and how many of its characters are stable.

        Args:
          words: of all the utterance so far.
          pausing: whether no more is being said, so that these are stable at once.
        """
        new, before = self._new(words), self._new(self._before)
        agreed = new if pausing else [word for word, _ in takewhile(_same, zip(new, before, strict=False))]
        sure = takewhile(lambda word: word.confidence >= SURE, new[len(agreed) :])
        self._stable += agreed
        self._before = words
        texts = [word.text for word in (*self._stable, *sure)]
        return WORD_BOUNDARY.join(texts), len(WORD_BOUNDARY.join(texts[: len(self._stable)]))

    def _new(self, words: list[Word]) -> list[Word]:
        """Those behind the stable ones, by their middles: decodings do not agree on when a word ends."""
        end = self._stable[-1].end if self._stable else 0.0
        return [word for word in words if (word.start + word.end) / 2 > end]


def _same(pair: tuple[Word, Word]) -> bool:
    return pair[0].text == pair[1].text
