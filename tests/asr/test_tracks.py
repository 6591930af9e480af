"""Sound on the player's clock: late tracks, gaps, damage, several tracks, channels, pipes."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
import scipy.signal
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from asr import CHANNELS, parties
from asr.audio import SAMPLE_RATE, AudioError, duration_seconds, load_audio, read_blocks
from asr.parties import cut_each, cut_mean
from asr.tracks import MAX_SILENCE_SECONDS, MIN_GAP_SECONDS, RESTART_SECONDS, Clock
from training.manifest import Entry
from training.recordings import decode_entries

RATE = 48_000
BEEP = 1000.0  # Hz


def beeps(seconds: float, at: tuple[float, ...], rate: int = RATE) -> np.ndarray:
    """Silence with beeps of 0.2 s that start at these seconds: float32 [samples]."""
    sound = np.zeros(round(seconds * rate), np.float32)
    for start in at:
        first = round(start * rate)
        sound[first : first + rate // 5] = 0.4 * np.sin(2 * np.pi * BEEP * np.arange(rate // 5) / rate)
    return sound


def starts_of(samples: np.ndarray) -> list[float]:
    """When beeps start, in seconds."""
    loud = np.abs(samples) > 0.1
    envelope = np.convolve(loud, np.ones(800), "full")[: len(loud)] > 0
    return list(np.flatnonzero(np.diff(envelope.astype(int), prepend=0) == 1) / SAMPLE_RATE)


def container(
    format: str, codec: str, sounds: list[np.ndarray], late: float = 0.0, picture: bool = False, default=None
) -> bytes:
    """A file with one track for each of `sounds` (mono, 48 kHz), `late` seconds after the picture."""
    file = io.BytesIO()
    with av.open(file, "w", format=format) as output:
        if picture:
            video = output.add_stream("mpeg2video" if format in ("mpegts", "mxf") else "mpeg4", rate=25)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        streams = [output.add_stream(codec, rate=RATE, layout="mono") for _ in sounds]
        if default is not None:
            for index, stream in enumerate(streams):
                stream.disposition = av.stream.Disposition.default if index == default else 0
        packets = []
        if picture:
            for number in range(50):
                frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                packets += video.encode(frame)
            packets += video.encode(None)
        for stream, sound in zip(streams, sounds, strict=True):
            size = stream.codec_context.frame_size or 960
            padded = np.pad(sound, (0, -len(sound) % size))
            frames = av.AudioResampler(format=stream.format.name, layout="mono", rate=RATE)
            for position in range(0, len(padded), size):
                frame = av.AudioFrame.from_ndarray(padded[None, position : position + size], "fltp", "mono")
                frame.sample_rate = RATE
                frame.pts, frame.time_base = position + round(late * RATE), Fraction(1, RATE)
                for converted in frames.resample(frame):
                    packets += stream.encode(converted)
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return file.getvalue()


def retimed(data: bytes, format: str, change) -> bytes:
    """The packets of a file's sound with other time stamps: change(seconds) is added; None drops a packet."""
    file = io.BytesIO()
    with av.open(io.BytesIO(data)) as old, av.open(file, "w", format=format) as new:
        track = old.streams.audio[0]
        copy = new.add_stream_from_template(track)
        for packet in old.demux(track):
            if packet.dts is None or (shift := change(float(packet.pts * packet.time_base))) is None:
                continue
            packet.pts += round(shift / packet.time_base)
            packet.dts += round(shift / packet.time_base)
            packet.stream = copy
            new.mux(packet)
    return file.getvalue()


class Pipe:
    """Bytes that are read once, some at a time."""

    name = "pipe"

    def __init__(self, data: bytes):
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(min(size, 1000) if size >= 0 else -1)

    def seekable(self) -> bool:
        return False


LATE = {"matroska": "aac", "mp4": "aac", "mpegts": "mp2", "webm": "libopus"}


@pytest.mark.parametrize("format", ["matroska", "mp4", "mpegts"])
@pytest.mark.parametrize("pipe", [False, True])
def test_sound_that_starts_after_the_picture(format, pipe):
    data = container(format, LATE[format], [beeps(2, (0.5, 1.5))], late=3.0, picture=True)
    samples = load_audio(Pipe(data) if pipe else data)
    assert starts_of(samples) == pytest.approx([3.5, 4.5], abs=0.05)


@pytest.mark.parametrize("format", ["matroska", "webm", "mpegts", "mp4"])
def test_gaps_in_time_become_silence(format):
    data = container(format, LATE[format], [beeps(4, (0.5, 1.5, 3.0))])
    paused = retimed(data, format, lambda seconds: 0.0 if seconds < 2.2 else 20.0)
    assert starts_of(load_audio(paused)) == pytest.approx([0.5, 1.5, 23.0], abs=0.05)
    lossy = retimed(data, format, lambda seconds: None if 1.9 < seconds < 2.6 else 0.0)
    assert starts_of(load_audio(lossy)) == pytest.approx([0.5, 1.5, 3.0], abs=0.05)
    np.testing.assert_array_equal(np.concatenate(list(read_blocks(paused, 0.7))), load_audio(paused))


def test_a_jump_of_days_is_not_filled():
    data = container("matroska", "aac", [beeps(4, (0.5, 3.0))])
    broken = retimed(data, "matroska", lambda seconds: 0.0 if seconds < 2 else 200_000.0)
    warnings = []
    samples = load_audio(broken, warn=warnings.append)
    assert starts_of(samples) == pytest.approx([0.5, 3.0], abs=0.05)
    [warning] = warnings
    assert "55.6 h" in warning and "6 h of silence" in warning


def test_stamps_that_go_back_lose_nothing():
    data = container("webm", "libopus", [beeps(4, (0.5, 3.0))])
    assert starts_of(load_audio(data + data)) == pytest.approx([0.5, 3.0, 4.5, 7.0], abs=0.05)


def frames_of(steps: list[tuple[float, float]]) -> tuple[list[float], float]:
    """Runs a clock over frames, given as (gap before it, length); its positions and its silence."""
    clock, stamp, positions, silence = Clock(0.0), 0.0, [], 0.0
    stamps = []
    for gap, length in steps:
        stamp += gap
        stamps.append(stamp)
        stamp += length
    for (_, length), own, following in zip(steps, stamps, [*stamps[1:], None], strict=True):
        silence += clock.gap_before(own, following)
        positions.append(clock.position - own)
        clock.position += length
    return positions, silence


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0.01, 0.1)), min_size=1, max_size=50))
def test_no_frame_is_early_by_more_than_jitter(steps):
    positions, silence = frames_of(steps)
    assert all(-MIN_GAP_SECONDS <= error <= 1e-6 for error in positions)
    assert silence <= sum(gap for gap, _ in steps) + 1e-6


@given(st.lists(st.floats(-0.4, 0.4), min_size=2, max_size=200))
def test_jitter_does_not_add_up(jitter):
    clock, silence = Clock(0.0), 0.0
    for index, shift in enumerate(jitter):
        silence += clock.gap_before(index + shift, None)
        clock.position += 1.0
    assert silence <= max(0.0, *jitter) + 1e-6


@given(st.floats(-1e9, 1e9).filter(lambda jump: abs(jump) > RESTART_SECONDS), st.integers(1, 8))
def test_one_broken_stamp_is_ignored(jump, place):
    clock, stamps = Clock(0.0), [float(index) for index in range(10)]
    stamps[place] += jump if abs(jump) > 2 else 3 * jump
    silence = 0.0
    for own, following in zip(stamps, [*stamps[1:], None], strict=True):
        silence += clock.gap_before(own, following)
        clock.position += 1.0
    assert silence == 0.0


@given(st.lists(st.floats(0, 1e6), max_size=30))
def test_silence_is_bounded(jumps):
    clock = Clock(0.0)
    stamp = 0.0
    assert sum(clock.gap_before(stamp := stamp + jump, None) for jump in jumps) <= MAX_SILENCE_SECONDS
    assert all(jump <= MAX_SILENCE_SECONDS for jump in jumps) or clock.ignored_seconds


def test_damaged_packets_become_silence():
    data = bytearray(container("ipod", "aac", [beeps(4, (0.5, 3.0))]))
    start, end = data.index(b"mdat") + 4, len(data)
    if data.index(b"moov") > start:
        end = data.index(b"moov")
    first = start + (end - start) * 40 // 100
    data[first : first + (end - start) // 5] = bytes((end - start) // 5)
    warnings = []
    samples = load_audio(bytes(data), warn=warnings.append)
    assert starts_of(samples)[-1] == pytest.approx(3.0, abs=0.05)
    assert "damaged" in warnings[0] and len(warnings) == 1


def test_the_default_track_is_read():
    first, second = beeps(3, (0.5,)), beeps(3, (1.5,))
    data = container("matroska", "aac", [first, second], default=1)
    for source in (lambda: data, lambda: Pipe(data)):
        warnings = []
        assert starts_of(load_audio(source(), warn=warnings.append)) == pytest.approx([1.5], abs=0.05)
        assert len(warnings) == 1 and "2 sound tracks; track 2 is read; choose another" in warnings[0]
        for track, start in ((1, 0.5), (2, 1.5)):
            warnings = []
            samples = load_audio(source(), track=track, warn=warnings.append)
            assert starts_of(samples) == pytest.approx([start], abs=0.05)
            assert not warnings
        with pytest.raises(AudioError, match="2 sound tracks, so there is no track 3"):
            load_audio(source(), track=3)


def test_a_mute_track_gives_way_to_the_next():
    data = container("mp4", "aac", [np.zeros(3 * RATE, np.float32), beeps(3, (1.5,))])
    warnings = []
    assert starts_of(load_audio(data, warn=warnings.append)) == pytest.approx([1.5], abs=0.05)
    assert "because track 1 is mute" in warnings[0]
    assert not starts_of(load_audio(data, track=1))
    mute = container("mp4", "aac", [np.zeros(RATE, np.float32)] * 2)
    assert len(load_audio(mute)) > 0.9 * SAMPLE_RATE


def written(samples: np.ndarray, rate: int, format: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


LINKS = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16"), ("WAV", "PCM_16")]


@pytest.mark.parametrize(("format", "subtype"), LINKS)
@pytest.mark.parametrize("second_rate", [16_000, 24_000])
def test_files_joined_by_cat_are_read_whole(format, subtype, second_rate):
    data = written(beeps(3, (1.0,), 16_000), 16_000, format, subtype)
    data += written(beeps(4, (2.0,), second_rate), second_rate, format, subtype)
    samples = load_audio(data)
    assert starts_of(samples) == pytest.approx([1.0, 5.0], abs=0.05)
    np.testing.assert_array_equal(np.concatenate(list(read_blocks(data, 0.9))), samples)
    assert starts_of(load_audio(data, 4.0)) == pytest.approx([1.0], abs=0.05)
    if format == "OGG":
        assert starts_of(load_audio(Pipe(data))) == pytest.approx([1.0, 5.0], abs=0.05)


@given(st.lists(st.sampled_from([0.3, 0.5, 1.1]), min_size=1, max_size=4), st.sampled_from(LINKS[:2]))
def test_links_of_any_number_add_up(lengths, kind):
    links = [written(beeps(seconds, (), 16_000), 16_000, *kind) for seconds in lengths]
    assert len(load_audio(b"".join(links))) == sum(len(load_audio(link)) for link in links)


def test_an_inverted_channel_is_undone():
    sound = beeps(4, (0.5, 2.5), SAMPLE_RATE)
    for other in (-sound, -0.7 * sound):
        samples = load_audio((np.stack([sound, other], axis=1), SAMPLE_RATE))
        np.testing.assert_allclose(samples, sound, atol=1e-6)


@pytest.mark.parametrize("kind", ["hiss", "hum", "rumble"])
@pytest.mark.parametrize("side", [0, 1])
def test_a_dead_channel_does_not_cover_speech(kind, side, speak):
    sound = speak(0.5, "hello world", 4.0, "again", 0.5)
    random, seconds = np.random.default_rng(0), np.arange(len(sound)) / SAMPLE_RATE
    noise = {
        "hiss": random.normal(0, 0.1, len(sound)),
        "hum": 0.3 * np.sin(2 * np.pi * 50 * seconds),
        "rumble": 0.002 * np.cumsum(random.normal(0, 1, len(sound))),
    }[kind].astype(np.float32)
    channels = [sound, noise - noise.mean()]
    both = np.stack(channels[:: -1 if side else 1], axis=1)
    samples = load_audio((both, SAMPLE_RATE))
    np.testing.assert_allclose(samples[SAMPLE_RATE:], sound[SAMPLE_RATE:], atol=0.02)


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_independent_channels_are_averaged(seed, channels):
    random = np.random.default_rng(seed)
    sound = random.normal(0, 0.1, (3 * SAMPLE_RATE, channels)).astype(np.float32)
    sound *= (0.01 + np.sin(np.arange(len(sound)) / 3000) ** 4)[:, None].astype(np.float32)
    np.testing.assert_array_equal(load_audio((sound, SAMPLE_RATE)), sound.mean(axis=1, dtype=np.float32))


def test_channels_can_be_chosen():
    left, right = beeps(3, (0.5,), SAMPLE_RATE), beeps(3, (1.5,), SAMPLE_RATE)
    both = np.stack([left, right], axis=1), SAMPLE_RATE
    np.testing.assert_array_equal(load_audio(both, channel="left"), left)
    np.testing.assert_array_equal(load_audio(both, channel="right"), right)
    np.testing.assert_array_equal(np.concatenate(list(read_blocks(both, 0.7, channel="each"))), both[0])
    mid, side = np.concatenate(list(read_blocks(both, 0.7, channel="mid and side"))).T
    np.testing.assert_allclose(np.stack([mid + side, mid - side], axis=1), both[0], atol=1e-7)
    np.testing.assert_array_equal(mid, load_audio(both))
    with pytest.raises(AudioError, match="only one channel"):
        load_audio(left, channel="right")
    with pytest.raises(AudioError, match="6 channels"):
        list(read_blocks((np.zeros((100, 6), np.float32), SAMPLE_RATE), channel="each"))


def test_each_party_in_order_of_time(recognizer, speak):
    left = speak(0.5, "hello world", 6.0, "again", 3.0)
    right = speak(1.5, "other party", 2.0, "more", 8.0)
    length = min(len(left), len(right))
    both = np.stack([left[:length], right[:length]], axis=1), SAMPLE_RATE
    each = recognizer.transcribe(both, channel="each")
    assert {segment.channel for segment in each.segments} == {"left", "right"}
    assert [segment.start for segment in each.segments] == sorted(s.start for s in each.segments)
    for channel in ("left", "right"):
        alone = recognizer.transcribe(both, channel=channel)
        assert [s.text for s in each.segments if s.channel == channel] == [s.text for s in alone.segments]
    assert "left: hello world" in each.to_txt()
    assert "<v right>other party" in each.to_vtt()
    assert "right: other party" in each.to_srt()
    assert [s["channel"] for s in each.to_dict()["segments"]] == [s.channel for s in each.segments]
    assert set(CHANNELS) == {"left", "right", "each"}
    with pytest.raises(ValueError, match="no channel"):
        recognizer.transcribe(both, channel="middle")


def test_parties_who_speak_at_once_are_separated(speak):
    left, right = speak(0.5, "hello my world", 1.0), speak(0.5, "other parties talking", 1.0)
    right = np.interp(np.arange(0, len(right), 1.37), np.arange(len(right)), right)  # with a higher voice
    length = min(len(left), len(right))
    both = np.stack([left[:length], right[:length]], axis=1).astype(np.float32)

    def found(both: np.ndarray) -> list[str | None]:
        mid_and_side = both @ np.float32([[0.5, 0.5], [0.5, -0.5]])
        return [utterance.channel for utterance in cut_mean([mid_and_side])]

    assert set(found(both)) == {"left", "right"}
    assert found(both[:, [0, 0]]) == [None]
    echo = both[:, 0] + np.roll(both[:, 0], 100)  # one voice by two microphones of a room
    assert found(np.stack([both[:, 0], echo], axis=1)) == [None]
    turns = np.concatenate([both * [1, 0], both * [0, 1]]).astype(np.float32)
    assert set(found(turns)) == {None}


def hiss(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.02, length).astype(np.float32)


def reverberant(sound: np.ndarray, seed: int) -> np.ndarray:
    """What a microphone of a noisy, echoing room records of it."""
    random = np.random.default_rng(seed)
    length = SAMPLE_RATE // 2
    response = random.normal(0, 0.03, length) * 10 ** (-3 * np.arange(length) / length)
    response[0 if seed else 100] += 1
    echo = scipy.signal.fftconvolve(sound, response)[: len(sound)]
    return (echo + random.normal(0, 0.2 * echo.std(), len(echo))).astype(np.float32)


def test_two_microphones_of_a_room_are_read_once(shared_data):
    """And two parties apart, though each is softly recorded in the other's channel, too."""
    lines = (shared_data / "dev-read.jsonl").read_text(encoding="utf-8").splitlines()[:12:3]
    clips = [load_audio(shared_data / json.loads(line)["audio_filepath"]) for line in lines]
    for one, other in pairwise(clips):
        length = min(len(one), len(other))
        one, other = one[:length], other[:length]
        for first, second, channels in (
            (reverberant(one, 0), reverberant(one, 1), {None}),
            (
                one + 0.5 * hiss(length, 0),
                one + 0.5 * hiss(length, 1),
                {None},
            ),  # as wide music beside a voice
            (one + 0.1 * other, other + 0.1 * one, {"left", "right"}),
        ):
            mid_and_side = np.stack([first + second, first - second], axis=1) / 2
            assert {utterance.channel for utterance in cut_mean([mid_and_side])} == channels


def test_channels_of_one_voice_cost_no_detection_of_speech(speak, monkeypatch):
    sound = speak(0.5, "hello my world", 1.0)
    calls = []
    monkeypatch.setattr(parties, "SpeechDetector", lambda: calls.append(1))
    for side in (np.zeros_like(sound), 0.3 * sound, 0.5 * np.roll(sound, 50), sound - hiss(len(sound), 0)):
        assert len(list(cut_mean([np.stack([sound, side], axis=1)]))) == 1
    assert not calls


@given(st.integers(1, 4))
def test_cutting_each_does_not_depend_on_blocks(parts):
    random = np.random.default_rng(parts)
    both = random.normal(0, 0.1, (SAMPLE_RATE * 5, 2)).astype(np.float32)
    whole = [(u.start, u.channel, len(u.samples)) for u in cut_each([both])]
    assert [(u.start, u.channel, len(u.samples)) for u in cut_each(np.array_split(both, parts))] == whole


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes")
def test_a_named_pipe_is_opened_once_and_read_as_it_comes(tmp_path, recognizer, speak):
    data = written(speak(0.5, "hello world", 8.0), SAMPLE_RATE, "WAV", "PCM_16")
    data = data[:40] + b"\xff\xff\xff\xff" + data[44:]  # a length that is not known yet
    path = tmp_path / "pipe"
    os.mkfifo(path)
    first_text = threading.Event()
    wrote = []

    def write() -> None:
        with open(path, "wb", buffering=0) as pipe:
            pipe.write(data)
            wrote.append(first_text.wait(30))
            pipe.write(data[44:])

    writer = threading.Thread(target=write)
    writer.start()
    segments = recognizer.segments(path)
    assert next(segments).text == "hello world"
    first_text.set()
    assert [segment.text for segment in segments] == ["hello world"]
    writer.join()
    assert wrote == [True]
    assert duration_seconds(path) is None  # without opening it, which would wait for a writer


@pytest.mark.parametrize("name", ["moov last", "fragmented", "sphere"])
def test_what_must_be_read_back_and_forth_comes_through_a_pipe(name):
    sound = beeps(3, (1.0,))
    data = written(sound, RATE, "NIST", "PCM_16") if name == "sphere" else container("ipod", "aac", [sound])
    assert starts_of(load_audio(Pipe(data))) == pytest.approx([1.0], abs=0.05)


def test_a_fragmented_mp4_is_read_as_it_comes(tmp_path):
    path = tmp_path / "live.mp4"
    sound = (0.1 * np.random.default_rng(0).normal(size=20 * RATE)).astype(np.float32)
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "500000"}
    with av.open(str(path), "w", format="mp4", options=options) as output:
        stream = output.add_stream("aac", rate=RATE, layout="mono")
        for position in range(0, len(sound), 1024):
            frame = av.AudioFrame.from_ndarray(sound[None, position : position + 1024], "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, position, Fraction(1, RATE)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    pipe = Pipe(path.read_bytes())
    next(read_blocks(pipe, 1.0))
    assert pipe.read(1)  # it is not at its end yet


def test_other_formats_are_read():
    sound = beeps(3, (1.0,), 16_000)
    wav = written(sound, 16_000, "WAV", "PCM_16")
    tagged = b"ID3\x03\x00\x00\x00\x00\x0f\x7f" + bytes(2047) + wav
    for source in (tagged, Pipe(tagged), written(sound, 16_000, "NIST", "PCM_16"), Pipe(wav)):
        np.testing.assert_array_equal(load_audio(source), load_audio(wav))
    mxf = container("mxf", "pcm_s16le", [beeps(3, (1.0,))], picture=True)
    assert starts_of(load_audio(mxf)) == pytest.approx([1.0], abs=0.05)


def warnings_of(data: bytes) -> list[str]:
    warnings: list[str] = []
    load_audio(data, warn=warnings.append)
    return warnings


def test_warnings_fit_what_was_lost():
    sound = beeps(4, (1.0,), 16_000)
    for format in ("WAV", "AIFF", "FLAC"):
        data = written(
            sound + 1e-3 * np.random.default_rng(0).normal(size=len(sound)), 16_000, format, "PCM_16"
        )
        assert warnings_of(data) == []
        [warning] = warnings_of(data[: len(data) // 2])
        assert "is truncated: its header states 4.0 s, it holds" in warning
    gsm = written(beeps(4, (1.0,), 8_000), 8_000, "WAV", "GSM610")
    assert warnings_of(gsm) == []
    for source in (b"", Pipe(b"")):
        with pytest.raises(AudioError, match="is empty"):
            load_audio(source)


def test_warnings_reach_the_transcript(recognizer, speak, tmp_path):
    path = tmp_path / "half.wav"
    data = written(speak(0.5, "hello world", 4.0), SAMPLE_RATE, "WAV", "PCM_16")
    path.write_bytes(data[: len(data) * 2 // 3])
    transcript = recognizer.transcribe(path)
    assert len(transcript.warnings) == 1 and repr(str(path)) in transcript.warnings[0]
    assert transcript.to_dict()["warnings"] == list(transcript.warnings)
    warnings = []
    list(recognizer.segments(path, warn=warnings.append))
    assert tuple(warnings) == transcript.warnings


def test_bare_arrays_are_mono_at_16_khz(recognizer, speak):
    samples = speak(0.5, "hello world", 0.5)
    text = recognizer.transcribe(samples).text
    assert text == "hello world" == recognizer.transcribe(np.round(samples * 32767).astype(np.int16)).text
    for wrong in (samples[None], samples[:, None], np.zeros((10, 2), np.float32), np.float32(1)):
        with pytest.raises(AudioError, match=r"shape|no source"):
            load_audio(wrong)


@pytest.mark.parametrize(("format", "codec"), [("mp3", "libmp3lame"), ("ipod", "aac"), ("matroska", "aac")])
def test_a_stretch_deep_in_a_file_is_that_of_the_whole(format, codec, tmp_path):
    random = np.random.default_rng(0)
    sound = (0.1 * random.normal(size=120 * RATE)).astype(np.float32)
    path = tmp_path / "long"
    path.write_bytes(container(format, codec, [sound]))
    whole = load_audio(path)
    for offset in (4.0, 7.3, 60.01, 110.0):
        stretch = load_audio(path, offset, 2.0)
        first = round(offset * SAMPLE_RATE)
        expected = whole[first : first + len(stretch)]
        np.testing.assert_allclose(stretch[500:-500], expected[500:-500], atol=2e-3)


def test_a_stretch_of_an_hour_is_read_at_once(tmp_path):
    path = tmp_path / "hour.mp3"
    path.write_bytes(30 * container("mp3", "libmp3lame", [beeps(60, (1.0,))]))
    load_audio(path, 1.0, 1.0)
    started = time.perf_counter()
    whole = sum(len(block) for block in read_blocks(path))
    whole_seconds, started = time.perf_counter() - started, time.perf_counter()
    load_audio(path, 1700.0, 5.0)
    assert whole > 1790 * SAMPLE_RATE
    assert time.perf_counter() - started < whole_seconds / 4


def test_entries_of_a_file_decode_it_once(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    sound = random.uniform(-0.5, 0.5, 60 * SAMPLE_RATE).astype(np.float32)
    soundfile.write(tmp_path / "long.flac", sound, SAMPLE_RATE)
    soundfile.write(tmp_path / "one.wav", sound[:16_000], SAMPLE_RATE)
    places = [(30.0, 4.0), (1.0, 2.0), (2.5, 30.0), (59.0, 5.0), (70.0, 1.0), (1.0, 2.0)]
    entries = [Entry(str(i), tmp_path / "long.flac", "", d, o) for i, (o, d) in enumerate(places)]
    entries.insert(2, Entry("one", tmp_path / "one.wav", "", 1.0))
    entries.append(Entry("missing", tmp_path / "missing.wav", "", 1.0))
    reads = []
    import training.recordings as recordings

    monkeypatch.setattr(recordings, "read_blocks", lambda *a, **k: reads.append(a) or read_blocks(*a, **k))
    results = list(decode_entries(entries))
    assert len(reads) == 1
    for entry, result in zip(entries, results, strict=True):
        try:
            expected = load_audio(entry.audio, entry.offset_seconds, entry.duration_seconds)
        except AudioError as error:
            assert str(result) == str(error)
        else:
            np.testing.assert_array_equal(result, expected)


def test_ending_a_silent_pipe(tmp_path):
    """Ctrl-C ends the program though nobody writes."""
    command = (
        "import os, signal\n"
        "from asr.ahead import map_ahead\n"
        # Which a shell makes the programs that it starts in the background ignore.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "read, write = os.pipe()\n"
        "def items():\n"
        "    yield 1\n"
        "    yield os.read(read, 1)\n"
        "for item, result in map_ahead(lambda x: x, items(), 2):\n"
        "    print(result, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout.readline() == b"1\n"
    process.send_signal(2)
    assert process.wait(20) != 0
