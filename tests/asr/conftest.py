"""A voice made by code and an engine that hears it, so that a clone alone can walk the whole road."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from asr.recognizer import Recognizer
from asr.tokenizer import Tokenizer

SAMPLE_RATE = 16_000
STEP_SECONDS = 0.04
STEP = round(STEP_SECONDS * SAMPLE_RATE)
UNITS = Tokenizer.characters()
FIRST_TONE, TONE_SPACING = 4500.0, 100.0  # Hz: above the voice, and whole periods a step
FORMANTS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480))  # Hz, of 4 vowels


def _speak(text: str) -> np.ndarray:
    """A voice of 120 ms a character, which a voice detector takes for one, with tones that spell the text."""
    seconds = np.arange(3 * STEP * len(text)) / SAMPLE_RATE
    pitch = 120 + 15 * np.sin(2 * np.pi * 0.7 * seconds)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    formants = np.array(FORMANTS)[(4 * seconds).astype(int) % len(FORMANTS)]
    voice = np.zeros(len(seconds))
    for harmonic in range(1, 30):
        distance = (harmonic * pitch[:, None] - formants) / 90
        voice += (np.array([1, 0.5, 0.25]) / (1 + distance**2)).sum(axis=1) * np.sin(harmonic * phase)
    voice *= 0.15 + 0.85 * np.sin(4 * np.pi * seconds) ** 2
    voice *= 0.2 / np.abs(voice).max()
    for index, id in enumerate(UNITS.encode(text)):
        spoken = slice((3 * index + 1) * STEP, (3 * index + 2) * STEP)
        voice[spoken] += 0.05 * np.sin(2 * np.pi * (FIRST_TONE + TONE_SPACING * id) * seconds[spoken])
    return voice.astype(np.float32)


class ToneEngine:
    """Hears the tones of `_speak`: probability 0.9 for the loudest, or for the blank where there is none."""

    def log_probs(self, batch: list[np.ndarray]) -> list[np.ndarray]:
        return [self._log_probs(samples) for samples in batch]

    def _log_probs(self, samples: np.ndarray) -> np.ndarray:
        steps = np.pad(samples, (0, -len(samples) % STEP)).reshape(-1, STEP)
        spectrum = np.abs(np.fft.rfft(steps * np.hanning(STEP), axis=1))
        tones = FIRST_TONE + TONE_SPACING * np.arange(UNITS.size)
        loudness = spectrum[:, np.round(tones * STEP_SECONDS).astype(int)]
        best = np.where(loudness.max(axis=1) > 1.0, loudness.argmax(axis=1), 0)
        probabilities = np.full((len(steps), UNITS.size), 0.1 / (UNITS.size - 1), np.float32)
        probabilities[np.arange(len(steps)), best] = 0.9
        return np.log(probabilities)


@pytest.fixture(scope="session")
def speak() -> Callable[..., np.ndarray]:
    """`speak("hello", 2.5, "world")`: samples at 16 kHz of texts, pauses in seconds, and a faint hiss."""

    def said(*parts: str | float) -> np.ndarray:
        sounds = [
            _speak(part) if isinstance(part, str) else np.zeros(round(part * SAMPLE_RATE)) for part in parts
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
    )
    return Recognizer(bundle, ToneEngine())


@pytest.fixture
def recognizer() -> Recognizer:
    """A recogniser of the voice that `speak` makes."""
    return tone_recognizer()
