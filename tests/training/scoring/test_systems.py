import pytest
import soundfile

from asr.audio import SAMPLE_RATE
from tests.asr.conftest import speak, tone_recognizer  # noqa: F401 (a fixture)
from training.scoring.recognisers import WINDOW_SECONDS, _request, answer, transcriber
from training.scoring.snr import estimate_snr_db
from training.scoring.transcripts import Reference, read_samples

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


def test_every_utterance_is_recognised_or_named(recognizer, spoken):
    answers = [answer(_request(one, "clean", (), 0), transcriber(recognizer)) for one in spoken]
    assert spoken[2].duration_seconds > WINDOW_SECONDS
    assert [found["text"] for found in answers[:4]] == [one.text for one in spoken[:4]]
    assert "gone.wav" in answers[4]["error"]
    lengths = [one.duration_seconds for one in spoken[:4]]
    assert [found["speech_seconds"] for found in answers[:4]] == pytest.approx(lengths)
    assert all(found["compute_seconds"] > 0 for found in answers[:4])
    assert answers[0]["snr_db"] == estimate_snr_db(read_samples(spoken[0]))
    first = answers[0]["words"][0]
    assert first["text"] == "hello"
    assert first["start"] == pytest.approx(0.54, abs=0.05)
    assert first["confidence"] == pytest.approx(0.9)


def test_references_without_sound_are_unreadable(recognizer):
    request = _request(Reference("dev", "x", "y"), "clean", (), 0)
    assert "give a manifest" in answer(request, transcriber(recognizer))["error"]


def test_a_condition_is_the_same_in_every_run_and_order(recognizer, spoken):
    def texts(references, seed):
        found = {}
        for one in references:
            request = _request(one, "noise:0", [spoken[0].audio], seed)
            found[one.id] = answer(request, transcriber(recognizer, "greedy"))["text"]
        return found

    readable = spoken[:4]
    first = texts(readable, seed=1)
    assert first == texts(readable[::-1], seed=1)
    assert first["u2"] != LONG
    assert texts(readable, seed=2) != first


def test_faster_speech_is_shorter(recognizer, spoken):
    found = answer(_request(spoken[0], "speed:2", (), 0), transcriber(recognizer, "greedy"))
    assert found["speech_seconds"] == pytest.approx(spoken[0].duration_seconds / 2, abs=0.01)
