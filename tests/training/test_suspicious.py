"""training/suspicious.py: what is wrong with a recording or its text is found, the rest is left alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asr.bundle import Bundle
from asr.engine import Engine
from tests.training.toy import TOKENIZER
from tests.voice import speak
from training.manifest import Entry, read_manifest
from training.speech import read_speech
from training.suspicious import MOST_LETTERS, examine, shortened, suspicious

TEXT = "hold on"
VOICE = speak(4 * TEXT, {letter: 4600 + 200 * i for i, letter in enumerate(sorted(set(TEXT)))})


def recognised(text: str) -> np.ndarray:
    """Log-probs of a model that hears a text: a step for each letter and one for the blank behind it."""
    ids = [step for id in TOKENIZER.encode(text) for step in (id, 0)] or [0]
    return np.log(np.eye(TOKENIZER.size)[ids] * 0.97 + 1e-3).astype("float32")


def reasons(samples: np.ndarray, said: str = TEXT, text: str = TEXT) -> tuple[str, ...]:
    return examine(Entry("a", Path("a.wav"), text, 1.0), samples, recognised(said), TOKENIZER).reasons


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (VOICE, ""),
        (0.04 * VOICE, "too quiet: -"),
        (np.clip(20 * VOICE, -1, 1), "clipped: "),
        (0 * VOICE, "there is no voice"),
    ],
)
def test_sound(samples, reason):
    assert [found[: len(reason)] for found in reasons(samples)] == ([reason] if reason else [])


@pytest.mark.parametrize(
    ("said", "text", "fits"),
    [
        (TEXT, "Hold on!", True),
        (TEXT, "hold in", True),  # one letter is no more than a model's own error
        (TEXT, "go away", False),
        (TEXT, "hold", False),
        (TEXT, "hold on while i am looking for it", False),
        (TEXT, "", False),
        ("", "", True),
    ],
)
def test_text(said, text, fits):
    found = reasons(VOICE, said, text)
    assert (not found) if fits else found[0].startswith("the text does not fit: ")


def test_only_what_neither_voice_detector_nor_model_hears_is_unusable():
    entry = Entry("a", Path("a.wav"), TEXT, 1.0)
    silence = np.zeros(16_000, "float32")
    assert examine(entry, silence, recognised(""), TOKENIZER).unusable
    assert not examine(entry, silence, recognised(TEXT), TOKENIZER).unusable
    assert not examine(entry, VOICE, recognised(""), TOKENIZER).unusable
    assert not examine(replace(entry, text=""), silence, recognised(""), TOKENIZER).reasons


def test_swapped_texts_of_real_speech_come_first(shared_data, tmp_path):
    bundle = Bundle.load("english")
    entries = read_manifest(shared_data / "dev-narrow.jsonl")[:12]
    entries[3], entries[8] = (replace(entries[a], text=entries[b].text) for a, b in ((3, 8), (8, 3)))
    speech = read_speech(entries, bundle.tokenizer, tmp_path / "cache")
    found = suspicious(speech, Engine.load(bundle), bundle.tokenizer)
    assert {one.entry.id for one in found} == {entries[3].id, entries[8].id}
    assert all(one.nats > 2 and one.recognised for one in found)


def test_a_long_text_is_shortened():
    assert shortened("hold on") == "hold on"
    assert len(shortened("hold on " * 20)) <= MOST_LETTERS
