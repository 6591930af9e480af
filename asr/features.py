"""Log-mel features as a Keras layer: [batch, samples] → [batch, frames, mels]."""

import functools
from contextlib import nullcontext

import keras
import librosa
import numpy as np
from keras import ops

from asr.audio import SAMPLE_RATE
from asr.encoders.subsampling import mask_padding

N_FFT = 400  # 25 ms window
HOP_SAMPLES = 160  # 10 ms between frames
FRAME_SECONDS = HOP_SAMPLES / SAMPLE_RATE
POWER_FLOOR = 1e-10
SCALES = ("whisper", "natural", "standardized")
WHISPER_RANGE_LOG10 = 8.0  # Whisper clamps to 80 dB below the utterance's maximum
MIN_DEVIATION = 0.01  # a soft floor of a band's standard deviation, so that constant bands stay near 0


class LogMel(keras.layers.Layer):
    """Log-mel spectrogram of 16 kHz samples, always computed in float32.

    The short-time Fourier transform is a strided convolution with a windowed DFT basis; it exports to ONNX.
    An utterance of n samples has n // 160 frames; frame t is centred on sample 160 t. Samples are reflected
    before the start and zero after the end, as in Whisper (https://github.com/openai/whisper, audio.py).

    Args:
      mels: number of mel bands (Slaney's scale and norm).
      scale: "whisper": log10, clamped to 80 dB below the utterance's maximum, then (x + 4) / 4.
        "natural": natural logarithm of the mel power, floored at 1e-10.
        "standardized": Whisper's, then each band normalised to mean 0 and variance 1 over the utterance,
        which reduces differences between speakers and microphones: for models trained on few of them.

    Call with samples [batch, samples] (zeros after each utterance's end) and lengths [batch] in samples.
    Returns features [batch, samples // 160, mels], zero after each utterance's end, and lengths in frames.
    Raises ValueError for an unknown scale.
    """

    def __init__(self, mels: int = 80, scale: str = "whisper", **kwargs):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if scale not in SCALES:
            raise ValueError(f"scale is {scale!r}: use one of {', '.join(SCALES)}")
        self.mels = mels
        self.scale = scale
        self.trainable = False

    def call(self, samples, lengths):
        samples = ops.cast(samples, "float32")
        frame_lengths = ops.cast(lengths, "int32") // HOP_SAMPLES
        half = N_FFT // 2
        ended = ops.pad(samples, [[0, 0], [0, half]])  # first, so that a short batch can be reflected
        padded = ops.concatenate([ops.flip(ended[:, 1 : half + 1], axis=1), ended], axis=1)
        with in_float32():
            spectrum = ops.conv(padded[:, :, None], dft_basis(), strides=HOP_SAMPLES, padding="valid")
        spectrum = spectrum[:, : ops.shape(samples)[1] // HOP_SAMPLES]  # Whisper drops the last frame
        real, imaginary = ops.split(spectrum, 2, axis=-1)
        power = ops.square(real) + ops.square(imaginary)
        with in_float32():
            mel = ops.maximum(ops.matmul(power, mel_basis(self.mels)), POWER_FLOOR)
        if self.scale == "natural":
            return mask_padding(ops.log(mel), frame_lengths), frame_lengths
        log_mel = ops.log(mel) / np.float32(np.log(10))
        silence = np.float32(np.log10(POWER_FLOOR))
        # Exclude frames after the end from the maximum: their windows still reach into the speech.
        valid = mask_padding(log_mel - silence, frame_lengths) + silence
        loudest = ops.max(valid, axis=(1, 2), keepdims=True, initial=silence)
        log_mel = ops.maximum(log_mel, loudest - WHISPER_RANGE_LOG10)
        scaled = mask_padding((log_mel + 4.0) / 4.0, frame_lengths)
        if self.scale == "standardized":
            scaled = _standardized(scaled, frame_lengths)
        return scaled, frame_lengths


def in_float32():
    """A context in which JAX keeps all bits of float32 in products.

    Else a GPU rounds the factors to 10 bits, and soft sounds drown in the noise of loud ones.
    """
    if keras.backend.backend() != "jax":
        return nullcontext()
    import jax

    return jax.default_matmul_precision("highest")


def _standardized(x, lengths):
    """x [batch, frames, mels] with mean 0 and variance 1 per band over valid frames, and zeros after them."""
    count = ops.cast(ops.maximum(lengths, 1), "float32")[:, None, None]
    centred = mask_padding(x - ops.sum(x, axis=1, keepdims=True) / count, lengths)
    variance = ops.sum(ops.square(centred), axis=1, keepdims=True) / count
    return centred / ops.sqrt(variance + MIN_DEVIATION**2)


@functools.cache
def dft_basis() -> np.ndarray:
    """Hann-windowed cosines and sines, [N_FFT, 1, 2 × bins], computed in float64."""
    n = np.arange(N_FFT)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / N_FFT)
    phase = 2 * np.pi * ((n[:, None] * np.arange(N_FFT // 2 + 1)) % N_FFT) / N_FFT
    basis = window[:, None] * np.concatenate([np.cos(phase), np.sin(phase)], axis=1)
    return basis[:, None, :].astype("float32")


@functools.cache
def mel_basis(mels: int) -> np.ndarray:
    """Triangular filters, [bins, mels]."""
    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=mels).T.astype("float32")
