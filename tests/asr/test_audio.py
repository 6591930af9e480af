"""asr/audio.py on sound that is synthesised here, in every container, whole and damaged."""

import io
import subprocess
import sys
import time
import tracemalloc
from contextlib import suppress
from fractions import Fraction
from functools import cache

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from asr.audio import SAMPLE_RATE, AudioError, duration_seconds, load_audio, read_blocks

TONE = 440.0  # Hz
SECONDS = 3.0
LEVEL = 0.3


def tone(rate: int, seconds: float = SECONDS, channels: int = 1) -> np.ndarray:
    """A tone that grows, so that a shift in time shows: float32 [samples, channels]."""
    t = np.arange(round(rate * seconds)) / rate
    mono = LEVEL * t / seconds * np.sin(2 * np.pi * TONE * t)
    return np.repeat(mono[:, None], channels, axis=1).astype(np.float32)


def with_soundfile(samples: np.ndarray, rate: int, container: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


def with_ffmpeg(samples: np.ndarray, rate: int, container: str, codec: str) -> bytes:
    file = io.BytesIO()
    layout = {1: "mono", 2: "stereo"}[samples.shape[1]]
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
        sound.sample_rate = rate
        fifo = av.AudioFifo()
        for frame in av.AudioResampler(format=stream.format.name, layout=layout, rate=rate).resample(sound):
            fifo.write(frame)
        position, size = 0, stream.codec_context.frame_size or 1024
        while frame := fifo.read(size, partial=True):
            frame.pts, frame.time_base = position, Fraction(1, rate)
            position += frame.samples
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


CONTAINERS = {  # name: (writer, container, codec)
    "wav": (with_soundfile, "WAV", "PCM_16"),
    "flac": (with_soundfile, "FLAC", "PCM_24"),
    "ogg-vorbis": (with_soundfile, "OGG", "VORBIS"),
    "ogg-opus": (with_soundfile, "OGG", "OPUS"),
    "aiff": (with_soundfile, "AIFF", "PCM_24"),
    "mp3": (with_ffmpeg, "mp3", "libmp3lame"),
    "m4a": (with_ffmpeg, "ipod", "aac"),
    "m4a-alac": (with_ffmpeg, "ipod", "alac"),
    "aac": (with_ffmpeg, "adts", "aac"),
    "mp4": (with_ffmpeg, "mp4", "aac"),
    "webm": (with_ffmpeg, "webm", "libopus"),
    "mkv-flac": (with_ffmpeg, "matroska", "flac"),
    "ac3": (with_ffmpeg, "ac3", "ac3"),
}


@cache
def recording(name: str) -> bytes:
    writer, container, codec = CONTAINERS[name]
    return writer(tone(48_000, channels=2), 48_000, container, codec)


def assert_is_tone(samples: np.ndarray, seconds: float = SECONDS, slack_seconds: float = 0.05) -> None:
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert abs(len(samples) / SAMPLE_RATE - seconds) < slack_seconds
    expected = tone(SAMPLE_RATE, seconds)[:, 0]
    shared = min(len(samples), len(expected))
    shifts = range(-round(slack_seconds * SAMPLE_RATE), 1) if slack_seconds > 0.01 else [0]
    errors = [
        np.abs(np.roll(samples[:shared], shift) - expected[:shared])[2000:-2000].max() for shift in shifts
    ]
    assert min(errors) < 0.05 * LEVEL


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container(name):
    assert_is_tone(load_audio(recording(name)))


@pytest.mark.parametrize("name", CONTAINERS)
def test_blocks_are_the_whole(name):
    whole = load_audio(recording(name))
    blocks = list(read_blocks(recording(name), 0.7))
    assert {len(block) for block in blocks[:-1]} == {round(0.7 * SAMPLE_RATE)}
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-6)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_stretch_is_the_same_sound(name):
    whole = load_audio(recording(name))
    stretch = load_audio(recording(name), offset_seconds=1.0, duration_seconds=0.5)
    assert len(stretch) == SAMPLE_RATE // 2
    # Away from where the resampler meets the cut.
    np.testing.assert_allclose(
        stretch[500:-500], whole[SAMPLE_RATE + 500 : SAMPLE_RATE * 3 // 2 - 500], atol=1e-3
    )


@pytest.mark.parametrize("name", CONTAINERS)
def test_duration_is_known_without_decoding(name):
    slack = 0.6 if name == "aac" else 0.1  # raw AAC states no length: it is guessed from the bit rate
    assert duration_seconds(recording(name)) == pytest.approx(SECONDS, abs=slack)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_every_rate(rate):
    assert_is_tone(load_audio(with_soundfile(tone(rate), rate, "WAV", "FLOAT")), slack_seconds=0.001)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_every_kind_of_wav(subtype):
    assert_is_tone(load_audio(with_soundfile(tone(16_000), 16_000, "WAV", subtype)), slack_seconds=0.001)


def test_channels_are_averaged():
    channels = np.stack([np.full(1600, 0.3), np.full(1600, -0.1), np.full(1600, 0.1)], axis=1)
    channels *= np.where(np.arange(1600) % 2, 1, -1)[:, None]
    expected = channels.mean(axis=1)
    np.testing.assert_allclose(load_audio((channels, SAMPLE_RATE)), expected, atol=1e-6)
    wav = with_soundfile(channels, SAMPLE_RATE, "WAV", "FLOAT")
    np.testing.assert_allclose(load_audio(wav), expected, atol=1e-6)


def test_every_kind_of_source(tmp_path):
    data = recording("mp3")
    path = tmp_path / "ä b.mp3"
    path.write_bytes(data)
    expected = load_audio(data)
    np.testing.assert_array_equal(load_audio(path), expected)
    np.testing.assert_array_equal(load_audio(str(path)), expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(load_audio(file), expected)
        np.testing.assert_array_equal(load_audio(file), expected)  # from its start again
        assert not file.closed


def test_standard_input_is_a_pipe():
    code = (
        "from asr.audio import duration_seconds, load_audio;"
        "print(duration_seconds('-'), len(load_audio('-')))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], input=recording("flac"), capture_output=True, check=True
    )
    assert run.stdout.split() == [b"None", str(len(load_audio(recording("flac")))).encode()]
    assert run.stderr == b""


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_integers_are_scaled_by_their_type(dtype):
    limits = np.iinfo(dtype)
    middle = 128 if dtype == np.uint8 else 0
    samples = np.array([limits.min, middle, limits.max] * 10, dtype)
    expected = np.array([-1.0, 0.0, 1.0] * 10)
    np.testing.assert_allclose(load_audio((samples, SAMPLE_RATE)), expected, atol=0.01)


def test_a_constant_offset_is_removed_and_nothing_else():
    clean = tone(SAMPLE_RATE)[:, 0]
    np.testing.assert_array_equal(load_audio((clean, SAMPLE_RATE)), clean)
    np.testing.assert_allclose(load_audio((clean + 0.2, SAMPLE_RATE)), clean, atol=1e-4)


@settings(max_examples=50)
@given(
    npst.arrays(
        st.sampled_from([np.uint8, np.int16, np.int32, np.float32, np.float64]),
        st.tuples(st.integers(1, 3000), st.integers(1, 8)) | st.tuples(st.integers(1, 3000)),
        elements={"min_value": 0, "max_value": 1},
    ),
    st.integers(8_000, 192_000),
)
def test_any_array_gives_its_length(samples, rate):
    found = load_audio((samples, rate))
    assert found.dtype == np.float32
    assert abs(len(found) - len(samples) * SAMPLE_RATE / rate) <= 1
    assert np.abs(found).max(initial=0) <= 2.5
    np.testing.assert_array_equal(np.concatenate([found[:0], *read_blocks((samples, rate), 0.01)]), found)


def wav_header(**changes) -> bytes:
    """A WAV whose header claims what it wants: channels, rate, length."""
    data = bytearray(with_soundfile(tone(SAMPLE_RATE, 0.5), SAMPLE_RATE, "WAV", "PCM_16"))
    fields = {"channels": (22, 2), "rate": (24, 4), "length": (data.index(b"data") + 4, 4)}
    for field, value in changes.items():
        start, size = fields[field]
        data[start : start + size] = value.to_bytes(size, "little")
    return bytes(data)


REFUSED = {
    "nothing": b"",
    "text": b"Dear sir or madam,\n" * 300,
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(2000),
    "zeros": bytes(10_000),
    "junk": np.random.default_rng(0).bytes(50_000),
    "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n",
    "half a header": with_soundfile(tone(16_000), 16_000, "WAV")[:20],
    "half a page of Ogg": b"OggS\0\2",
    "no samples": with_soundfile(tone(16_000)[:0], 16_000, "WAV"),
    "not a number": with_soundfile(np.array([0.1, np.nan, 0.1] * 100), 16_000, "WAV", "FLOAT"),
    "infinite": with_soundfile(np.array([0.1, np.inf, 0.1] * 100), 16_000, "WAV", "FLOAT"),
    "too loud": with_soundfile(30_000 * tone(16_000), 16_000, "WAV", "FLOAT"),
    "absurd rate": wav_header(rate=2_000_000_000),
    "rate of nothing": wav_header(rate=0),
    "absurd channels": wav_header(channels=65_535),
    "empty array": (np.empty(0, np.float32), 16_000),
    "array of NaN": (np.full(100, np.nan), 16_000),
    "array without a known scale": (np.zeros(100, np.int64), 16_000),
    "array of the wrong order": (np.zeros((2, 16_000), np.float32), 16_000),
    "swapped pair": (16_000, np.zeros(100)),
    "rate of an array": (np.zeros(100), 0),
    "number": 17,
    "text file": io.StringIO("hello"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refusals_are_one_line(kind, capfd):
    with pytest.raises(AudioError) as refusal:
        load_audio(REFUSED[kind])
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith("the given ")
    with pytest.raises(AudioError):
        list(read_blocks(REFUSED[kind]))
    assert capfd.readouterr().err == ""


def test_refusals_name_the_file(tmp_path):
    notes = tmp_path / "my\nnotes.txt"
    notes.write_text("no sound")
    closed = notes.open("rb")
    closed.close()
    for source in (notes, str(notes), closed, tmp_path, tmp_path / "missing.wav", "null\0.wav"):
        with pytest.raises(AudioError) as refusal:
            load_audio(source)
        assert "\n" not in str(refusal.value)
        assert repr(str(getattr(source, "name", source) if source is closed else source)) in str(
            refusal.value
        )
        with pytest.raises(AudioError):
            duration_seconds(source)


@pytest.mark.parametrize("rate", [SAMPLE_RATE, 48_000])
def test_a_stretch_of_an_array_is_the_same_sound(rate):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * rate).astype("float32")
    stretch = load_audio((samples, rate), offset_seconds=0.75, duration_seconds=0.5)
    expected = load_audio((samples[3 * rate // 4 : 5 * rate // 4], rate))
    assert len(stretch) == SAMPLE_RATE // 2
    inside = slice(200, -200)  # resampling looks some samples ahead
    np.testing.assert_allclose(stretch[inside], expected[inside], atol=1e-3)


def test_a_stretch_outside_is_refused():
    for name in ("wav", "mp3"):
        with pytest.raises(AudioError, match="ends before 60"):
            load_audio(recording(name), offset_seconds=60)
        for stretch in (
            (-1.0, None),
            (0.0, 0.0),
            (0.0, -1.0),
            (float("nan"), None),
            (float("inf"), None),
            (0.0, float("inf")),
        ):
            with pytest.raises(AudioError, match="cannot read"):
                load_audio(recording(name), *stretch)
    with pytest.raises(AudioError, match="too short"):
        list(read_blocks(recording("wav"), 0.0))


@pytest.mark.parametrize("length", [0, 2**31 - 1, 2**32 - 1])
def test_a_wav_of_unknown_length_is_read_to_its_end(length):
    """As recorders leave it that write to a pipe or are killed."""
    assert len(load_audio(wav_header(length=length))) == SAMPLE_RATE // 2


@pytest.mark.parametrize("name", ["wav", "flac", "ogg-vorbis", "ogg-opus", "mp3", "aac", "webm", "mkv-flac"])
def test_the_first_half_of_a_file_is_kept(name):
    writer, container, codec = CONTAINERS[name]
    seconds = 12.0
    whole = writer(tone(48_000, seconds, channels=2), 48_000, container, codec)
    half = load_audio(whole[: len(whole) // 2])
    assert 0.3 * seconds < len(half) / SAMPLE_RATE < 0.8 * seconds
    np.testing.assert_allclose(half[:16_000], load_audio(whole)[:16_000], atol=0.01)


def test_sound_after_damaged_flac_is_kept():
    data = bytearray(with_soundfile(tone(16_000, 20.0), 16_000, "FLAC"))
    data[len(data) // 2] ^= 255
    assert len(load_audio(bytes(data))) > 19 * SAMPLE_RATE


DAMAGED = ["wav", "flac", "ogg-vorbis", "ogg-opus", "mp3", "m4a", "webm"]


@settings(max_examples=200)
@given(st.sampled_from(DAMAGED), st.integers(0, 2**32 - 1), st.sampled_from(["cut", "header", "anywhere"]))
def test_damage_gives_sound_or_one_line(name, seed, kind):
    random = np.random.default_rng(seed)
    data = bytearray(recording(name))
    if kind == "cut":
        del data[random.integers(len(data)) :]
    for position in random.integers(300 if kind == "header" else max(1, len(data)), size=8):
        if position < len(data) and kind != "cut":
            data[position] ^= 1 << random.integers(8)
    started = time.monotonic()
    try:
        samples = load_audio(bytes(data))
    except AudioError as refusal:
        assert "\n" not in str(refusal)
    else:
        assert samples.dtype == np.float32
        assert len(samples) > 0
        assert np.abs(samples).max() <= 1000  # False for NaN too
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # printed from a callback
def test_decoders_are_quiet(name, capfd):
    random = np.random.default_rng(1)
    for reach in [200, 2000, len(recording(name))] * 20:
        data = bytearray(recording(name))
        for position in random.integers(4, min(reach, len(data)), size=4):
            data[position] = random.integers(256)
        with suppress(AudioError):
            load_audio(bytes(data))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["flac", "mp3", "array"])
def test_blocks_take_little_memory(name, tmp_path):
    minutes = 6
    path = tmp_path / f"long.{name}"
    sound = tone(SAMPLE_RATE, 60.0 * minutes)
    if name == "array":
        source = (sound, SAMPLE_RATE)
    else:
        writer, container, codec = CONTAINERS[name]
        path.write_bytes(writer(sound, SAMPLE_RATE, container, codec))
        source = path
    tracemalloc.start()
    found = sum(len(block) for block in read_blocks(source, 10.0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == pytest.approx(60 * minutes * SAMPLE_RATE, rel=1e-3)
    assert peak < 8_000_000 < sound.nbytes / 2  # bytes; the same for ten hours
