"""training/augmentation.py: each change does what its name says, at random but repeatably."""

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import SAMPLE_RATE
from training.augmentation import (
    BABBLE_PEAK,
    CONDITIONS,
    GAIN_RANGE_DB,
    SILENCE_RANGE_SECONDS,
    SPEED_RANGE,
    add_noise,
    add_reverberation,
    augment,
    babble,
    change_gain,
    change_speed,
    degrade,
    longest,
    parse_condition,
    telephone,
    through_mp3,
)

ALWAYS = {"speed": 1.0, "reverb": 1.0, "noise": 1.0, "telephone": 1.0, "gain": 1.0, "silence": 1.0}
NEVER = dict.fromkeys(ALWAYS, 0.0)


def tone(hz: float, seconds: float = 1.0, level: float = 0.3) -> np.ndarray:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (level * np.sin(2 * np.pi * hz * time)).astype("float32")


def hiss(seconds: float = 1.0, level: float = 0.1) -> np.ndarray:
    random = np.random.default_rng(7)
    return (level * random.standard_normal(round(seconds * SAMPLE_RATE))).astype("float32")


def power_db(samples) -> float:
    return 10 * np.log10(np.mean(np.square(samples)))


def loudest_hz(samples) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * SAMPLE_RATE / len(samples)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_speed_changes_length_and_pitch(factor):
    faster = change_speed(tone(500), factor)
    assert len(faster) == pytest.approx(SAMPLE_RATE / factor, abs=2)
    assert loudest_hz(faster) == pytest.approx(500 * factor, abs=2)


def test_gain_is_in_decibels_and_clips():
    quiet = change_gain(tone(500), -20)
    assert power_db(quiet) - power_db(tone(500)) == pytest.approx(-20, abs=1e-3)
    assert np.abs(change_gain(tone(500), 40)).max() == 1


def test_every_voice_of_babble_is_equally_loud():
    voices = [tone(300, level=0.5), tone(500, seconds=0.3, level=0.01), tone(700, seconds=3)]
    sound = babble(voices, SAMPLE_RATE, np.random.default_rng(0))
    assert sound.shape == (SAMPLE_RATE,) and np.abs(sound).max() == pytest.approx(BABBLE_PEAK)
    spectrum = np.abs(np.fft.rfft(sound))[[300, 500, 700]]  # 1 Hz a bin
    assert spectrum.min() > 0.9 * spectrum.max()
    assert not babble([np.zeros(9, "float32")], 20, np.random.default_rng(0)).any()


@pytest.mark.parametrize("snr_db", [-5, 0, 20])
@pytest.mark.parametrize("noise_seconds", [0.3, 3.0])
def test_noise_has_the_ratio_asked_for(snr_db, noise_seconds):
    speech = tone(500)
    mixed = add_noise(speech, hiss(noise_seconds), snr_db, np.random.default_rng(0))
    assert len(mixed) == len(speech)
    assert power_db(speech) - power_db(mixed - speech) == pytest.approx(snr_db, abs=0.3)


def test_silent_noise_changes_nothing():
    mixed = add_noise(tone(500), np.zeros(100, "float32"), 10, np.random.default_rng(0))
    np.testing.assert_array_equal(mixed, tone(500))


def test_rooms_ring_for_the_time_asked_for():
    click = np.zeros(SAMPLE_RATE, "float32")
    click[100] = 0.5
    wet = add_reverberation(click, 0.5, 0.0, np.random.default_rng(0))
    assert power_db(wet) == pytest.approx(power_db(click), abs=0.1)  # as loud as before
    assert np.argmax(np.abs(wet)) == 100  # the direct sound has not moved
    early, late = power_db(wet[900:1700]), power_db(wet[4900:5700])  # 0.25 s apart
    assert early - late == pytest.approx(30, abs=3)


def test_telephones_pass_their_band():
    for hz, passes in ((100, False), (1000, True), (3900, False)):
        loss_db = power_db(tone(hz)) - power_db(telephone(tone(hz)))
        assert (loss_db < 1) == passes
        assert (loss_db > 6) == (not passes)
    assert len(telephone(tone(500)[:1001])) == 1001


def test_mp3_keeps_length_and_position():
    sound = tone(500)
    sound[: SAMPLE_RATE // 2] = 0
    coded = through_mp3(sound, 64)
    assert len(coded) == len(sound)
    assert power_db(coded - sound) < power_db(sound) - 15


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), seconds=st.floats(0.05, 1.0), shares=st.sampled_from([ALWAYS, NEVER]))
def test_augmented_sound_is_sound(seed, seconds, shares):
    speech = tone(500, seconds)
    sound = augment(speech, np.random.default_rng(seed), shares, [hiss()])
    assert sound.dtype == np.float32
    assert np.all(np.isfinite(sound))
    assert np.abs(sound).max() <= 1
    slow, fast = SPEED_RANGE
    silence = SILENCE_RANGE_SECONDS[1] * SAMPLE_RATE if shares is ALWAYS else 0
    assert len(speech) / fast - 1 <= len(sound) <= longest(np.array([len(speech)]), shares)[0]
    assert longest(np.array([len(speech)]), shares)[0] <= len(speech) / slow + 1 + silence
    np.testing.assert_array_equal(augment(speech, np.random.default_rng(seed), shares, [hiss()]), sound)
    if shares is NEVER:
        np.testing.assert_array_equal(sound, speech)


def test_shares_are_probabilities():
    speech, random = tone(500, 0.02, level=0.1), np.random.default_rng(0)
    shares = {**NEVER, "gain": 0.3}
    changed = [not np.array_equal(augment(speech, random, shares, []), speech) for _ in range(500)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.07)


def test_silence_follows_the_utterance():
    speech, random = tone(500, 0.02), np.random.default_rng(0)
    seconds = []
    for _ in range(200):
        sound = augment(speech, random, {**NEVER, "silence": 1.0}, [])
        np.testing.assert_array_equal(sound[: len(speech)], speech)
        assert not sound[len(speech) :].any()
        seconds.append((len(sound) - len(speech)) / SAMPLE_RATE)
    shortest, longest = SILENCE_RANGE_SECONDS
    assert shortest <= min(seconds) < max(seconds) <= longest
    assert np.mean(seconds) == pytest.approx((shortest + longest) / 2, abs=0.1 * longest)


def test_gains_stay_in_their_range():
    speech, random = tone(500, 0.02, level=0.1), np.random.default_rng(0)
    gains = [
        power_db(augment(speech, random, {**NEVER, "gain": 1.0}, [])) - power_db(speech) for _ in range(200)
    ]
    assert GAIN_RANGE_DB[0] <= min(gains) < max(gains) <= GAIN_RANGE_DB[1] + 1e-3


@pytest.mark.parametrize(
    "condition", ["clean", "noise:10", "reverb", "telephone", "gain:-12", "speed:1.1", "mp3:32"]
)
def test_conditions_are_repeatable(condition, tmp_path):
    soundfile.write(tmp_path / "hiss.wav", hiss(), SAMPLE_RATE)
    speech = tone(500)
    once = degrade(speech, "a", condition, [tmp_path / "hiss.wav"], 3)
    np.testing.assert_array_equal(degrade(speech, "a", condition, [tmp_path / "hiss.wav"], 3), once)
    assert np.array_equal(once, speech) == (condition == "clean")
    assert parse_condition(condition)[0] in {key.partition(":")[0] for key in CONDITIONS}


def test_conditions_depend_on_seed_and_utterance():
    speech = tone(500)
    once = degrade(speech, "a", "reverb", seed=1)
    assert not np.array_equal(once, degrade(speech, "b", "reverb", seed=1))
    assert not np.array_equal(once, degrade(speech, "a", "reverb", seed=2))


def test_noise_needs_recordings():
    with pytest.raises(ValueError, match="no recordings of noise"):
        degrade(tone(500), "a", "noise:10")


@pytest.mark.parametrize(
    "condition", ["", "nois:10", "noise", "noise:", "noise:loud", "clean:1", "speed:0", "mp3:-8"]
)
def test_unknown_conditions(condition):
    with pytest.raises(ValueError, match="is unknown: use one of clean, noise:DB"):
        parse_condition(condition)
