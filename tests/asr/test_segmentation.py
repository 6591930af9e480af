"""asr/segmentation.py on synthetic voices at known times, and on real speech and noise if available."""

import json
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter1d
from scipy.signal import lfilter

from asr.audio import SAMPLE_RATE, load_audio
from asr.segmentation import (
    CERTAIN_SPEECH,
    FRAME_SAMPLES,
    MIN_SPEECH_FRAMES,
    Cutter,
    SpeechDetector,
    Utterance,
    cut_utterances,
)

VOWELS = [(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410)]  # Hz
BANDWIDTHS = (80, 90, 120)  # Hz
SYLLABLE_SECONDS = 0.18
NOISE_FLOOR = 1e-4


def voice(seconds: float, level: float = 0.1, seed: int = 3) -> np.ndarray:
    """A sequence of vowels, float32 with the given RMS level: pulses of varying pitch through formants."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * t) + 10 * np.sin(2 * np.pi * 2.3 * t)
    source = np.diff(np.floor(np.cumsum(pitch) / SAMPLE_RATE), prepend=0) + 0.02 * random.standard_normal(
        len(t)
    )
    spoken = np.zeros(len(t))
    step = round(SYLLABLE_SECONDS * SAMPLE_RATE)
    for start in range(0, len(t), step):
        syllable = source[start : start + step + 400]
        for formant, bandwidth in zip(VOWELS[random.integers(len(VOWELS))], BANDWIDTHS, strict=True):
            radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
            poles = [1, -2 * radius * np.cos(2 * np.pi * formant / SAMPLE_RATE), radius**2]
            syllable = lfilter([1 - radius], poles, syllable)
        ramp = np.arange(len(syllable))
        spoken[start : start + len(syllable)] += syllable * np.minimum(1, np.minimum(ramp, ramp[::-1]) / 500)
    return (spoken / spoken.std() * level).astype(np.float32)


def hush(seconds: float, level: float = NOISE_FLOOR, seed: int = 0) -> np.ndarray:
    """White noise of the given RMS level, float32."""
    random = np.random.default_rng(seed)
    return level * random.standard_normal(round(seconds * SAMPLE_RATE), dtype=np.float32)


def utterances_of(samples: np.ndarray, **options) -> list[Utterance]:
    return list(cut_utterances([samples], **options))


def spans(utterances: list[Utterance]) -> list[tuple[int, int]]:
    """First sample and end sample of each utterance."""
    starts = [round(utterance.start * SAMPLE_RATE) for utterance in utterances]
    return [(start, start + len(u.samples)) for start, u in zip(starts, utterances, strict=True)]


def test_voices_are_found_where_they_are():
    recording = np.concatenate([hush(2), voice(3), hush(4), voice(2), hush(5), voice(1), hush(2)])
    utterances = utterances_of(recording)
    found = [(u.start, u.start + len(u.samples) / SAMPLE_RATE) for u in utterances]
    expected = [(2, 5), (9, 11), (16, 17)]
    assert len(found) == len(expected)
    for (start, end), (voice_start, voice_end) in zip(found, expected, strict=True):
        assert voice_start - 0.5 < start < voice_start
        assert voice_end < end < voice_end + 0.6


def test_a_short_pause_cuts_nothing():
    assert len(utterances_of(np.concatenate([voice(3), hush(0.8), voice(3)]))) == 1


@pytest.mark.parametrize("level", [0.3, 0.1, 0.01])  # the last is -40 dBFS
@pytest.mark.parametrize("around_seconds", [0.0, 0.3, 5.0])
def test_a_single_word_survives(level, around_seconds):
    word = voice(0.4, level)
    hushed = hush(around_seconds, level / 300)
    utterances = utterances_of(np.concatenate([hushed, word, hushed]))
    assert len(utterances) == 1
    [(start, end)] = spans(utterances)
    assert start <= len(hushed)
    assert end >= len(hushed) + len(word)


def seconds_of(count: float) -> np.ndarray:
    return np.arange(round(count * SAMPLE_RATE)) / SAMPLE_RATE


NO_SPEECH = {
    "silence": np.zeros(10 * SAMPLE_RATE, np.float32),
    "white noise": hush(10, 0.1),
    "faint noise": hush(10, 1e-3),
    "loud noise, clipped": np.sign(hush(10, 1.0)),
    "brown noise": np.cumsum(hush(10, 1e-3)).astype(np.float32),
    "hum": 0.2 * np.sin(2 * np.pi * 50 * seconds_of(10)).astype(np.float32),
    "tone": 0.2 * np.sin(2 * np.pi * 440 * seconds_of(10)).astype(np.float32),
    "siren": 0.3 * np.sin(2 * np.pi * 600 * seconds_of(10) + 50 * np.sin(seconds_of(10))).astype(np.float32),
    "clicks": (np.arange(10 * SAMPLE_RATE) % 8000 == 0).astype(np.float32),
    "constant": np.full(10 * SAMPLE_RATE, 0.5, np.float32),
    "one sample": np.ones(1, np.float32),
    "nothing": np.empty(0, np.float32),
}


@pytest.mark.parametrize("kind", NO_SPEECH)
def test_silence_and_noise_give_no_utterance(kind):
    assert utterances_of(NO_SPEECH[kind]) == []


def test_no_blocks_give_no_utterance():
    assert list(cut_utterances([])) == []


def test_long_speech_is_cut_at_its_pauses():
    """With sentences of 3 s and pauses of 0.6 s, every cut is in a pause."""
    sentence, pause = voice(3), hush(0.6)
    utterances = utterances_of(np.concatenate([sentence, pause] * 20), max_seconds=10)
    assert len(utterances) > 5
    period = len(sentence) + len(pause)
    for start, end in spans(utterances)[:-1]:
        assert end - start <= 10 * SAMPLE_RATE
        assert end % period >= len(sentence)
    for (_, end), (start, _) in zip(spans(utterances)[:-1], spans(utterances)[1:], strict=True):
        assert 0 <= start - end < len(pause)


def test_speech_without_pauses_is_cut_without_loss():
    recording = voice(9)
    utterances = utterances_of(recording, max_seconds=2)
    assert max(len(utterance.samples) for utterance in utterances) <= 2 * SAMPLE_RATE
    np.testing.assert_array_equal(np.concatenate([u.samples for u in utterances]), recording)


def test_max_seconds_below_two_is_refused():
    with pytest.raises(ValueError, match="max_seconds is 1"):
        utterances_of(voice(1), max_seconds=1)


PIECES = st.lists(
    st.tuples(st.sampled_from([voice, hush]), st.floats(0.05, 6.0), st.sampled_from([0.3, 0.03, 1e-3])),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40)
@given(PIECES, st.floats(2.0, 30.0), st.lists(st.floats(0, 1), max_size=10))
def test_any_recording(pieces, max_seconds, cuts):
    """Utterances are ordered, disjoint, unchanged, short enough, complete, and independent of block sizes."""
    recording = np.concatenate([make(seconds, level) for make, seconds, level in pieces])
    blocks = np.split(recording, sorted(round(cut * len(recording)) for cut in cuts))
    utterances = list(cut_utterances(blocks, max_seconds=max_seconds))
    outside = np.ones(len(recording), bool)
    previous_end = 0
    for (start, end), utterance in zip(spans(utterances), utterances, strict=True):
        assert previous_end <= start < end <= len(recording)
        assert end - start <= max_seconds * SAMPLE_RATE
        np.testing.assert_array_equal(recording[start:end], utterance.samples)
        outside[start:end] = False
        previous_end = end

    assert spans(utterances) == spans(utterances_of(recording, max_seconds=max_seconds))

    padded = np.pad(recording, (0, -len(recording) % FRAME_SAMPLES))
    evident = SpeechDetector()(padded) > CERTAIN_SPEECH
    lost = evident & outside[::FRAME_SAMPLES]
    if len(lost) >= MIN_SPEECH_FRAMES:  # that much certain speech in a row is never dropped
        assert np.convolve(lost, np.ones(MIN_SPEECH_FRAMES), "valid").max() < MIN_SPEECH_FRAMES


def test_live_blocks_cut_where_a_whole_recording_is_cut():
    """In long speech, too, where a pause near the limit may still become a long one."""
    pieces = [voice(5), hush(0.3), voice(4.5), hush(1.6), voice(11), hush(0.2), voice(9), hush(0.1)]
    recording = np.concatenate(pieces)
    live = list(cut_utterances(np.array_split(recording, 400), max_seconds=10))
    assert len(live) >= 4
    assert spans(live) == spans(utterances_of(recording, max_seconds=10))


def test_the_unfinished_utterance_is_the_one_that_comes():
    cutter = Cutter()
    recording = np.concatenate([hush(2), voice(3), hush(4)])
    seen = []
    for block in np.split(recording, 90):
        found = list(cutter.push(block))
        if found:
            break
        seen.append(cutter.unfinished())
    assert seen[18] is None
    growing = [(utterance, pausing) for utterance, pausing in filter(None, seen)]
    lengths = [len(utterance.samples) for utterance, _ in growing]
    assert lengths == sorted(lengths)
    assert not growing[0][1]
    last, pausing = growing[-1]
    assert pausing
    assert (last.start, last.end) == (found[0].start, found[0].end)
    np.testing.assert_array_equal(last.samples, found[0].samples)
    assert cutter.unfinished() is None


def test_an_hour_takes_little_memory_and_linear_time():
    minute = np.concatenate([voice(13), hush(0.5), voice(30), hush(4), voice(10), hush(2.5)])
    marks = []

    def stream():
        for _ in range(60):
            marks.append(time.process_time())
            yield minute

    tracemalloc.start()
    utterances = spoken = 0
    for utterance in cut_utterances(stream()):
        utterances += 1
        spoken += len(utterance.samples)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert utterances >= 120
    assert 53 * 60 < spoken / SAMPLE_RATE < 56.5 * 60
    assert peak < 20_000_000  # bytes; the hour has 230 million
    assert marks[-1] - marks[-16] < 3 * (marks[16] - marks[1])


def clips(folder, manifest: str, every: int) -> list[np.ndarray]:
    lines = (folder / f"{manifest}.jsonl").read_text().splitlines()[::every]
    return [load_audio(folder / json.loads(line)["audio_filepath"]) for line in lines]


def loudness_db(samples: np.ndarray, window_seconds: float = 0.06) -> np.ndarray:
    """Level around each sample, relative to that of the speech in it (its upper quartile)."""
    power = uniform_filter1d(samples.astype(float) ** 2, round(window_seconds * SAMPLE_RATE)).clip(1e-12)
    return 10 * np.log10(power / np.percentile(power, 75))


@pytest.mark.parametrize("manifest", ["dev-read", "dev-other", "dev-narrow"])
def test_read_speech_is_kept(shared_data, manifest):
    recordings = clips(shared_data, manifest, every=10)
    kept = [sum(len(utterance.samples) for utterance in utterances_of(clip)) for clip in recordings]
    assert min(kept) > 0
    assert sum(kept) > 0.95 * sum(len(clip) for clip in recordings)


def test_real_clips_in_a_row_are_cut_in_pauses(shared_data):
    gap = hush(2.0, 3e-4)
    recordings = clips(shared_data, "dev-read", every=6)
    recording = np.concatenate([part for clip in recordings for part in (clip, gap)])
    utterances = utterances_of(recording)
    assert len(utterances) >= len(recordings)
    loudness = loudness_db(recording)
    for start, end in spans(utterances):
        assert loudness[start] < -10 or start == 0
        assert loudness[end - 1] < -10


@pytest.mark.parametrize("silence_before_seconds", [0.0, 0.5])
def test_short_real_words_survive(shared_data, silence_before_seconds):
    """0.4 s around a loud position of each clip, like a recording of one word."""
    recordings = clips(shared_data, "dev-narrow", every=9) + clips(shared_data, "dev-accent", every=9)
    fade = np.minimum(1, np.minimum(np.arange(6400), np.arange(6400)[::-1]) / 480).astype(np.float32)
    survived = 0
    for clip in recordings:
        middle = np.clip(np.argmax(loudness_db(clip, 0.2)), 3200, len(clip) - 3200)
        word = clip[middle - 3200 : middle + 3200] * fade
        survived += bool(utterances_of(np.concatenate([hush(silence_before_seconds), word, hush(0.3)])))
    assert survived >= 0.95 * len(recordings)


def test_most_real_noise_gives_no_utterance(shared_data):
    recordings = clips(shared_data, "noise", every=2)
    found = sum(bool(utterances_of(clip)) for clip in recordings)
    assert found <= 0.1 * len(recordings)
