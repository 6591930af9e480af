"""Cuts a recording into utterances at its pauses, and leaves out what holds no speech.

Silero VAD (a network of 0.3 M parameters, MIT; asr/silero_vad/README.md) states for each 32 ms how likely
somebody speaks. Everything after that is a rule on those numbers: an utterance ends at a pause of
LONG_PAUSE_SECONDS, or, where it would grow too long, at the longest pause in the second half of what is
allowed. Measured figures: asr/silero_vad/README.md.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime

from asr.audio import SAMPLE_RATE

FRAME = 512  # samples (32 ms) that get one probability
CONTEXT = 64  # samples before a frame that the network also sees
STATE = (1, 1, 128)  # of its LSTM
BATCH_FRAMES = 64  # frames (2 s) scored in one call
PRELUDE_FRAMES = 8  # of silence, heard before the recording: without, words at its very start are missed

MAYBE_SPEECH = 0.3  # probability from which a frame is kept
SPEECH = 0.8  # probability from which a frame is evidence
LONG_PAUSE_SECONDS = 1.5
MARGIN_SECONDS = 0.4  # kept around speech: soft first and last sounds are scored as silence
MIN_SPEECH_SECONDS = 0.13  # of evidence, or the utterance is a click, a bark or a cough


def _frames(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE / FRAME)


LONG_PAUSE = _frames(LONG_PAUSE_SECONDS)
MARGIN = _frames(MARGIN_SECONDS)
MIN_SPEECH = _frames(MIN_SPEECH_SECONDS)


@dataclass(frozen=True)
class Utterance:
    """A stretch of speech: where it starts (seconds) and what it holds (float32 [samples], 16 kHz).

    channel: "left" or "right", if it is of only one of two channels.
    """

    start: float
    samples: np.ndarray
    channel: str | None = None


def cut_utterances(
    blocks: Iterable[np.ndarray], max_seconds: float = 24.0, channel: str | None = None
) -> Iterator[Utterance]:
    """The utterances of a recording, in order, each as soon as its end is heard.

    blocks: consecutive float32 [samples] of one recording at 16 kHz, of any lengths (asr.audio.read_blocks).
    The result does not depend on where one block ends and the next begins.
    max_seconds: the longest utterance, at least 2 s. At most that much and 2 s more are held in memory.
    channel: what the utterances are marked with.

    Utterances do not overlap; their samples are those of the recording. Silence and noise give no utterance.
    """
    cutter = Cutter(max_seconds, channel)
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.finish()


class Cutter:
    """Cuts blocks into utterances as they come; see `cut_utterances`."""

    def __init__(self, max_seconds: float = 24.0, channel: str | None = None):
        if max_seconds < 2:
            raise ValueError(f"max_seconds is {max_seconds}; an utterance needs room for 2 s or more")
        self.channel = channel
        self._longest = int(max_seconds * SAMPLE_RATE) // FRAME
        self._detector = SpeechDetector()
        self._unscored = np.empty(0, np.float32)
        self._samples = np.empty(0, np.float32)
        self._probabilities = np.empty(0, np.float32)
        self._first = 0  # frame of the recording where the buffer starts
        self._continues = False  # what comes next was cut from the utterance before, only for its length

    @property
    def done_seconds(self) -> float:
        """The time before which no further utterance starts."""
        return self._first * FRAME / SAMPLE_RATE

    def push(self, block: np.ndarray) -> Iterator[Utterance]:
        """The utterances that are complete with this block [samples]."""
        self._unscored = np.concatenate([self._unscored, block])
        size = BATCH_FRAMES * FRAME
        while len(self._unscored) >= size:
            batch, self._unscored = self._unscored[:size], self._unscored[size:]
            yield from self._cut(batch, self._detector(batch), last=False)

    def finish(self) -> Iterator[Utterance]:
        """The rest, when nothing follows."""
        rest = self._unscored
        yield from self._cut(rest, self._detector(np.pad(rest, (0, -len(rest) % FRAME))), last=True)

    def _cut(self, samples: np.ndarray, probabilities: np.ndarray, last: bool) -> Iterator[Utterance]:
        self._samples = np.concatenate([self._samples, samples])
        self._probabilities = np.concatenate([self._probabilities, probabilities])
        while cut := _next_cut(self._probabilities, self._longest, last):
            begin, end, in_speech = cut
            evidence = np.count_nonzero(self._probabilities[begin:end] > SPEECH)
            found = evidence >= MIN_SPEECH or (self._continues and evidence)
            utterance = Utterance(
                (self._first + begin) * FRAME / SAMPLE_RATE,
                self._samples[begin * FRAME : end * FRAME].copy(),
                self.channel,
            )
            self._continues = in_speech
            self._samples, self._probabilities = self._samples[end * FRAME :], self._probabilities[end:]
            self._first += end
            if found:
                yield utterance


def _next_cut(probabilities: np.ndarray, longest: int, last: bool) -> tuple[int, int, bool] | None:
    """Where the first utterance of the buffer begins and ends (frames), and whether speech goes on there.

    None if that cannot be said before more is heard. What is before the end is done with; an utterance from n
    to n drops silence. probabilities: [frames]; last: nothing follows the buffer.
    """
    maybe = np.flatnonzero(probabilities > MAYBE_SPEECH)
    if not len(maybe):
        silence = len(probabilities) - (0 if last else MARGIN)
        return (silence, silence, False) if silence > 0 else None

    begin = max(0, maybe[0] - MARGIN)
    pauses = np.append(np.diff(maybe) - 1, len(probabilities) - 1 - maybe[-1])  # frames after each
    ends = np.flatnonzero(pauses >= LONG_PAUSE)
    if len(ends) or last:
        end = min(maybe[ends[0] if len(ends) else -1] + 1 + MARGIN, len(probabilities))
        if end - begin <= longest:
            return int(begin), int(end), False
    elif len(probabilities) - begin <= longest:
        return None

    earliest, latest = begin + longest // 2, begin + longest
    after = maybe + 1
    candidates = np.flatnonzero((after >= earliest) & (after < latest) & (pauses > 0))
    if len(candidates):
        pause = candidates[np.argmax(pauses[candidates])]
        end = after[pause] + min(pauses[pause] // 2, MARGIN)
    else:
        end = earliest + np.argmin(probabilities[earliest:latest])
    return int(begin), int(min(end, latest)), True


class SpeechDetector:
    """Silero VAD over one recording; it remembers what it heard before."""

    def __init__(self):
        self.context = np.zeros(CONTEXT, np.float32)
        self.h = np.zeros(STATE, np.float32)
        self.c = np.zeros(STATE, np.float32)
        self(np.zeros(PRELUDE_FRAMES * FRAME, np.float32))

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """The probability of speech [n] in each frame of samples [n × FRAME], float32 at 16 kHz."""
        if not len(samples):
            return np.empty(0, np.float32)
        heard = np.concatenate([self.context, samples])
        self.context = heard[-CONTEXT:]
        frames = np.lib.stride_tricks.sliding_window_view(heard, CONTEXT + FRAME)[::FRAME]
        inputs = {"input": np.ascontiguousarray(frames), "h": self.h, "c": self.c}
        probabilities, self.h, self.c = _silero().run(None, inputs)
        return probabilities


@cache
def _silero() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # too small a network for more
    path = Path(__file__).parent / "silero_vad" / "model.onnx"
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
