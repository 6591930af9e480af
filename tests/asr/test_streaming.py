"""asr/streaming.py: live text ends as a file's does, however the sound is cut into blocks."""

import json
import threading
import tracemalloc
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import SAMPLE_RATE, AudioError, load_audio
from asr.recognizer import Recognizer
from asr.streaming import Event, Final, LiveText, Partial, Stream
from asr.transcript import Segment, Word
from tests.asr.conftest import tone_recognizer

CUTS = st.lists(st.floats(0, 1), max_size=12)


@pytest.fixture(scope="module")
def talk(speak) -> np.ndarray:
    """Three utterances, the first with a pause in which its final is written in vain."""
    return speak(0.5, "hello ", 1.25, "world", 2.0, "it's me", 1.8, "again", 1.0)


@pytest.fixture(scope="module")
def english() -> Recognizer:
    return Recognizer.load("english", threads=1)


def events_of(stream: Stream, blocks) -> list[Event]:
    return [event for block in blocks for event in stream.write(block)] + stream.finish()


def segments_of(events: list[Event]) -> tuple[Segment, ...]:
    return tuple(event.segment for event in events if isinstance(event, Final))


def cut(samples, cuts: list[float]) -> list:
    places = sorted(round(share * len(samples)) for share in cuts)
    return [samples[start:end] for start, end in pairwise([0, *places, len(samples)])]


def in_tenths(samples: np.ndarray) -> list[np.ndarray]:
    return [samples[start : start + 1600] for start in range(0, len(samples), 1600)]


def clips(folder, manifest: str, count: int) -> list[np.ndarray]:
    lines = (folder / f"{manifest}.jsonl").read_text().splitlines()[:count]
    return [load_audio(folder / json.loads(line)["audio_filepath"]) for line in lines]


def check(events: list[Event]) -> None:
    """What is stable does not change within an utterance; times do not go back."""
    stable = ""
    end = 0.0
    for event in events:
        if isinstance(event, Final):
            stable, end = "", event.segment.end
            continue
        assert event.text.startswith(stable)
        assert 0 <= event.stable_length <= len(event.text)
        assert event.text[event.stable_length :][:1] in ("", " ") or event.stable_length == 0
        assert end <= event.end and event.start < event.end
        stable = event.text[: event.stable_length]


@settings(max_examples=12)
@given(CUTS)
def test_blocks_of_any_size_give_the_finals_of_the_file(talk, cuts):
    recognizer = tone_recognizer()
    events = events_of(recognizer.stream(), cut(talk, cuts))
    assert segments_of(events) == recognizer.transcribe(talk).segments
    assert [segment.text for segment in segments_of(events)] == ["hello world", "it's me", "again"]
    check(events)


@settings(max_examples=6)
@given(CUTS)
def test_bytes_may_be_cut_within_a_sample(talk, cuts):
    recognizer = tone_recognizer()
    pcm = (talk * 32767).astype("<i2")
    events = events_of(recognizer.stream(), [*cut(pcm.tobytes(), cuts), b"\x01"])
    assert segments_of(events) == recognizer.transcribe(pcm).segments


def test_words_come_while_one_speaks(recognizer, talk):
    got = []
    stream = recognizer.stream()
    for block in in_tenths(talk):
        got += [(stream.seconds, event) for event in stream.write(block)]
    check([event for _, event in got])
    first = next(seconds for seconds, event in got if isinstance(event, Partial) and "hello" in event.text)
    assert 1.1 < first < 1.7  # it is said until 1.1 s
    stable = next(seconds for seconds, event in got if getattr(event, "stable_length", 0) == len("hello"))
    assert first <= stable < 1.9
    final = next(seconds for seconds, event in got if isinstance(event, Final))
    assert 4.45 < final < 4.8  # 1.5 s after "world", which ends at 3.1 s
    assert got.index((final, next(e for s, e in got if s == final))) > 0
    assert [event.segment.text for event in stream.finish() if isinstance(event, Final)] == ["again"]


def test_long_speech_is_cut_as_in_a_file(recognizer, speak):
    words = [first + second for first in "abcdefgh" for second in "klmnopqrst"]
    sound = speak(0.5, " ".join(words), 0.5)
    events = events_of(
        recognizer.stream(), [sound[start : start + 4000] for start in range(0, len(sound), 4000)]
    )
    segments = segments_of(events)
    assert len(segments) > 1
    assert segments == recognizer.transcribe(sound).segments
    assert " ".join(segment.text for segment in segments).split() == words
    check(events)


WORDS = st.lists(
    st.tuples(st.sampled_from("abc"), st.floats(0, 9), st.floats(0.1, 1), st.floats(0, 1)), max_size=6
).map(
    lambda words: [
        Word(text, start, start + length, sure)
        for text, start, length, sure in sorted(words, key=lambda w: w[1])
    ]
)


@given(st.lists(st.tuples(WORDS, st.booleans()), max_size=12))
def test_what_is_stable_stays_whatever_is_read(decodings):
    text, stable = LiveText(), ""
    for words, pausing in decodings:
        shown, length = text.read(words, pausing)
        assert shown.startswith(stable) and length >= len(stable)
        assert not pausing or length == len(shown)
        stable = shown[:length]


def word(text: str, start: float, confidence: float = 0.9) -> Word:
    return Word(text, start, start + 0.4, confidence)


def test_a_word_is_shown_when_it_is_sure_or_stood_twice():
    text = LiveText()
    assert text.read([word("ann", 0), word("saw", 1, 0.5)]) == ("ann", 0)
    assert text.read([word("ann", 0), word("saw", 1, 0.5)]) == ("ann saw", 7)
    assert text.read([word("and", 0), word("so", 1), word("it", 2)]) == ("ann saw it", 7)
    assert text.read([word("an", 0), word("it", 2.05, 0.2)]) == ("ann saw it", 10)


def test_real_speech_ends_as_a_file(english, shared_data):
    pause = np.zeros(2 * SAMPLE_RATE, np.float32)
    sound = np.concatenate([part for clip in clips(shared_data, "dev-other", 2) for part in (clip, pause)])
    events = events_of(english.stream(hotwords=["Moses"]), in_tenths(sound))
    assert segments_of(events) == english.transcribe(sound, hotwords=["Moses"]).segments
    assert any("Moses" in segment.text for segment in segments_of(events))
    check(events)
    partials = [event for event in events if isinstance(event, Partial)]
    assert len(partials) > 5 and partials[0].text


def test_other_rates_and_channels(recognizer, talk):
    faster = soxr.resample(talk, SAMPLE_RATE, 48_000)
    stereo = np.stack([faster, faster], axis=1)
    events = events_of(recognizer.stream(48_000), np.array_split(stereo, 7))
    assert [segment.text for segment in segments_of(events)] == ["hello world", "it's me", "again"]


def test_streams_share_a_recognizer(talk):
    recognizer = tone_recognizer()
    alone = segments_of(events_of(recognizer.stream(), [talk]))
    found = {}

    def listen(number: int) -> None:
        found[number] = segments_of(events_of(recognizer.stream(), in_tenths(talk)))

    listeners = [threading.Thread(target=listen, args=(number,)) for number in range(4)]
    for listener in listeners:
        listener.start()
    for listener in listeners:
        listener.join()
    assert list(found.values()) == [alone] * 4


def test_what_was_no_word_is_taken_back(recognizer, talk):
    """A decoder that hears nothing where the reading had words."""
    stream = Stream(recognizer.engine.encode, recognizer.decoder("greedy"), lambda utterance, encoding: [])
    events = events_of(stream, in_tenths(talk))
    assert sum(event.text == "" for event in events) == 3
    assert events[-1].text == "" and events[-1].stable_length == 0


def test_five_minutes_of_noise_have_no_word(english):
    noise = np.random.default_rng(0).normal(0, 0.1, 300 * SAMPLE_RATE).astype(np.float32)
    assert events_of(english.stream(), np.array_split(noise, 300)) == []


def test_no_sound_has_no_events(recognizer):
    assert events_of(recognizer.stream(), []) == []
    assert events_of(recognizer.stream(8_000), [b"", b"\x01", np.empty(0, np.int16)]) == []


def test_memory_is_flat(recognizer, speak):
    half_minute = np.concatenate([speak("a b c d e f g h i j k l m n o p q r s t u v w x y z", 2.0)] * 4)
    stream = recognizer.stream()
    peaks = []
    tracemalloc.start()
    for _ in range(20):
        for block in np.array_split(half_minute, 30):
            stream.write(block)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()
    tracemalloc.stop()
    assert peaks[-1] < 1.2 * peaks[1]
    assert peaks[-1] < 30_000_000


def test_much_at_once_takes_little_memory(recognizer):
    block = np.zeros(2**24, np.int16)
    tracemalloc.start()
    assert recognizer.stream().write(block) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000  # bytes; as float32 it has 67 million


FLOATS = np.random.default_rng(0).normal(0, 0.05, 4000).astype("<f4")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (np.array([0.1, np.nan, 0.1], np.float32), "the stream holds samples that are NaN"),
        (np.array([0.1, np.inf], np.float32), "infinite"),
        (1000 * np.ones(9, np.float32), "scale them"),
        (np.ones((2, 16_000), np.float32), "channels"),
        (np.ones(9, complex), "float32"),
        (FLOATS.tobytes(), "32-bit floats, not 16-bit samples"),
        (FLOATS.tobytes()[3:], "32-bit floats"),
    ],
)
def test_what_is_no_sound_is_refused_in_one_line(recognizer, block, message):
    stream = recognizer.stream()
    if isinstance(block, bytes) and len(block) % 2:
        stream.write(FLOATS.tobytes()[:3])  # so that floats begin in the middle of a block
    with pytest.raises(AudioError, match=message) as error:
        stream.write(block)
    assert "\n" not in str(error.value)


@given(st.integers(0, 2**32), st.sampled_from([3, 300, 9000]))
def test_sound_in_16_bits_is_not_taken_for_floats(seed, level):
    noise = np.random.default_rng(seed).normal(0, level, 3000).clip(-32768, 32767).astype("<i2")
    tone_recognizer().stream().write(noise.tobytes())


def test_a_stream_that_is_over(recognizer):
    with recognizer.stream() as stream:
        stream.finish()
        with pytest.raises(ValueError, match="is over"):
            stream.finish()
    with recognizer.stream() as stream:
        pass
    with pytest.raises(ValueError, match="is over"):
        stream.write(b"")


def test_wrong_calls(recognizer, monkeypatch):
    with pytest.raises(ValueError, match="knows no hot words"):
        recognizer.stream(decoder="greedy", hotwords=["Quillan"])
    with pytest.raises(ValueError, match="no decoder"):
        recognizer.stream(decoder="none")
    with pytest.raises(AudioError, match="rate of 12 Hz"):
        recognizer.stream(12)
    monkeypatch.setattr(recognizer, "bundle", SimpleNamespace(name="whisper", has_ctc=False))
    with pytest.raises(ValueError, match="whisper has no CTC head"):
        recognizer.stream()


def test_events_as_json():
    partial = Partial("and then", 3, 1.23456, 2.0)
    assert partial.to_dict() == {
        **{"type": "partial", "text": "and then", "stable_length": 3},
        **{"start": 1.235, "end": 2.0},
    }
    final = Final(Segment(1.0, 2.0, "And", (Word("And", 1.0, 2.0, 0.5),)))
    assert final.to_dict() == {
        **{"type": "final", "text": "And", "start": 1.0, "end": 2.0},
        "words": [{"word": "And", "start": 1.0, "end": 2.0, "confidence": 0.5}],
    }
