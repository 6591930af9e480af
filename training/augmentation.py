"""Degraded sound: speed, noise, rooms, telephones, gain, MP3.

The same functions change training utterances at random (`augment`) and test utterances under a named
condition (`degrade`). All of them take and return float32 samples at 16 kHz.
"""

import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import scipy.signal
import soxr

from asr.audio import SAMPLE_RATE, load_audio

Random = np.random.Generator

TELEPHONE_RATE = 8_000
TELEPHONE_BAND_HZ = (300, 3_400)
MU = 255  # of the telephone's companding, ITU-T G.711
SPEED_RANGE = (0.85, 1.15)
SNR_RANGE_DB = (5.0, 25.0)
GAIN_RANGE_DB = (-24.0, 6.0)
REVERBERATION_RANGE_SECONDS = (0.2, 0.7)  # time in which the room's sound falls by 60 dB
REVERBERANT_RANGE_DB = (-6.0, 3.0)  # room against direct sound
SILENCE_RANGE_SECONDS = (0.0, 1.0)  # after the utterance
BABBLE_VOICES = (5, 10)  # at the same time
BABBLE_PEAK = 0.5

# Of the test condition `reverb`: a lively living room, as loud as the direct sound.
CONDITION_REVERBERATION_SECONDS = 0.5
CONDITION_REVERBERANT_DB = 0.0

CONDITIONS = ("clean", "noise:DB", "reverb", "telephone", "gain:DB", "speed:FACTOR", "mp3:KBITS")


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Plays faster (factor > 1) or slower; pitch follows."""
    return soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE)


def change_gain(samples: np.ndarray, gain_db: float) -> np.ndarray:
    """Louder or softer; what exceeds full scale is clipped, as a sound card would."""
    return np.clip(samples * 10 ** (gain_db / 20), -1, 1).astype("float32")


def add_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float, random: Random) -> np.ndarray:
    """Mixes in a random stretch of `noise`, repeated where too short, at this ratio of mean powers."""
    start = int(random.integers(len(noise)))
    noise = np.resize(np.roll(noise, -start), len(samples))
    power, noise_power = np.mean(np.square(samples)), np.mean(np.square(noise))
    if noise_power == 0:
        return samples
    return (samples + noise * np.sqrt(power / noise_power / 10 ** (snr_db / 10))).astype("float32")


def babble(voices: Sequence[np.ndarray], length: int, random: Random) -> np.ndarray:
    """[length] of several people at once, equally loud, forwards or backwards: no word can be made out."""
    mixed = np.zeros(length, "float32")
    for voice in voices:
        voice = np.resize(np.roll(voice, -int(random.integers(len(voice)))), length)
        mixed += voice[:: random.choice([1, -1])] / max(np.sqrt(np.mean(np.square(voice))), 1e-6)
    return mixed * BABBLE_PEAK / max(np.abs(mixed).max(), 1e-6)


def add_reverberation(
    samples: np.ndarray, seconds: float, reverberant_db: float, random: Random
) -> np.ndarray:
    """Adds a room: noise that decays by 60 dB in `seconds` (Polack's model of late reverberation).

    Args:
      reverberant_db: energy of the room's response against the direct sound.
    """
    time = np.arange(1, int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    room = random.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    room *= np.sqrt(10 ** (reverberant_db / 10) / np.sum(np.square(room)))
    response = np.concatenate([[1.0], room])
    wet = scipy.signal.fftconvolve(samples, response)[: len(samples)]
    loudness = np.sqrt(np.mean(np.square(samples)) / max(np.mean(np.square(wet)), 1e-12))
    return np.clip(wet * loudness, -1, 1).astype("float32")


def telephone(samples: np.ndarray) -> np.ndarray:
    """300–3400 Hz at 8 kHz with 8-bit mu-law (ITU-T G.711), back at 16 kHz."""
    narrow = soxr.resample(samples, SAMPLE_RATE, TELEPHONE_RATE)
    band = scipy.signal.butter(4, TELEPHONE_BAND_HZ, "bandpass", fs=TELEPHONE_RATE, output="sos")
    narrow = np.clip(scipy.signal.sosfilt(band, narrow), -1, 1)
    companded = np.sign(narrow) * np.log1p(MU * np.abs(narrow)) / np.log1p(MU)
    companded = np.round(companded * 127) / 127
    narrow = np.sign(companded) * np.expm1(np.abs(companded) * np.log1p(MU)) / MU
    wide = soxr.resample(narrow.astype("float32"), TELEPHONE_RATE, SAMPLE_RATE)
    return _with_length(wide, len(samples))


def through_mp3(samples: np.ndarray, kilobits: float) -> np.ndarray:
    """Encodes to MP3 at a constant bit rate and decodes again; the encoder's delay is taken out."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as container:
        options = {"layout": "mono", "bit_rate": int(kilobits * 1000)}
        stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE, **options)
        frame = av.AudioFrame.from_ndarray(samples[None].astype("float32"), format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return _with_length(load_audio(buffer.getvalue()), len(samples))


def _with_length(samples: np.ndarray, length: int) -> np.ndarray:
    return np.pad(samples, (0, max(0, length - len(samples))))[:length]


def degrade(
    samples: np.ndarray, utterance: str, condition: str, noise_files: Sequence[Path] = (), seed: int = 0
) -> np.ndarray:
    """An utterance under a named test condition (`CONDITIONS`): the same for every recogniser, in every run.

    Args:
      utterance: id, on which with the seed the noise and the room depend.
      noise_files: recordings for the conditions that add noise.

    Raises ValueError for an unknown condition, and for noise without any recording of noise.
    """
    name, value = parse_condition(condition)
    random = np.random.default_rng(zlib.crc32(f"{seed} {utterance}".encode()))
    if name == "clean":
        return samples
    if name == "noise":
        if not noise_files:
            raise ValueError(f"{condition}: no recordings of noise; name their manifest")
        noise = load_audio(noise_files[int(random.integers(len(noise_files)))])
        return add_noise(samples, noise, value, random)
    if name == "reverb":
        return add_reverberation(samples, CONDITION_REVERBERATION_SECONDS, CONDITION_REVERBERANT_DB, random)
    if name == "telephone":
        return telephone(samples)
    return {"gain": change_gain, "speed": change_speed, "mp3": through_mp3}[name](samples, value)


def parse_condition(condition: str) -> tuple[str, float]:
    """("noise", 10.0) from "noise:10"; the value is 0 where the condition has none. Raises ValueError."""
    name, _, text = condition.partition(":")
    takes_value = {known.partition(":")[0]: ":" in known for known in CONDITIONS}
    try:
        if takes_value.get(name) is not bool(text):
            raise ValueError
        value = float(text or 0)
        if name in ("speed", "mp3") and not 0 < value < 1000:
            raise ValueError
    except ValueError:
        raise ValueError(f"condition {condition!r} is unknown: use one of {', '.join(CONDITIONS)}") from None
    return name, value


def longest(lengths: np.ndarray, probabilities: dict[str, float]) -> np.ndarray:
    """Lengths [utterances] in samples that `augment` never exceeds."""
    if probabilities["speed"]:
        lengths = np.ceil(lengths / SPEED_RANGE[0])
    if probabilities["silence"]:
        lengths = lengths + SILENCE_RANGE_SECONDS[1] * SAMPLE_RATE
    return np.asarray(lengths, dtype=int)


def augment(
    samples: np.ndarray, random: Random, probabilities: dict[str, float], noises: Sequence[np.ndarray]
) -> np.ndarray:
    """A training utterance changed at random.

    Args:
      probabilities: of each of "speed", "reverb", "noise", "telephone", "gain", "silence".
      noises: recordings to mix in, float32; may be empty where the probability of noise is 0.
    """
    if random.random() < probabilities["speed"]:
        samples = change_speed(samples, random.uniform(*SPEED_RANGE))
    if random.random() < probabilities["reverb"]:
        seconds, wet_db = random.uniform(*REVERBERATION_RANGE_SECONDS), random.uniform(*REVERBERANT_RANGE_DB)
        samples = add_reverberation(samples, seconds, wet_db, random)
    if random.random() < probabilities["noise"]:
        noise = noises[int(random.integers(len(noises)))]
        samples = add_noise(samples, noise, random.uniform(*SNR_RANGE_DB), random)
    if random.random() < probabilities["telephone"]:
        samples = telephone(samples)
    if random.random() < probabilities["gain"]:
        samples = change_gain(samples, random.uniform(*GAIN_RANGE_DB))
    if random.random() < probabilities["silence"]:
        seconds = random.uniform(*SILENCE_RANGE_SECONDS)
        samples = np.pad(samples, (0, int(seconds * SAMPLE_RATE)))
    return samples
