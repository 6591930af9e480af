"""training/benchmarks/streaming.py on the synthetic voice, and on events made by hand."""

import numpy as np
import pytest

from asr.streaming import Final, Partial
from asr.transcript import Segment, Word
from tests.asr.conftest import TONES_HZ, tone_recognizer
from tests.voice import SAMPLE_RATE, speak
from training.benchmarks.streaming import Measured, Played, _crowd, _error_table, final_text, measure, play

SILENCE = np.zeros(2 * SAMPLE_RATE, np.float32)


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """ "hello world" from 0 s on, "it is me" from 3.3 s on."""
    parts = [speak("hello world", TONES_HZ), SILENCE, speak("it is me", TONES_HZ), SILENCE]
    samples = np.concatenate(parts)
    return samples + np.random.default_rng(0).normal(0, 1e-4, len(samples)).astype(np.float32)


def test_the_voice_is_measured(sound):
    recognizer, measured = tone_recognizer(), Measured()
    played = play(recognizer.stream(), sound)
    assert final_text(played) == "hello world it is me"
    measure(measured, played, recognizer, "hello world it is me", sound)
    assert len(measured.first) == 1 and 0 < measured.first[0] < 1
    assert len(measured.stable) == 5 and min(measured.stable) > 0 and max(measured.stable) < 2
    assert len(measured.final) == 2 and 0 < min(measured.final) < max(measured.final) < 1
    assert all(1.5 < seconds < 2.2 for seconds in measured.final_after_word)
    assert (measured.stable_words, measured.replaced_words, measured.revised_words) == (5, 0, 0)
    assert played.seconds == len(sound) / SAMPLE_RATE and 0 < played.processor_seconds < 10


def test_revised_and_replaced_words(sound):
    word = Word("world", 0.6, 1.3, 0.9)
    said = [
        (1.0, 1.0, Partial("hello wool", 5, 0.0, 1.0)),
        (1.5, 1.5, Partial("hello world", 11, 0.0, 1.3)),
        (3.0, 2.9, Final(Segment(0.0, 1.3, "Yellow world.", (word,)))),
    ]
    measured = Measured()
    measure(measured, Played(8.0, said), tone_recognizer(), "hello world", sound[: 3 * SAMPLE_RATE])
    assert (measured.new_words, measured.revised_words) == (3, 1)
    assert (measured.stable_words, measured.replaced_words) == (2, 1)
    assert measured.first == measured.stable[:1]
    assert measured.stable == pytest.approx([1.0 - 0.56, 1.5 - 1.28], abs=0.05)
    assert measured.final == pytest.approx([0.1])
    assert measured.final_after_word == pytest.approx([1.7])


def test_errors_beside_those_of_the_file():
    lines = _error_table(["one two", "three"], ["one too", "three"], ["one two", "three"], ["a", "b"])
    assert any("33.33" in line and "+33.33" in line and line.endswith("1") for line in lines)


def test_a_crowd(sound):
    told = _crowd(tone_recognizer(), [sound], 3, 1)
    assert told.strip().startswith("3 streams at once for 1 s")
