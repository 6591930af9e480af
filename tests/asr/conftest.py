"""An engine that recognises a synthetic voice, for end-to-end tests without a model."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from asr.engine import Encoding, Engine
from asr.recognizer import Recognizer
from asr.tokenizer import Tokenizer
from tests import voice

STEP_SECONDS = 0.04
STEP = round(STEP_SECONDS * voice.SAMPLE_RATE)
UNITS = Tokenizer.characters()
FIRST_TONE, TONE_SPACING = 4500.0, 100.0  # Hz: above the voice, with whole periods per step
TONES_HZ = {symbol: FIRST_TONE + TONE_SPACING * id for id, symbol in enumerate(UNITS.symbols) if symbol}


class ToneEngine(Engine):
    """Recognises the tones of `voice.speak`: probability 0.9 for the loudest, or else for the blank."""

    def __init__(self):
        pass  # no graph

    def encode(self, samples: np.ndarray) -> Encoding:
        steps = np.pad(samples, (0, -len(samples) % STEP)).reshape(-1, STEP)
        spectrum = np.abs(np.fft.rfft(steps * np.hanning(STEP), axis=1))
        tones = FIRST_TONE + TONE_SPACING * np.arange(UNITS.size)
        loudness = spectrum[:, np.round(tones * STEP_SECONDS).astype(int)]
        best = np.where(loudness.max(axis=1) > 1.0, loudness.argmax(axis=1), 0)
        probabilities = np.full((len(steps), UNITS.size), 0.1 / (UNITS.size - 1), np.float32)
        probabilities[np.arange(len(steps)), best] = 0.9
        return Encoding(np.log(probabilities), None, len(samples) / voice.SAMPLE_RATE)


@pytest.fixture(scope="session")
def speak() -> Callable[..., np.ndarray]:
    """`speak("hello", 2.5, "world")`: 16 kHz samples of texts and pauses in seconds, with faint noise."""

    def said(*parts: str | float) -> np.ndarray:
        sounds = [
            voice.speak(part, TONES_HZ)
            if isinstance(part, str)
            else np.zeros(round(part * voice.SAMPLE_RATE))
            for part in parts
        ]
        samples = np.concatenate(sounds)
        return (samples + np.random.default_rng(0).normal(0, 1e-4, len(samples))).astype(np.float32)

    return said


def tone_recognizer() -> Recognizer:
    bundle = SimpleNamespace(
        name="tones",
        directory=Path("tones"),
        tokenizer=Tokenizer.characters("english"),
        step_seconds=STEP_SECONDS,
        config={},
        has_language_model=False,
        has_ctc=True,
        vocabulary=None,
    )
    return Recognizer(bundle, ToneEngine())


@pytest.fixture
def recognizer() -> Recognizer:
    """A recogniser of the voice that `speak` makes."""
    return tone_recognizer()
