"""A synthetic voice that passes voice detection, with tones above it that encode a text."""

from collections.abc import Mapping

import numpy as np

SAMPLE_RATE = 16_000
CHARACTER_SECONDS = 0.12
TONE_SECONDS = 0.04  # in the middle of its character
FORMANTS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480))  # Hz, of 4 vowels
HIGHEST_VOICE_HZ = 4_200


def speak(text: str, tones_hz: Mapping[str, float], level: float = 0.05) -> np.ndarray:
    """float32 samples at 16 kHz of a voice that lasts 0.12 s a character.

    Args:
      tones_hz: of each character, above HIGHEST_VOICE_HZ; best with whole periods in TONE_SECONDS.
      level: of the tones.
    """
    seconds = np.arange(round(CHARACTER_SECONDS * SAMPLE_RATE) * len(text)) / SAMPLE_RATE
    pitch = 120 + 15 * np.sin(2 * np.pi * 0.7 * seconds)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    formants = np.array(FORMANTS)[(4 * seconds).astype(int) % len(FORMANTS)]
    voice = np.zeros(len(seconds))
    for harmonic in range(1, 30):
        distance = (harmonic * pitch[:, None] - formants) / 90
        voice += (np.array([1, 0.5, 0.25]) / (1 + distance**2)).sum(axis=1) * np.sin(harmonic * phase)
    voice *= 0.15 + 0.85 * np.sin(4 * np.pi * seconds) ** 2
    voice *= 0.2 / np.abs(voice).max()
    for index, character in enumerate(text):
        start = round((index * CHARACTER_SECONDS + TONE_SECONDS) * SAMPLE_RATE)
        spoken = slice(start, start + round(TONE_SECONDS * SAMPLE_RATE))
        voice[spoken] += level * np.sin(2 * np.pi * tones_hz[character] * seconds[spoken])
    return voice.astype(np.float32)
