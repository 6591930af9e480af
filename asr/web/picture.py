"""Picture of part of a recording: waveform above log-mel spectrogram, with the words at their times."""

import base64
import io
import math
from collections.abc import Sequence

import numpy as np

from asr.audio import SAMPLE_RATE
from asr.transcript import Word
from asr.web.markup import html

PIXELS_PER_SECOND = 150  # enough for the letters of an English word
WINDOW_SAMPLES = 400  # 25 ms
HOP_SAMPLES = 160  # 10 ms
MELS = 80
RANGE_DB = 70  # below the loudest point; anything quieter is drawn as silence
WAVE_HEIGHT = 100  # SVG units, scaled by the page
BAR_SAMPLES = SAMPLE_RATE // 80


def picture_html(
    samples: np.ndarray, start_seconds: float, words: Sequence[Word], doubtful_below: float
) -> str:
    """Waveform and log-mel of `samples` (float32 [samples], 16 kHz), which begin at `start_seconds`.

    Words with a confidence below `doubtful_below` are marked.
    """
    duration = len(samples) / SAMPLE_RATE
    end_seconds = start_seconds + duration
    nexts = [*(word.start for word in words[1:]), end_seconds]  # a label ends where the next word starts
    bars = max(1, len(samples) // BAR_SAMPLES)
    return html.picture(
        start_seconds,
        duration,
        width=duration * PIXELS_PER_SECOND,
        bars=bars,
        height=WAVE_HEIGHT,
        wave=_wave_path(samples[: bars * BAR_SAMPLES]),
        mel=base64.b64encode(_mask_png(log_mel_db(samples))).decode(),
        marks=[(word, next - word.start) for word, next in zip(words, nexts, strict=False)],
        doubtful_below=doubtful_below,
        ticks=range(math.ceil(start_seconds), int(end_seconds) + 1),
    )


def log_mel_db(samples: np.ndarray) -> np.ndarray:
    """Log-mel spectrogram in dB relative to its loudest point, float [mels, frames], for display only.

    The model's features are in asr.features, which needs Keras; the page runs without it.
    """
    from librosa.filters import mel  # takes a second to import

    padded = np.pad(samples, WINDOW_SAMPLES // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW_SAMPLES))) ** 2
    mel_power = mel(sr=SAMPLE_RATE, n_fft=WINDOW_SAMPLES, n_mels=MELS) @ power.T
    decibels = 10 * np.log10(np.maximum(mel_power, 1e-10))
    return decibels - decibels.max()


def _mask_png(decibels: np.ndarray) -> bytes:
    """PNG with the level as opacity, low frequencies at the bottom. Pillow comes with Gradio."""
    from PIL import Image

    opacity = np.clip(1 + decibels[::-1] / RANGE_DB, 0, 1) ** 1.5  # the exponent dims the background
    alpha = Image.fromarray((255 * opacity).astype(np.uint8))
    file = io.BytesIO()
    Image.merge("LA", (Image.new("L", alpha.size, 0), alpha)).save(file, "PNG")
    return file.getvalue()


def _wave_path(samples: np.ndarray) -> str:
    """SVG path of one vertical bar per 1/80 s, as high as its peak; the loudest fills the height."""
    peaks = np.abs(np.pad(samples, (0, -len(samples) % BAR_SAMPLES))).reshape(-1, BAR_SAMPLES).max(axis=1)
    heights = np.maximum(1.0, WAVE_HEIGHT * peaks / max(float(peaks.max()), 1e-4))
    return "".join(
        f"M{bar} {(WAVE_HEIGHT - height) / 2:.1f}h.6v{height:.1f}h-.6z" for bar, height in enumerate(heights)
    )
