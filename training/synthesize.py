"""Speech for words that recordings lack: python -m training.synthesize TEXT... --voice VOICE --output DIR

A model that learnt from a few hours spells the words it has heard and misspells the others: the first model
of this project got 16 % of the words wrong that its recordings hold more than 200 times, and 82 % of those
that they never hold. This reads sentences of running text aloud, chosen for the words that have been heard
too rarely, and writes a manifest that training.train reads like any other. Three synthesisers are known, none
a requirement of the project:

    --voice hibari                      one voice that comes with it (pip install hibari-tts); fast
    --voice NAME.onnx                   a voice of Piper (pip install piper-tts)
    --voice MODEL.onnx --voices VOICES  many of Kokoro, mixed (pip install kokoro-onnx); slow

A voice becomes many speakers by playing it faster or slower, which moves pitch and formants together, after
it has spoken as much slower or faster. Texts and settings are a function of the seed; the noise in
Piper and Kokoro is not.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("synthesize")

import argparse
import heapq
import json
import multiprocessing
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
import soxr
from rich.console import Console
from rich.progress import track

from asr.audio import SAMPLE_RATE
from training.language_model import read_sentences

HEARD_ENOUGH = 4  # times; after that a word is no reason to choose a sentence
WORDS = range(4, 31)  # in a sentence
SECONDS_PER_CHARACTER = 0.065  # about; decides only when enough has been chosen
SENTENCE_CHARACTERS = 15  # what a sentence costs besides its characters: pauses, padding
SPEED = (0.85, 1.15)  # of the voice, at equal pitch
PITCH = (0.85, 1.2)  # factor on all its frequencies
KOKORO_ACCENTS = {"a": "en-us", "b": "en-gb"}  # by the first letter of a voice's name
PACKAGES = {"hibari": "hibari-tts", "piper": "piper-tts", "kokoro_onnx": "kokoro-onnx"}  # by module
OPUS_LEVEL = 0.9  # of soundfile's compression_level: about 24 kbit/s


def main(options: argparse.Namespace) -> None:
    """`hark synthesize`."""
    heard = Counter(w for block in read_sentences(options.heard) for line in block for w in line.split())
    lines = [line for block in read_sentences(options.text) for line in block]
    sentences = choose(lines, heard, options.hours * 3600)
    voice = (options.voice, options.voices)
    synthesize(sentences, voice, options.output, options.processes, options.seed)


def choose(lines: list[str], heard: Counter, seconds: float) -> list[str]:
    """The sentences, lasting about `seconds`, that bring the most of what is lacking, the best first.

    A sentence is worth, for each of its words heard fewer than HEARD_ENOUGH times, how often the word stands
    in all the text by how often it has been heard (the chosen sentences count), and costs its length. Worth
    only falls as more is chosen, so a heap finds the next sentence without weighing all of them again (Minoux
    1978).
    """
    in_text = Counter(word for line in lines for word in line.split())
    heard = Counter(heard)

    def worth(line: str) -> float:
        lacking = (in_text[w] / (1 + heard[w]) for w in set(line.split()) if heard[w] < HEARD_ENOUGH)
        return sum(lacking) / (len(line) + SENTENCE_CHARACTERS)

    heap = [(-worth(line), line) for line in set(lines) if readable(line)]
    heapq.heapify(heap)
    chosen = []
    while heap and seconds > 0:
        line = heap[0][1]
        now = (-worth(line), line)
        if now > heapq.heapreplace(heap, now):
            continue
        heapq.heappop(heap)
        chosen.append(line)
        heard.update(line.split())
        seconds -= len(line) * SECONDS_PER_CHARACTER
    return chosen


def readable(line: str) -> bool:
    """Long and short enough, and without the stray letters that normalising leaves of "Ramón" or "U.S."."""
    words = line.split()
    return len(words) in WORDS and all(len(word) > 1 or word in "aio" for word in words)


def synthesize(
    sentences: list[str], voice: tuple[str, Path | None], output: Path, processes: int, seed: int
) -> None:
    """Writes output/*.opus and the manifest beside that folder. Raises ValueError for an unusable voice."""
    _load_voice(*voice)  # here first: a pool starts processes that cannot load it again and again, for ever
    output.mkdir(parents=True, exist_ok=True)
    jobs = [(sentence, seed, output / f"{i:06d}.opus") for i, sentence in enumerate(sentences)]
    with multiprocessing.get_context("spawn").Pool(processes, _load_voice, voice) as pool:
        spoken = track(
            zip(jobs, pool.imap(_speak, jobs), strict=True),
            "speaking",
            len(jobs),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        with open(output.with_suffix(".jsonl"), "w", encoding="utf-8") as manifest:
            for (sentence, _, path), seconds in spoken:
                row = {
                    "audio_filepath": str(path.relative_to(output.parent)),
                    "text": sentence,
                    "duration": seconds,
                    "speaker": Path(voice[0]).stem,
                    "corpus": "synthetic",
                }
                manifest.write(json.dumps(row) + "\n")


class Hibari:
    """The voice that comes with hibari."""

    def __init__(self):
        import hibari

        self.voice = hibari.Hibari()
        self.rate = self.voice.sample_rate

    def say(self, text: str, speed: float, random: np.random.Generator) -> np.ndarray:
        """float32 [samples] at the voice's rate; `speed` is a factor on its pace."""
        return self.voice(text, speed, seed=int(random.integers(2**32)))


class Piper:
    """A voice of Piper from its NAME.onnx; NAME.onnx.json stands beside it. Used as Hibari is."""

    def __init__(self, path: Path):
        from piper import PiperConfig, PiperVoice

        config = PiperConfig.from_dict(json.loads(Path(f"{path}.json").read_text(encoding="utf-8")))
        self.voice = PiperVoice(_session(path), config)
        self.rate = config.sample_rate

    def say(self, text: str, speed: float, random: np.random.Generator) -> np.ndarray:
        from piper import SynthesisConfig

        settings = SynthesisConfig(
            length_scale=1 / speed,
            noise_scale=random.uniform(0.4, 0.9),
            noise_w_scale=random.uniform(0.6, 1.0),
        )
        return np.concatenate([part.audio_float_array for part in self.voice.synthesize(text, settings)])


class Kokoro:
    """Kokoro, each sentence by a person of its own: a mixture of two of its voices. Used as Hibari is."""

    def __init__(self, path: Path, voices: Path):
        import kokoro_onnx

        self.model = kokoro_onnx.Kokoro.from_session(_session(path), str(voices))
        self.names = [name for name in self.model.voices.files if name[0] in KOKORO_ACCENTS]
        self.rate = kokoro_onnx.SAMPLE_RATE

    def say(self, text: str, speed: float, random: np.random.Generator) -> np.ndarray:
        one = random.choice(self.names)
        other = random.choice([name for name in self.names if name[0] == one[0]])
        share = np.float32(random.uniform())
        style = share * self.model.voices[one] + (1 - share) * self.model.voices[other]
        return self.model.create(text, style, speed, KOKORO_ACCENTS[one[0]])[0]


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a process a core is faster than threads
    return onnxruntime.InferenceSession(path, options)


def _load_voice(voice: str, voices: Path | None) -> None:
    global _voice
    try:
        if voices is not None:
            _voice = Kokoro(Path(voice), voices)
        else:
            _voice = Hibari() if voice == "hibari" else Piper(Path(voice))
    except ModuleNotFoundError as error:
        package = PACKAGES.get(error.name, error.name)
        raise ValueError(f"{voice}: its synthesiser is not installed; pip install {package}") from None
    except Exception as error:  # ONNX Runtime's own errors share no base class
        raise ValueError(f"{voice}: no voice that can be used: {str(error).splitlines()[0]}") from None


def _speak(job: tuple[str, int, Path]) -> float:
    """Writes one sentence, in a speed and pitch of its own, and returns its seconds."""
    sentence, seed, path = job
    random = np.random.default_rng([seed, int(path.stem)])
    speed, pitch = random.uniform(*SPEED), random.uniform(*PITCH)
    samples = _voice.say(sentence, speed / pitch, random).astype("float32")
    samples = soxr.resample(samples, _voice.rate * pitch, SAMPLE_RATE)
    soundfile.write(path, samples, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=OPUS_LEVEL)
    return round(len(samples) / SAMPLE_RATE, 3)
