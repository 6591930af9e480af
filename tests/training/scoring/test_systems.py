import pytest
import soundfile

from asr.audio import SAMPLE_RATE
from tests.asr.conftest import speak, tone_recognizer  # noqa: F401 (a fixture)
from training.scoring.systems import WINDOW_SECONDS, recognise
from training.scoring.transcripts import Reference

PART = " ".join(["one two three four five six seven eight nine ten"] * 2)
LONG = f"{PART} {PART} {PART}"  # with pauses, some 40 s


@pytest.fixture(scope="module")
def recognizer():
    return tone_recognizer()


@pytest.fixture
def spoken(speak, tmp_path):  # noqa: F811
    """What a made voice says, one utterance longer than a model's window, and one whose sound is missing."""
    references = []
    for number, parts in enumerate([["hello world"], [], [PART, 2.0, PART, 2.0, PART], ["it's me"]]):
        samples = speak(0.5, *parts, 0.5)
        text = " ".join(part for part in parts if isinstance(part, str))
        path = tmp_path / f"u{number}.wav"
        soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
        seconds = len(samples) / SAMPLE_RATE
        references.append(Reference("dev", f"u{number}", text, audio=path, duration_seconds=seconds))
    return [*references, Reference("dev", "gone", "x", audio=tmp_path / "gone.wav", duration_seconds=1.0)]


def test_every_utterance_is_heard_or_named(recognizer, spoken):
    found = recognise(recognizer, spoken)
    assert spoken[2].duration_seconds > WINDOW_SECONDS
    assert {id: recognised.text for id, recognised in found.recognised.items()} == {
        one.id: one.text for one in spoken[:4]
    }
    assert "gone.wav" in found.unreadable["gone"]
    assert found.snr_db.keys() == found.recognised.keys()
    assert found.speech_seconds == pytest.approx(sum(one.duration_seconds for one in spoken[:4]))
    assert found.compute_seconds > 0
    first = found.recognised["u0"].words[0]
    assert first.text == "hello"
    assert first.start == pytest.approx(0.54, abs=0.05)
    assert first.confidence == pytest.approx(0.9)


def test_references_without_sound_are_unreadable(recognizer):
    found = recognise(recognizer, [Reference("dev", "x", "y")])
    assert "give a manifest" in found.unreadable["x"]
    assert not found.recognised


def test_a_condition_is_the_same_in_every_run_and_order(recognizer, spoken):
    noise = [spoken[0].audio]
    readable = spoken[:4]
    first = recognise(recognizer, readable, "greedy", "noise:0", noise, seed=1)
    second = recognise(recognizer, readable[::-1], "greedy", "noise:0", noise, seed=1)
    assert first.recognised == second.recognised
    assert first.recognised["u2"].text != LONG
    assert recognise(recognizer, readable, "greedy", "noise:0", noise, seed=2).recognised != first.recognised


def test_faster_speech_is_shorter(recognizer, spoken):
    found = recognise(recognizer, spoken[:1], "greedy", "speed:2")
    assert found.speech_seconds == pytest.approx(spoken[0].duration_seconds / 2, abs=0.01)
