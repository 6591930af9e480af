import re
import sys

import numpy as np
import pytest
import soundfile

from asr.audio import SAMPLE_RATE
from tests.asr.conftest import speak, tone_recognizer  # noqa: F401 (a fixture)
from training.augmentation import degrade
from training.commands import main
from training.manifest import Entry, write_manifest
from training.scoring.recognisers import (
    WINDOW_SECONDS,
    RecogniserError,
    _request,
    answer,
    peak_memory_mb,
    run,
    transcriber,
)
from training.scoring.transcripts import Recognised, Reference, read_references


@pytest.fixture
def manifest(tmp_path):
    """Two sounds and one that is missing."""
    entries = []
    for number in range(3):
        path = tmp_path / f"u{number}.wav"
        if number < 2:
            soundfile.write(path, np.zeros((1 + number) * SAMPLE_RATE), SAMPLE_RATE)
        entries.append(Entry(f"u{number}", path, "hold on", 1.0 + number))
    write_manifest(tmp_path / "dev.jsonl", entries)
    return tmp_path / "dev.jsonl"


def test_a_recogniser_that_cannot_start_is_one_line(tmp_path):
    with pytest.raises(RecogniserError) as caught:
        run("hark", str(tmp_path / "no-model"), "", [Reference("dev", "x", "")], threads=1)
    message = str(caught.value)
    assert message.startswith(f"hark {tmp_path}/no-model stopped; the last line it wrote: ")
    assert "\n" not in message


def test_a_recogniser_in_its_own_process(manifest):
    done = run("hark", "english", "greedy", read_references(manifest), threads=1)
    assert done.recognised.keys() == {"u0", "u1"}
    assert "u2.wav" in done.unreadable["u2"]
    assert done.speech_seconds == 3.0
    assert 0 < done.compute_seconds < done.cold_start_seconds + 30
    assert 50 < done.peak_memory_mb < 1_000


def test_the_table_of_peers(manifest, tmp_path, capsys):
    arguments = [str(manifest), "--model", "english", "--decoder", "greedy"]
    arguments += ["--faster-whisper", str(tmp_path / "none"), "--threads", "1"]
    assert main(["benchmark", "peers", *arguments, "--output", str(tmp_path / "report")]) == 1
    captured = capsys.readouterr()
    assert re.search(r"^dev +english +english greedy +clean ", captured.out, re.MULTILINE)
    assert "2 of 3 utterances scored" in captured.out
    assert re.search("^normaliser english: .* 4 words, 0 empty references$", captured.out, re.MULTILINE)
    assert "faster-whisper" in captured.err and "u2.wav" in captured.err
    assert (tmp_path / "report" / "results.json").is_file()


def test_every_recogniser_hears_the_same_degraded_sound(manifest):
    reference = read_references(manifest)[1]
    said = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype("float32")
    soundfile.write(reference.audio, said, SAMPLE_RATE, subtype="FLOAT")
    recognised = []

    def transcribe(samples):
        recognised.append(samples)
        return Recognised("hold on")

    for condition in ("clean", "reverb"):
        assert answer(_request(reference, condition, (), 3), transcribe)["text"] == "hold on"
    np.testing.assert_array_equal(recognised[0], said)
    np.testing.assert_array_equal(recognised[1], degrade(said, reference.id, "reverb", seed=3))


def test_an_unknown_condition_is_told_before_any_work(manifest, capsys):
    assert main(["benchmark", "peers", str(manifest), "--model", "english", "--conditions", "clean,fog"]) == 2
    assert "fog" in capsys.readouterr().err


def test_no_peer_at_all_is_a_wrong_call(manifest, capsys):
    assert main(["benchmark", "peers", str(manifest)]) == 2
    assert "no recogniser to run" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_grows_with_what_is_held():
    before = peak_memory_mb()
    held = np.ones(60_000_000 // 8)
    after = peak_memory_mb()
    assert after >= before
    assert after > held.nbytes / 1e6


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
