import re
import sys

import numpy as np
import pytest
import soundfile

from asr.audio import SAMPLE_RATE
from training.commands import main
from training.manifest import Entry, write_manifest
from training.scoring.degradation import degrade
from training.scoring.recognisers import RecogniserError, answer, peak_memory_mb, run
from training.scoring.transcripts import Reference, read_references


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
        run("vosk", str(tmp_path / "no-model"), [Reference("dev", "x", "")], threads=1)
    message = str(caught.value)
    assert message.startswith(f"vosk {tmp_path}/no-model stopped; its last words: ")
    assert "\n" not in message


def test_pocketsphinx_in_its_own_process(manifest):
    pytest.importorskip("pocketsphinx", reason="needs pocketsphinx, which only benchmarks use")
    done = run("pocketsphinx", "", read_references(manifest), threads=1)
    assert done.texts.keys() == {"u0", "u1"}
    assert "u2.wav" in done.unreadable["u2"]
    assert done.speech_seconds == 3.0
    assert 0 < done.compute_seconds < done.cold_start_seconds + 30
    assert 50 < done.peak_memory_mb < 1_000


def test_the_table_of_peers(manifest, tmp_path, capsys):
    pytest.importorskip("pocketsphinx", reason="needs pocketsphinx, which only benchmarks use")
    arguments = [str(manifest), "--pocketsphinx", "--vosk", str(tmp_path / "none"), "--threads", "1"]
    assert main(["benchmark", "peers", *arguments, "--output", str(tmp_path / "report")]) == 1
    captured = capsys.readouterr()
    assert re.search(r"^dev +pocketsphinx +clean ", captured.out, re.MULTILINE)
    assert "2 of 3 utterances scored (0 with empty reference), 4 words" in captured.out
    assert "vosk" in captured.err and "u2.wav" in captured.err
    assert (tmp_path / "report" / "results.json").is_file()


def test_every_recogniser_hears_the_same_degraded_sound(manifest):
    reference = read_references(manifest)[1]
    said = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype("float32")
    soundfile.write(reference.audio, said, SAMPLE_RATE, subtype="FLOAT")
    recognised = []

    def transcribe(samples):
        recognised.append(samples)
        return "hold on"

    request = {"id": reference.id, "set": "dev", "text": "", "audio": str(reference.audio), "words": ()}
    for degradation in ({}, {"degrade": ["reverb", [], 3]}):
        assert answer(request | degradation, transcribe)["text"] == "hold on"
    np.testing.assert_array_equal(recognised[0], said)
    np.testing.assert_array_equal(recognised[1], degrade(said, reference.id, "reverb", seed=3))


def test_an_unknown_condition_is_told_before_any_work(manifest, capsys):
    assert main(["benchmark", "peers", str(manifest), "--pocketsphinx", "--conditions", "clean,fog"]) == 2
    assert "fog" in capsys.readouterr().err


def test_no_peer_at_all_is_a_wrong_call(manifest, capsys):
    assert main(["benchmark", "peers", str(manifest)]) == 2
    assert "no recogniser ran" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_grows_with_what_is_held():
    before = peak_memory_mb()
    held = np.ones(60_000_000 // 8)
    after = peak_memory_mb()
    assert after >= before
    assert after > held.nbytes / 1e6
