"""Voice activity detection: cuts a recording into utterances at its pauses and drops the rest.

Silero VAD (0.3 M parameters, MIT licence) gives a probability of speech for every 32 ms. An utterance ends at
a pause of LONG_PAUSE_SECONDS or, if it would become too long, at the longest pause in the second half of the
permitted length. Measurements: asr/silero_vad/README.md.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view

from asr.audio import SAMPLE_RATE

FRAME_SAMPLES = 512  # 32 ms; each frame gets one probability
CONTEXT_SAMPLES = 64  # before each frame, also input of the network
STATE_SHAPE = (1, 1, 128)  # of its LSTM
BATCH_FRAMES = 64  # frames (2 s) per call at most; the probabilities are the same in any batches
WARMUP_FRAMES = 8  # of silence before the recording, or words at its very start are missed

POSSIBLE_SPEECH = 0.3  # frames above this probability are kept
CERTAIN_SPEECH = 0.8  # frames above this probability count towards MIN_SPEECH_SECONDS
LONG_PAUSE_SECONDS = 1.5
MARGIN_SECONDS = 0.4  # kept before and after speech, whose soft first and last sounds look like silence
MIN_SPEECH_SECONDS = 0.13  # of certain speech; less is a click, a bark or a cough


LONG_PAUSE_FRAMES, MARGIN_FRAMES, MIN_SPEECH_FRAMES = (
    round(seconds * SAMPLE_RATE / FRAME_SAMPLES)
    for seconds in (LONG_PAUSE_SECONDS, MARGIN_SECONDS, MIN_SPEECH_SECONDS)
)


@dataclass(frozen=True)
class Utterance:
    """A span of speech: its start in seconds and its samples, float32 [samples] at 16 kHz.

    channel: "left" or "right", or None for the mix of all channels.
    """

    start: float
    samples: np.ndarray
    channel: str | None = None

    @property
    def end(self) -> float:
        """In seconds."""
        return self.start + len(self.samples) / SAMPLE_RATE

    @property
    def span(self) -> tuple[float, float]:
        """Start and end."""
        return self.start, self.end


def cut_utterances(blocks: Iterable[np.ndarray], max_seconds: float = 24.0) -> Iterator[Utterance]:
    """Yields the utterances of a recording in order, each as soon as its end is known.

    Utterances do not overlap, and their samples are unchanged. Silence and noise give no utterance.

    Args:
      blocks: consecutive float32 [samples] at 16 kHz, of any lengths (asr.audio.read_blocks); the result does
        not depend on the block boundaries.
      max_seconds: longest utterance, at least 2 s. A block, and LONG_PAUSE_SECONDS more than this, are kept
        in memory.

    Raises ValueError if `max_seconds` is less than 2.
    """
    cutter = Cutter(max_seconds)
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.finish()


class Cutter:
    """`cut_utterances` for blocks that are pushed one by one. What is cut does not depend on the blocks."""

    def __init__(self, max_seconds: float = 24.0, channel: str | None = None):
        if max_seconds < 2:
            raise ValueError(f"max_seconds is {max_seconds}; it must be at least 2")
        self.channel = channel
        self._longest = int(max_seconds * SAMPLE_RATE) // FRAME_SAMPLES
        self._detector = SpeechDetector()
        self._unscored = np.empty(0, np.float32)
        self._samples = np.empty(0, np.float32)
        self._probabilities = np.empty(0, np.float32)
        self._first = 0  # frame at which the buffer starts
        self._continues = False  # whether the previous utterance was cut only for its length

    @property
    def done_seconds(self) -> float:
        """The time before which no further utterance starts."""
        return self._first * FRAME_SAMPLES / SAMPLE_RATE

    def push(self, block: np.ndarray) -> Iterator[Utterance]:
        """The utterances that are complete with this block [samples]."""
        self._unscored = np.concatenate([self._unscored, block])
        while frames := min(len(self._unscored) // FRAME_SAMPLES, BATCH_FRAMES):
            size = frames * FRAME_SAMPLES
            batch, self._unscored = self._unscored[:size], self._unscored[size:]
            yield from self._cut(batch, self._detector(batch), last=False)

    def finish(self) -> Iterator[Utterance]:
        """The remaining utterances, at the end of the recording."""
        rest = self._unscored
        yield from self._cut(rest, self._detector(np.pad(rest, (0, -len(rest) % FRAME_SAMPLES))), last=True)

    def unfinished(self) -> tuple[Utterance, bool] | None:
        """The utterance that is being spoken, as it would be if no more speech came; None if there is none.

        And whether a pause has begun, so that silence will not change these samples.
        """
        possible = np.flatnonzero(self._probabilities > POSSIBLE_SPEECH)
        if not len(possible):
            return None
        begin, end = max(0, int(possible[0]) - MARGIN_FRAMES), int(possible[-1]) + 1 + MARGIN_FRAMES
        if not self._is_speech(begin, end):
            return None
        return self._utterance(begin, end), end <= len(self._probabilities)

    def _cut(self, samples: np.ndarray, probabilities: np.ndarray, last: bool) -> Iterator[Utterance]:
        self._samples = np.concatenate([self._samples, samples])
        self._probabilities = np.concatenate([self._probabilities, probabilities])
        while cut := _next_cut(self._probabilities, self._longest, last):
            begin, end, in_speech = cut
            found = self._utterance(begin, end) if self._is_speech(begin, end) else None
            self._continues = in_speech
            self._samples = self._samples[end * FRAME_SAMPLES :]
            self._probabilities = self._probabilities[end:]
            self._first += end
            if found:
                yield found

    def _is_speech(self, begin: int, end: int) -> bool:
        speech = np.count_nonzero(self._probabilities[begin:end] > CERTAIN_SPEECH)
        return speech >= MIN_SPEECH_FRAMES or (self._continues and begin == 0 and speech > 0)

    def _utterance(self, begin: int, end: int) -> Utterance:
        start = (self._first + begin) * FRAME_SAMPLES / SAMPLE_RATE
        return Utterance(
            start, self._samples[begin * FRAME_SAMPLES : end * FRAME_SAMPLES].copy(), self.channel
        )


def _next_cut(probabilities: np.ndarray, longest: int, last: bool) -> tuple[int, int, bool] | None:
    """First and end frame of the next utterance in the buffer, and whether speech continues at its end.

    None if more frames are needed. Everything before the end is finished; an empty utterance drops silence.
    probabilities: [frames]; last: whether the recording ends with the buffer.
    """
    possible = np.flatnonzero(probabilities > POSSIBLE_SPEECH)
    if not len(possible):
        silence = len(probabilities) - (0 if last else MARGIN_FRAMES)
        return (silence, silence, False) if silence > 0 else None

    begin = max(0, possible[0] - MARGIN_FRAMES)
    pauses = np.append(np.diff(possible) - 1, len(probabilities) - 1 - possible[-1])  # frames after each
    ends = np.flatnonzero(pauses >= LONG_PAUSE_FRAMES)
    if len(ends) or last:
        end = min(possible[ends[0] if len(ends) else -1] + 1 + MARGIN_FRAMES, len(probabilities))
        if end - begin <= longest:
            return int(begin), int(end), False
    elif len(probabilities) - begin < longest + LONG_PAUSE_FRAMES:  # a pause at the end may become a long one
        return None

    earliest, latest = begin + longest // 2, begin + longest
    after = possible + 1
    candidates = np.flatnonzero((after >= earliest) & (after < latest) & (pauses > 0))
    if len(candidates):
        pause = candidates[np.argmax(pauses[candidates])]
        end = after[pause] + min(pauses[pause] // 2, MARGIN_FRAMES)
    else:
        end = earliest + np.argmin(probabilities[earliest:latest])
    return int(begin), int(min(end, latest)), True


class SpeechDetector:
    """Silero VAD on one recording; keeps the state between calls."""

    def __init__(self):
        self.context = np.zeros(CONTEXT_SAMPLES, np.float32)
        self.h = np.zeros(STATE_SHAPE, np.float32)
        self.c = np.zeros(STATE_SHAPE, np.float32)
        self(np.zeros(WARMUP_FRAMES * FRAME_SAMPLES, np.float32))

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Probability of speech [n] in each frame of samples [n × FRAME_SAMPLES], float32 at 16 kHz."""
        if not len(samples):
            return np.empty(0, np.float32)
        samples = np.concatenate([self.context, samples])
        self.context = samples[-CONTEXT_SAMPLES:]
        frames = sliding_window_view(samples, CONTEXT_SAMPLES + FRAME_SAMPLES)[::FRAME_SAMPLES]
        inputs = {"input": np.ascontiguousarray(frames), "h": self.h, "c": self.c}
        probabilities, self.h, self.c = _silero().run(None, inputs)
        return probabilities


@cache
def _silero() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the network is too small for more
    path = Path(__file__).parent / "silero_vad" / "model.onnx"
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
