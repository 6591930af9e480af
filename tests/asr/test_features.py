"""asr/features.py against librosa, on synthetic speech."""

import keras
import librosa
import numpy as np
import pytest
from keras import ops

from asr.audio import SAMPLE_RATE
from asr.features import HOP_SAMPLES, MIN_DEVIATION, N_FFT, SCALES, LogMel

TOLERANCE = 1e-4
FORMANTS_HZ = (700, 1200, 2600)


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """Harmonics of varying pitch with formants, pauses and faint noise: float32 [samples]."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch_hz = 120 + 20 * np.sin(2 * np.pi * 0.8 * time + seed)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE
    sound = 0.002 * random.standard_normal(len(time))
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * time), 0, 1)
    for harmonic in range(1, 40):
        level = sum(1 / (1 + ((harmonic * 120 - formant) / 100) ** 2) for formant in FORMANTS_HZ)
        sound += 0.1 * level * syllables * np.sin(harmonic * phase)
    return sound.astype("float32")


def librosa_features(samples: np.ndarray, mels: int, scale: str) -> np.ndarray:
    half = N_FFT // 2
    padded = np.pad(np.pad(samples, (half, 0), mode="reflect"), (0, half))
    mel = librosa.feature.melspectrogram(
        y=padded, sr=SAMPLE_RATE, n_fft=N_FFT, hop_length=HOP_SAMPLES, n_mels=mels, center=False
    )
    mel = np.maximum(mel[:, : len(samples) // HOP_SAMPLES], 1e-10).T
    if scale == "natural":
        return np.log(mel)
    log_mel = np.log10(mel)
    return (np.maximum(log_mel, log_mel.max() - 8.0) + 4.0) / 4.0


def features_of(layer, sounds, padding=0):
    lengths = np.int32([len(sound) for sound in sounds])
    samples = np.zeros((len(sounds), lengths.max() + padding), "float32")
    for row, sound in zip(samples, sounds, strict=True):
        row[: len(sound)] = sound
    features, frames = layer(samples, lengths)
    return ops.convert_to_numpy(features), ops.convert_to_numpy(frames)


@pytest.mark.parametrize("scale", ["whisper", "natural"])
@pytest.mark.parametrize("mels", [80, 40])
def test_equals_librosa(scale, mels):
    sound = voice(1.3)
    features, frames = features_of(LogMel(mels, scale), [sound])
    assert frames[0] == len(sound) // HOP_SAMPLES
    expected = librosa_features(sound, mels, scale)
    # In nearly silent bands the float32 rounding error of the loud ones dominates.
    audible = expected > expected.max() - (2.0 if scale == "whisper" else np.log(1e8))
    assert audible.mean() > 0.9
    np.testing.assert_allclose(features[0][audible], expected[audible], atol=TOLERANCE, rtol=TOLERANCE)


def test_each_band_is_standardized():
    sound = voice(1.3)
    features, _ = features_of(LogMel(scale="standardized"), [sound])
    whisper, _ = features_of(LogMel(scale="whisper"), [sound])
    deviation = np.sqrt(whisper[0].std(axis=0) ** 2 + MIN_DEVIATION**2)
    expected = (whisper[0] - whisper[0].mean(axis=0)) / deviation
    np.testing.assert_allclose(features[0], expected, atol=1e-3)
    assert np.abs(features[0].mean(axis=0)).max() < 1e-3
    assert 0.9 < features[0].std(axis=0).min() <= features[0].std(axis=0).max() < 1.001
    silence, _ = features_of(LogMel(scale="standardized"), [np.zeros(4000, "float32")])
    np.testing.assert_allclose(silence, 0, atol=1e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_padding_changes_nothing(scale):
    layer = LogMel(scale=scale)
    sounds = [voice(0.8), 0.01 * voice(0.31, seed=1), voice(1, seed=2)[:180], voice(1, seed=3)[:1601]]
    together, frames = features_of(layer, sounds, padding=777)
    for i, sound in enumerate(sounds):
        alone, alone_frames = features_of(layer, [sound])
        assert frames[i] == alone_frames[0] == len(sound) // HOP_SAMPLES
        np.testing.assert_allclose(together[i, : frames[i]], alone[0], atol=TOLERANCE)
        assert not np.any(together[i, frames[i] :])


def test_sound_behind_the_last_frame_does_not_count():
    """The frame after the last one still looks into the utterance, and may not make it quieter."""
    samples = 1e-4 * voice(0.5)[: 40 * HOP_SAMPLES - 1]  # 39 frames; the last window ends at sample 6,280
    samples[39 * HOP_SAMPLES + 60 :] = 0.5 * np.sin(np.arange(99) / 2)
    layer = LogMel()
    alone, _ = features_of(layer, [samples])
    padded, frames = features_of(layer, [samples], padding=1000)
    assert alone.shape[1] == frames[0] == 39
    np.testing.assert_allclose(padded[0, :39], alone[0], atol=TOLERANCE)
    assert alone.max() < 0.5  # the loud end is in none of them


def test_less_than_a_frame_and_silence():
    features, frames = features_of(LogMel(), [np.zeros(1, "float32")])
    assert features.shape == (1, 0, 80)
    assert frames[0] == 0
    features, _ = features_of(LogMel(), [np.zeros(3200, "float32")])
    np.testing.assert_allclose(features, (np.log10(1e-10) + 4) / 4, atol=1e-6)


def test_float32_under_mixed_precision():
    sound = voice(0.5)
    expected, _ = features_of(LogMel(), [sound])
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        layer = LogMel()
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    features, _ = features_of(layer, [sound])
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, expected)


def test_configuration_and_shapes():
    layer = LogMel(mels=24, scale="natural")
    again = LogMel.from_config(layer.get_config())
    sound = voice(0.2)
    np.testing.assert_array_equal(features_of(again, [sound])[0], features_of(layer, [sound])[0])
    assert not layer.weights
    with pytest.raises(ValueError, match="scale is 'db': use one of whisper, natural, standardized"):
        LogMel(scale="db")
