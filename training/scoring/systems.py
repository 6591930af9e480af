"""Lets a bundle hear references, under conditions, in batches of like length."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asr.audio import SAMPLE_RATE, AudioError
from asr.recognizer import Recognizer
from asr.transcript import Word
from training.scoring.degradation import CLEAN, degrade
from training.scoring.snr import estimate_snr_db
from training.scoring.transcripts import Heard, Reference, TimedWord, read_samples

WINDOW_SECONDS = 30.0  # what a model hears at once; longer utterances are cut at pauses, as in transcription
_BATCH = 16


@dataclass
class Hearing:
    """What a model heard.

    Attributes:
      heard: by id of the reference.
      unreadable: why, by id of the references whose sound cannot be read.
      snr_db: estimated from the sound as it was read, by id.
      speech_seconds: length of all that was heard.
      compute_seconds: time the model and the decoder took for it; reading and degrading not counted.
    """

    heard: dict[str, Heard] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    snr_db: dict[str, float] = field(default_factory=dict)
    speech_seconds: float = 0.0
    compute_seconds: float = 0.0


def hear(
    recognizer: Recognizer,
    references: Sequence[Reference],
    decoder: str | None = None,
    condition: str = CLEAN,
    noise_files: Sequence[Path] = (),
    seed: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Hearing:
    """Hears every reference whose sound can be read.

    An utterance up to WINDOW_SECONDS goes whole through the model: nothing is cut and nothing dropped as
    silence, so that the model answers for every second. A longer one is transcribed as a user's recording
    would be.

    Args:
      recognizer: the model.
      references: those without audio are unreadable.
      decoder: "greedy", "beam", or None for the bundle's own choice.
      condition, noise_files, seed: what happens to the sound, as in `training.scoring.degradation`.
      progress: wraps the batches; shows how far it is.
    """
    transcribe = utterance_transcriber(recognizer, decoder)
    hearing = Hearing()
    by_length = sorted(references, key=lambda one: (one.duration_seconds or 0.0, one.id))
    batches = [by_length[start : start + _BATCH] for start in range(0, len(by_length), _BATCH)]
    for batch in progress(batches):
        read = _read(batch, hearing)
        read = [(one, degrade(samples, one.id, condition, noise_files, seed)) for one, samples in read]
        hearing.speech_seconds += sum(len(samples) for _, samples in read) / SAMPLE_RATE
        began = time.perf_counter()
        words = transcribe([samples for _, samples in read])
        hearing.compute_seconds += time.perf_counter() - began
        for (one, _), spoken in zip(read, words, strict=True):
            timed = tuple(TimedWord(word.text, word.start, word.end, word.confidence) for word in spoken)
            hearing.heard[one.id] = Heard(" ".join(word.text for word in spoken), timed)
    return hearing


def utterance_transcriber(
    recognizer: Recognizer, decoder: str | None = None
) -> Callable[[Sequence[np.ndarray]], list[list[Word]]]:
    """A function from utterances, float32 [samples] each, to the words of each; reads a language model once.

    Utterances up to WINDOW_SECONDS go through the model in one batch.
    """
    decode = recognizer.decoder(decoder)

    def transcribe(utterances: Sequence[np.ndarray]) -> list[list[Word]]:
        rows = [row for row, samples in enumerate(utterances) if len(samples) <= WINDOW_SECONDS * SAMPLE_RATE]
        whole = recognizer.engine.log_probs([utterances[row] for row in rows]) if rows else []
        log_probs = dict(zip(rows, whole, strict=True))
        return [
            decode(log_probs[row])
            if row in log_probs
            else list(recognizer.transcribe((samples, SAMPLE_RATE), decoder=decoder).words)
            for row, samples in enumerate(utterances)
        ]

    return transcribe


def _read(references: Sequence[Reference], hearing: Hearing) -> Iterator[tuple[Reference, np.ndarray]]:
    for one in references:
        try:
            samples = read_samples(one)
        except AudioError as error:
            hearing.unreadable[one.id] = str(error)
        else:
            hearing.snr_db[one.id] = estimate_snr_db(samples)
            yield one, samples
