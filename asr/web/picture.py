"""Picture of part of a recording: waveform above log-mel spectrogram, with the words at their times."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np

from asr.audio import SAMPLE_RATE
from asr.transcript import Word
from asr.web.markup import band_of, percent

PIXELS_PER_SECOND = 150  # enough for the letters of an English word
WINDOW_SAMPLES = 400  # 25 ms
HOP_SAMPLES = 160  # 10 ms
MELS = 80
RANGE_DB = 70  # below the loudest point; anything quieter is drawn as silence
WAVE_HEIGHT = 100  # SVG units, scaled by the page
BARS_PER_SECOND = 80


def picture_html(samples: np.ndarray, start_seconds: float, words: Sequence[Word]) -> str:
    """Waveform and log-mel of `samples` (float32 [samples], 16 kHz), which begin at `start_seconds`.

    Both take their colour from the page's style sheet, so they fit light and dark mode: the waveform is a
    filled path, the log-mel a mask.
    """
    duration = len(samples) / SAMPLE_RATE
    mask = base64.b64encode(_mask_png(log_mel_db(samples))).decode()
    end_seconds = start_seconds + duration
    nexts = [*(word.start for word in words[1:]), end_seconds]  # a label ends where the next word starts
    marks = "".join(
        _mark_html(word, next - word.start, start_seconds, duration)
        for word, next in zip(words, nexts, strict=False)
    )
    ticks = "".join(
        f'<i class="tick" style="left:{_percent_of(second - start_seconds, duration)}">{second} s</i>'
        for second in range(int(np.ceil(start_seconds)), int(end_seconds) + 1)
    )
    return (
        f'<figure class="picture"><figcaption>Waveform and log-mel spectrogram of '
        f"{start_seconds:.1f}–{end_seconds:.1f} s</figcaption>"
        '<div class="scroll" tabindex="0" role="group" aria-label="Picture of the sound with its words">'
        f'<div class="drawing" data-from="{start_seconds:.3f}" data-to="{end_seconds:.3f}" '
        f'style="width:{duration * PIXELS_PER_SECOND:.0f}px">'
        f'<svg viewBox="0 0 {_bars(samples)} {WAVE_HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path d="{_wave_path(samples)}"/></svg>'
        f'<div class="mel" style="--mel:url(data:image/png;base64,{mask})"></div>'
        f'{marks}{ticks}<i class="playhead"></i></div></div></figure>'
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
    image = Image.merge("LA", (Image.new("L", alpha.size, 0), alpha))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _bars(samples: np.ndarray) -> int:
    return max(1, len(samples) * BARS_PER_SECOND // SAMPLE_RATE)


def _wave_path(samples: np.ndarray) -> str:
    """SVG path of one vertical bar per 1/80 s, as high as its peak; the loudest fills the height."""
    per_bar = SAMPLE_RATE // BARS_PER_SECOND
    whole = samples[: _bars(samples) * per_bar]
    peaks = np.abs(np.pad(whole, (0, -len(whole) % per_bar))).reshape(-1, per_bar).max(axis=1)
    heights = np.maximum(1.0, WAVE_HEIGHT * peaks / max(float(peaks.max()), 1e-4))
    middle = WAVE_HEIGHT / 2
    return "".join(
        f"M{bar} {middle - height / 2:.1f}h.6v{height:.1f}h-.6z" for bar, height in enumerate(heights)
    )


def _mark_html(word: Word, room_seconds: float, start_seconds: float, duration: float) -> str:
    band = band_of(word.confidence)
    left, width = _percent_of(word.start - start_seconds, duration), _percent_of(room_seconds, duration)
    return (
        f'<span class="mark {band.css_class}" data-start="{word.start:.2f}" '
        f'style="left:{left};width:{width}" '
        f'title="{word.start:.2f}–{word.end:.2f} s · {percent(word.confidence)}">{escape(word.text)}</span>'
    )


def _percent_of(seconds: float, duration: float) -> str:
    return f"{100 * seconds / duration:.3f}%"
