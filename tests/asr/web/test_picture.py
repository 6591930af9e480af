import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from asr.audio import SAMPLE_RATE
from asr.transcript import Word
from asr.web.picture import HOP_SAMPLES, MELS, log_mel_db, picture_html


def _tone(hertz, seconds=1.0):
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return np.sin(2 * np.pi * hertz * time).astype(np.float32)


@pytest.mark.parametrize("hertz", [200, 1000, 5000])
def test_a_tone_is_loudest_in_its_band(hertz):
    import librosa

    decibels = log_mel_db(_tone(hertz))
    assert decibels.shape == (MELS, SAMPLE_RATE // HOP_SAMPLES + 1)
    assert decibels.max() == 0
    centres = librosa.mel_frequencies(MELS + 2, fmax=SAMPLE_RATE / 2)[1:-1]
    band = decibels[:, 10:-10].mean(axis=1).argmax()
    assert centres[max(band - 1, 0)] < hertz < centres[min(band + 1, MELS - 1)]


def test_words_and_sound_are_drawn_at_their_times():
    samples = np.concatenate([np.zeros(SAMPLE_RATE, np.float32), _tone(1000)])  # silence, then tone
    html = picture_html(samples, start_seconds=10.0, words=[Word("hum", 11.0, 12.0, 0.5)], doubtful_below=0.6)
    assert re.search(r'class="mark doubtful"[^>]*left:50.000%[^>]*>hum<', html)
    assert "10.0–12.0 s" in html
    png = re.search(r"base64,([^)]+)\)", html).group(1)
    opacity = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))[:, :, 1]
    half = opacity.shape[1] // 2
    assert opacity[:, : half - 5].max() == 0
    assert opacity[:, half + 5 :].max() == 255


@pytest.mark.parametrize("samples", [np.zeros(SAMPLE_RATE, np.float32), _tone(440, seconds=0.001)])
def test_silence_and_a_click_can_be_drawn(samples):
    html = picture_html(samples, 0.0, [], 0.0)
    assert "nan" not in html and "<path" in html
