import numpy as np
import pytest
import soundfile

from asr.audio import SAMPLE_RATE
from asr.transcript import Segment, Transcript, Word
from asr.web.edited import from_page, segment_from_page, to_page, word_times
from tests.loudness_recognizer import LoudnessRecognizer

WORDS = (Word("don't", 1.0, 1.25, 0.97), Word("<b>", 1.5, 1.75, 0.7))
SEGMENT = Segment(1.0, 1.75, "don't <b>", WORDS, ("do not",), "left")
TRANSCRIPT = Transcript((SEGMENT,), "english", 4.0, "tiny", ("truncated",))


def test_a_transcript_comes_back_as_it_went():
    assert from_page(to_page(TRANSCRIPT)) == TRANSCRIPT


@pytest.mark.parametrize(
    "change",
    [
        {"segments": None},
        {"segments": [{}]},
        {"segments": [{"words": [], "alternatives": [], "channel": None}]},
        {"segments": [{"words": [3], "alternatives": [], "channel": None}]},
        {"duration": "long"},
        {"duration": float("nan")},
        {"duration": -1},
    ],
)
def test_anything_else_is_refused(change):
    with pytest.raises(ValueError):
        from_page({**to_page(TRANSCRIPT), **change})
    with pytest.raises(ValueError):
        from_page(None)


def test_words_get_the_times_of_the_alignment_in_the_recording(tmp_path):
    path = tmp_path / "noise.wav"
    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, 4 * SAMPLE_RATE), SAMPLE_RATE)
    data = {**to_page(TRANSCRIPT)["segments"][0], "channel": None}
    times = word_times(LoudnessRecognizer(), str(path), segment_from_page(data))
    # That recogniser shares the time among the words: from 0.8 s to 1.95 s.
    assert times == [pytest.approx((0.8, 1.375)), pytest.approx((1.375, 1.95))]


def test_a_text_that_cannot_be_aligned_gets_no_times(tmp_path):
    path = tmp_path / "short.wav"
    soundfile.write(path, np.zeros(SAMPLE_RATE), SAMPLE_RATE)

    class Refusing(LoudnessRecognizer):
        def align(self, source, text):
            raise ValueError("no speech was found in the recording")

    assert word_times(Refusing(), str(path), SEGMENT) is None
