"""Recognises references with a bundle, under conditions."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asr.audio import SAMPLE_RATE, AudioError
from asr.recognizer import Recognizer
from asr.transcript import Word
from training.scoring.degradation import CLEAN, degrade
from training.scoring.snr import estimate_snr_db
from training.scoring.transcripts import Recognised, Reference, TimedWord, read_samples

WINDOW_SECONDS = 30.0  # what a model reads at once; longer utterances are cut at pauses, as in transcription


@dataclass
class Evaluation:
    """What a model recognised, and how fast.

    Attributes:
      recognised: by id of the reference.
      unreadable: why, by id of the references whose sound cannot be read.
      snr_db: estimated from the sound as it was read, by id.
      speech_seconds: length of all that was recognised.
      compute_seconds: time the model and the decoder took for it; reading and degrading not counted.
    """

    recognised: dict[str, Recognised] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    snr_db: dict[str, float] = field(default_factory=dict)
    speech_seconds: float = 0.0
    compute_seconds: float = 0.0


def recognise(
    recognizer: Recognizer,
    references: Sequence[Reference],
    decoder: str | None = None,
    condition: str = CLEAN,
    noise_files: Sequence[Path] = (),
    seed: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Evaluation:
    """Recognises every reference whose sound can be read.

    An utterance up to WINDOW_SECONDS goes whole through the model: nothing is cut and nothing dropped as
    silence, so that the model answers for every second. A longer one is transcribed as a user's recording
    would be.

    Args:
      recognizer: the model.
      references: those without audio are unreadable.
      decoder: "greedy", "beam", or None for the bundle's own choice.
      condition, noise_files, seed: what happens to the sound, as in `training.scoring.degradation`.
      progress: wraps the references; shows how far it is.
    """
    transcribe = utterance_transcriber(recognizer, decoder)
    found = Evaluation()
    for one in progress(references):
        try:
            samples = read_samples(one)
        except AudioError as error:
            found.unreadable[one.id] = str(error)
            continue
        found.snr_db[one.id] = estimate_snr_db(samples)
        samples = degrade(samples, one.id, condition, noise_files, seed)
        began = time.perf_counter()
        words = transcribe(samples)
        found.compute_seconds += time.perf_counter() - began
        found.speech_seconds += len(samples) / SAMPLE_RATE
        timed = tuple(TimedWord(word.text, word.start, word.end, word.confidence) for word in words)
        found.recognised[one.id] = Recognised(" ".join(word.text for word in words), timed)
    return found


def utterance_transcriber(
    recognizer: Recognizer, decoder: str | None = None
) -> Callable[[np.ndarray], list[Word]]:
    """A function from an utterance, float32 [samples], to its words; reads a language model once.

    Each goes through the model alone, as a user's would: an 8-bit graph scales activations by all of a batch,
    so that neighbours would change what is recognised.
    """
    decode = recognizer.decoder(decoder)

    def transcribe(samples: np.ndarray) -> list[Word]:
        if len(samples) <= WINDOW_SECONDS * SAMPLE_RATE:
            return decode(recognizer.engine.log_probs(samples))
        return list(recognizer.transcribe((samples, SAMPLE_RATE), decoder=decoder).words)

    return transcribe
