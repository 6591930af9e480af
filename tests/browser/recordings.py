"""Recordings for the page, and how they get there."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio import SAMPLE_RATE

expect = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright").expect

# Position of the player, and whether it is paused.
PLAYER = """() => {
  const audio = document.querySelector('#sound #waveform > div').shadowRoot.querySelector('audio');
  return { seconds: audio.currentTime, paused: audio.paused };
}"""


def noise(seconds: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.5, 0.5, seconds * SAMPLE_RATE)


def write(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples, SAMPLE_RATE)
    return path


def upload(page, path):
    page.set_input_files("#sound input[type=file]", path)


def transcribe(page, path):
    upload(page, path)
    expect(page.locator(".saving")).to_be_visible()
