"""training/speech.py: what can be used is decoded once; what cannot is named with its reason."""

import json

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from asr.audio import SAMPLE_RATE
from asr.tokenizer import Tokenizer
from training import speech as speech_module
from training.manifest import Entry, read_manifest
from training.speech import INT16_SCALE, read_speech, to_float, to_int16

TOKENIZER = Tokenizer.characters()


@given(st.lists(st.floats(-1, 1, width=32), max_size=20))
def test_int16_and_back(values):
    samples = np.array(values, "float32")
    np.testing.assert_allclose(to_float(to_int16(samples)), samples, atol=0.51 / INT16_SCALE)


def test_what_exceeds_full_scale_is_clipped():
    """As resampling makes of loud recordings."""
    samples = np.array([-3, -1.2, -1, 1, 1.01, 2.5], "float32")
    np.testing.assert_array_equal(to_float(to_int16(samples)), [-1, -1, -1, 1, 1, 1])


@pytest.fixture
def sound(tmp_path) -> np.ndarray:
    """One second in a.wav."""
    samples = (0.3 * np.sin(np.arange(SAMPLE_RATE) / 20)).astype("float32")
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE)
    return samples


def entries(folder, *rows: dict) -> list[Entry]:
    rows = [{"audio_filepath": "a.wav", "text": "a", "duration": 1.0} | row for row in rows]
    for number, row in enumerate(rows):  # ids must differ
        row.setdefault("offset", number * 1e-6)
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_manifest(folder / "all.jsonl")


def test_decoding_is_done_once(tmp_path, sound, monkeypatch):
    cased = {"text": "hold on", "text_cased": "Hold on!"}
    rows = entries(tmp_path, cased, {"text": "b", "duration": 0.25, "offset": 0.5})
    speech = read_speech(rows, TOKENIZER, tmp_path / "cache")
    assert speech.texts == ["hold on", "b"]
    assert speech.written == ["Hold on!", None]
    np.testing.assert_allclose(speech[0], sound, atol=1e-4)
    np.testing.assert_allclose(speech[1], sound[8000:12000], atol=1e-4)
    assert list(speech.lengths) == [16000, 4000]
    assert speech.hours == pytest.approx(1.25 / 3600)

    monkeypatch.delattr(speech_module, "decode_entries")
    again = read_speech(rows, TOKENIZER, tmp_path / "cache")
    assert again.key == speech.key
    np.testing.assert_array_equal(again[1], speech[1])


def test_a_recording_that_was_replaced_is_decoded_again(tmp_path, sound):
    rows = entries(tmp_path, {})
    before = read_speech(rows, TOKENIZER, tmp_path / "cache")
    soundfile.write(tmp_path / "a.wav", -sound[: SAMPLE_RATE // 2], SAMPLE_RATE)
    after = read_speech(rows, TOKENIZER, tmp_path / "cache")
    assert before.key != after.key
    np.testing.assert_allclose(after[0], -sound[: SAMPLE_RATE // 2], atol=1e-4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2 dogs", "its text has digits: write it out"),
        ("привет как дела", "its text has п р и в е т к а д л: write it out"),
        ("fish & chips", "its text has &: write it out"),
        ("…", "its text has no letters"),
        (
            "a text of many words is too long for a second of sound",
            "its text needs 2.2 s at least, it has 1.0 s",
        ),
    ],
)
def test_a_text_that_cannot_be_learnt_is_named_and_left_out(tmp_path, sound, capsys, text, reason):
    rows = entries(tmp_path, {"text": text}, {"text": ""})
    speech = read_speech(rows, TOKENIZER, tmp_path / "cache", step_seconds=0.04)
    assert speech.texts == [""]  # where nothing is said, silence is learnt
    assert f"a: left out, {reason}" in capsys.readouterr().err


def test_what_is_too_long_is_left_out(tmp_path, sound, capsys):
    assert not len(read_speech(entries(tmp_path, {}), TOKENIZER, tmp_path / "cache", max_seconds=0.9))
    assert "a: left out, 1.0 s is too long: cut it to 0.9 s (data.max_seconds)" in capsys.readouterr().err


def test_broken_recordings_are_all_named_and_cost_nobody_the_others(tmp_path, sound, capsys):
    (tmp_path / "broken.wav").write_bytes(b"RIFFxxxxWAVE" + bytes(200))
    (tmp_path / "empty.wav").write_bytes(b"")
    rows = [{"audio_filepath": f"{name}.wav"} for name in ("broken", "empty", "none")]
    all_entries = entries(tmp_path, rows[0], {"text": "good"}, *rows[1:])
    for _ in range(2):  # decoded, and from the cache
        speech = read_speech(all_entries, TOKENIZER, tmp_path / "cache")
        assert speech.texts == ["good"]
        np.testing.assert_allclose(speech[0], sound, atol=1e-4)
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 3
        for line, name in zip(said, ("broken", "empty", "none"), strict=True):
            assert line.startswith("left out: ") and f"{name}.wav" in line


def test_sound_shorter_than_stated_is_found_out(tmp_path, sound, capsys):
    rows = entries(tmp_path, {"text": "a text of many words is too long for it", "duration": 30.0})
    assert not len(read_speech(rows, TOKENIZER, tmp_path / "cache", step_seconds=0.04))
    assert "its text needs 1.6 s at least, it has 1.0 s" in capsys.readouterr().err
