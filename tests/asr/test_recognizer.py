"""The whole pipeline, on a synthetic voice and an engine that recognises it."""

import difflib
import io
import itertools
import json
import subprocess
import sys
from dataclasses import replace

import jiwer
import numpy as np
import pytest
import soundfile

from asr.audio import AudioError
from asr.bundle import MODELS
from asr.recognizer import Recognizer
from asr.transcript import Transcript

RATE = 16_000
CHARACTER_SECONDS = 0.12  # of the made voice; its tone is the middle third


@pytest.fixture
def meeting(speak) -> tuple[np.ndarray, int]:
    """ "hello world" from 1 s on, "it's me again" from 4.82 s on."""
    return speak(1.0, "hello world", 2.5, "it's me again", 1.0), RATE


def test_words_have_their_times_in_the_recording(recognizer, meeting):
    result = recognizer.transcribe(meeting)
    assert [segment.text for segment in result.segments] == ["hello world", "it's me again"]
    starts = {word.text: word.start for word in result.words}
    assert starts["hello"] == pytest.approx(1.04, abs=0.06)
    assert starts["world"] == pytest.approx(1.04 + 6 * CHARACTER_SECONDS, abs=0.06)
    assert starts["again"] == pytest.approx(4.86 + 8 * CHARACTER_SECONDS, abs=0.06)
    assert all(word.confidence == pytest.approx(0.9) for word in result.words)
    assert (result.language, result.model) == ("english", "tones")
    assert result.duration == pytest.approx(len(meeting[0]) / RATE)
    assert all(type(word.start) is float and type(word.end) is float for word in result.words)


def test_every_kind_of_source_gives_the_same(recognizer, meeting, tmp_path):
    path = tmp_path / "meeting.wav"
    soundfile.write(path, *meeting, subtype="FLOAT")
    expected = recognizer.transcribe(meeting)
    assert recognizer.transcribe(path) == expected
    assert recognizer.transcribe(str(path)) == expected
    assert recognizer.transcribe(path.read_bytes()) == expected
    assert recognizer.transcribe(io.BytesIO(path.read_bytes())) == expected


@pytest.mark.parametrize("sound", [np.zeros(4 * RATE), 0.1 * np.random.default_rng(0).normal(size=4 * RATE)])
def test_silence_and_noise_give_an_empty_transcript(recognizer, sound):
    result = recognizer.transcribe((sound.astype(np.float32), RATE))
    assert result == Transcript((), "english", 4.0, "tones")


def test_long_speech_loses_and_doubles_no_word(recognizer, speak):
    words = [first + second for first, second in itertools.product("abcdefghij", "klmnopqrst")]
    result = recognizer.transcribe((speak(0.5, " ".join(words), 0.5), RATE))
    assert len(result.segments) > 1  # 36 s are more than one utterance
    assert result.text.split() == words
    assert all(before.end <= after.start for before, after in itertools.pairwise(result.words))


def test_segments_come_as_they_are_recognised(recognizer, speak, monkeypatch):
    calls = []
    encode = recognizer.engine.encode
    monkeypatch.setattr(recognizer.engine, "encode", lambda samples: calls.append(1) or encode(samples))
    segments = recognizer.segments((np.tile(speak("word", 2.5), 20), RATE))
    assert calls == []
    assert next(segments).text == "word"
    assert len(calls) <= 5  # it works a few utterances ahead
    segments.close()
    assert len(calls) <= 6  # one may have been in the works


def test_what_reading_raises_ends_the_work_in_silence_too(recognizer):
    read = []

    def reading(seconds):
        read.append(seconds)
        if seconds > 5:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        list(recognizer.segments((np.zeros(60 * RATE, np.float32), RATE), reading=reading))
    assert read == [1, 2, 3, 4, 5, 6]


def test_progress_ends_at_the_duration(recognizer, meeting):
    calls = []
    recognizer.transcribe(meeting, progress=lambda done, total: calls.append((done, total)))
    duration = len(meeting[0]) / RATE
    assert [total for _, total in calls] == [duration] * 3
    assert calls[-1][0] == duration
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


@pytest.mark.parametrize("workers", [1, 3])
def test_many_sources_keep_their_order_and_one_failure_costs_no_other(recognizer, speak, workers):
    recognizer.workers = workers
    results = list(
        recognizer.transcribe_many(
            [(speak("first", 1.0), RATE), b"no sound", "missing.wav", (speak("second", 1.0), RATE)]
        )
    )
    assert [type(result) for result in results] == [Transcript, AudioError, AudioError, Transcript]
    assert [result.text for result in results if isinstance(result, Transcript)] == ["first", "second"]
    assert "missing.wav" in str(results[2])


def test_many_sources_are_read_lazily(recognizer, speak):
    endless = itertools.cycle([(speak("first", 1.0), RATE), (speak("second", 1.0), RATE)])
    result = itertools.islice(recognizer.transcribe_many(endless), 3)
    assert [transcript.text for transcript in result] == ["first", "second", "first"]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_change_nothing(recognizer, speak, workers):
    texts = ["one", "two", "three", "four", "five", "six", "seven"]
    sound = np.concatenate([speak(text, 2.0) for text in texts])
    recognizer.workers = workers
    assert [segment.text for segment in recognizer.segments((sound, RATE))] == texts


def test_a_model_without_ctc_knows_no_hot_words(recognizer, meeting, monkeypatch):
    monkeypatch.setattr(recognizer.bundle, "has_ctc", False)
    monkeypatch.setattr(recognizer.bundle, "vocabulary", object())
    with pytest.raises(ValueError, match="no CTC head, which finds hot words"):
        recognizer.transcribe(meeting, hotwords=["Quillan"])
    with pytest.raises(ValueError, match="choose the joint decoder"):
        recognizer.transcribe(meeting, decoder="beam")


def test_an_error_in_the_engine_is_not_swallowed(recognizer, meeting, monkeypatch):
    def broken(samples):
        raise RuntimeError("out of order")

    monkeypatch.setattr(recognizer.engine, "encode", broken)
    with pytest.raises(RuntimeError, match="out of order"):
        recognizer.transcribe(meeting)


def test_align_keeps_the_spelling_and_finds_the_times(recognizer, meeting):
    aligned = recognizer.align(meeting, "– Hello, World!\nIt's 42: me again …")
    assert [segment.text for segment in aligned.segments] == ["– Hello, World!", "It's 42: me again …"]
    assert [word.text for word in aligned.words] == ["– Hello,", "World!", "It's 42:", "me", "again …"]
    result = recognizer.transcribe(meeting)
    for word, same in zip(aligned.words, result.words, strict=True):
        assert (word.start, word.end) == pytest.approx((same.start, same.end))


def test_align_takes_a_hyphenated_word_as_one(recognizer, speak):
    aligned = recognizer.align((speak("twenty one men", 1.0), RATE), "Twenty-one men")
    assert [word.text for word in aligned.words] == ["Twenty-one", "men"]
    first = aligned.words[0]
    assert first.end - first.start == pytest.approx(9.4 * CHARACTER_SECONDS, abs=0.06)


def test_align_places_words_that_greedy_misses(recognizer, speak):
    sound = speak("hello borld", 1.0)
    assert recognizer.transcribe((sound, RATE)).text == "hello borld"
    words = recognizer.align((sound, RATE), "hello world").words
    assert [word.text for word in words] == ["hello", "world"]
    assert words[1].confidence < 0.1 < words[0].confidence


@pytest.mark.parametrize("said", ["twenty ome men", "twemty one men"])
def test_an_aligned_word_is_as_sure_as_its_least_sure_part(recognizer, speak, said):
    words = recognizer.align((speak(said, 1.0), RATE), "Twenty-one men").words
    assert words[0].confidence < 0.1 < words[1].confidence


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no words"), ("1984 – !", "no words"), ("word " * 200, "at least 999 steps")],
)
def test_align_refuses_texts_that_cannot_be_said(recognizer, meeting, text, message):
    with pytest.raises(ValueError, match=message):
        recognizer.align(meeting, text)


def test_align_refuses_a_recording_without_speech(recognizer):
    with pytest.raises(ValueError, match="no speech"):
        recognizer.align((np.zeros(2 * RATE, np.float32), RATE), "hello")


@pytest.mark.parametrize("method", ["transcribe", "segments"])
def test_options_are_checked_before_any_work(recognizer, method):
    call = getattr(recognizer, method)
    with pytest.raises(ValueError, match=r"'viterbi'.*greedy, beam"):
        call("missing.wav", decoder="viterbi")
    with pytest.raises(ValueError, match="hot words"):
        call("missing.wav", decoder="greedy", hotwords=["hark"])


def test_calibration_of_the_bundle_is_applied(recognizer, meeting):
    recognizer.bundle.config["confidence"] = {
        "greedy": {"certainty": 1.0, "shortfall": 0.0, "offset": -np.log(9)}
    }
    assert [word.confidence for word in recognizer.transcribe(meeting).words] == pytest.approx(
        [0.5] * 5, abs=1e-5
    )


def test_beam_search_finds_the_same_and_hot_words_choose_it(recognizer, meeting, speak):
    assert recognizer.transcribe(meeting, decoder="beam") == recognizer.transcribe(meeting, decoder="greedy")
    result = recognizer.transcribe((speak("we call quillan", 1.0), RATE), hotwords=["Quillan"])
    assert result.text == "we call quillan"
    with pytest.raises(ValueError, match="'1984'"):
        recognizer.transcribe(meeting, hotwords=["1984"])


def test_alternatives_are_other_texts_of_a_segment(recognizer, meeting):
    best = recognizer.transcribe(meeting, decoder="beam").segments
    found = recognizer.transcribe(meeting, n_best=4).segments
    assert [replace(segment, alternatives=()) for segment in found] == list(best)
    for segment in found:
        assert len({segment.text, *segment.alternatives}) == 4
    assert list(recognizer.segments(meeting, n_best=4)) == list(found)
    with pytest.raises(ValueError, match="greedy"):
        recognizer.transcribe(meeting, decoder="greedy", n_best=2)
    with pytest.raises(ValueError, match="at least 1"):
        recognizer.transcribe(meeting, n_best=0)


def test_import_is_light():
    heavy = "tensorflow keras jax gradio librosa numba scipy pandas onnxruntime soundfile av rich"
    probe = f"import sys, asr.recognizer; print([name for name in '{heavy}'.split() if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def english() -> Recognizer:
    """The shipped model."""
    if not (MODELS / "english" / "model.json").exists():
        pytest.skip("needs the shipped model asr/models/english")
    return Recognizer.load("english", threads=1)


@pytest.fixture(scope="module")
def clips(shared_data) -> list[tuple[str, str]]:
    """Path and text of five read sentences."""
    lines = (shared_data / "dev-read.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines[:5]]
    return [(str(shared_data / entry["audio_filepath"]), entry["text"]) for entry in entries]


def test_the_shipped_model_understands_read_sentences(english, clips):
    result = [transcript.text for transcript in english.transcribe_many([path for path, _ in clips])]
    assert jiwer.wer([text for _, text in clips], result) < 0.5


def test_greedy_word_times_agree_with_the_alignment_of_the_true_text(english, clips):
    differences = []
    for path, text in clips:
        result = english.transcribe(path, decoder="greedy").words
        aligned = english.align(path, text).words
        matches = difflib.SequenceMatcher(
            None, [word.text for word in result], [word.text for word in aligned]
        )
        for first, second, count in matches.get_matching_blocks():
            for a, b in zip(result[first : first + count], aligned[second : second + count], strict=True):
                differences += [abs(a.start - b.start), abs(a.end - b.end)]
    assert len(differences) > 40
    assert np.median(differences) <= 0.08
