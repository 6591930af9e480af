"""Transcription of one recording, segment by segment, for the page and its API."""

import math
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

from asr.bundle import Bundle
from asr.recognizer import Recognizer
from asr.transcript import Segment, Transcript
from asr.turns import Turns
from asr.web.sessions import Session

N_BEST = 4  # hypotheses per segment: its text and three alternatives
REFRESH_SECONDS = 0.4  # a long recording gives several utterances a second; the page need not show each
ESTIMATE_SECONDS = 2.0  # of work, after which the time left is told


def model_choices(recognizers: Mapping[str, Recognizer]) -> list[tuple[str, str]]:
    """Labels and names of the models; a label has the word error rates that the model's maker states."""

    def rates(bundle: Bundle) -> str:
        stated = bundle.config.get("wer", {}).values()
        return f"{min(stated):.0f} to {max(stated):.0f} %" if stated else "not stated"

    return [(f"{name}: WER {rates(one.bundle)}", name) for name, one in recognizers.items()]


def decoder_choices(bundles: Sequence[Bundle]) -> list[tuple[str, str]]:
    """Labels and names of the decoders that suit one of the models, the best first."""
    suitable = {
        ("Sentences", "joint"): lambda bundle: bundle.vocabulary is not None,
        ("Words, with language model", "beam"): lambda bundle: bundle.has_ctc and bundle.has_language_model,
        ("Words, without language model (faster)", "greedy"): lambda bundle: bundle.has_ctc,
    }
    return [choice for choice, suits in suitable.items() if any(map(suits, bundles))]


def separated(hotwords: str) -> tuple[str, ...]:
    """Hot words that are separated by commas or line breaks."""
    return tuple(term.strip() for term in hotwords.replace("\n", ",").split(",") if term.strip())


class Recognition:
    """Iterate to get the segments of `sound` one by one; `transcript` holds those recognised so far.

    Args:
      recognizer: recognises lazily, while this is iterated.
      sound: path of a recording.
      decoder: one of `asr.DECODERS`.
      hotwords: names and terms to expect, separated by commas or line breaks.

    Raises ValueError for an unknown decoder and for hot words with "greedy", which cannot use them. Iterating
    raises AudioError for a recording that cannot be read.
    """

    def __init__(self, recognizer: Recognizer, sound: str, decoder: str, hotwords: str = ""):
        self.started = time.monotonic()
        self.done_seconds = 0.0
        self.total_seconds: float | None = None  # some files do not say
        self._bundle = recognizer.bundle
        self._segments: list[Segment] = []
        self._warnings: list[str] = []
        self._source = recognizer.segments(
            sound,
            decoder=decoder,
            hotwords=separated(hotwords),
            n_best=N_BEST if decoder == "beam" else 1,
            progress=self._advance,
            warn=lambda warning: self._warnings.append(warning.replace(sound, Path(sound).name)),
        )

    def __iter__(self) -> Iterator[Segment]:
        for segment in self._source:
            self._segments.append(segment)
            yield segment

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self.started

    @property
    def seconds_left(self) -> float | None:
        """Until the end, if it goes on as until now; None where that cannot be told."""
        done, total = self.done_seconds, self.total_seconds
        if total is None or not 0 < done <= total or self.seconds < ESTIMATE_SECONDS:
            return None
        return self.seconds * (total - done) / done

    def _advance(self, done_seconds: float, total_seconds: float | None) -> None:
        self.done_seconds, self.total_seconds = done_seconds, total_seconds

    @property
    def transcript(self) -> Transcript:
        """The segments so far; its duration is the part of the recording that was processed."""
        return Transcript(
            tuple(sorted(self._segments, key=lambda segment: segment.start)),
            self._bundle.tokenizer.language,
            self.done_seconds,
            self._bundle.name,
            tuple(self._warnings),
        )


async def in_turns(recognition: Recognition, turns: Turns, session: Session) -> AsyncIterator[None]:
    """Recognises until the end, or until the session is cancelled; yields when there is something to show.

    Raises AudioError for a recording that cannot be read.
    """
    shown_at = -math.inf
    async with aclosing(turns.segments(iter(recognition))) as segments:
        async for _ in segments:
            if session.cancelled:
                return
            if time.monotonic() - shown_at >= REFRESH_SECONDS:
                shown_at = time.monotonic()
                yield
