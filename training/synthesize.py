"""Speech for words that recordings lack: python -m training.synthesize TEXT... --voice V.onnx --output DIR

A model trained on a few hours spells the words of its recordings and misspells the others: the first model of
this project got 16 % of the words wrong that its recordings have more than 200 times, and 82 % of those that
they never have. This selects sentences of running text for the words that the recordings lack, has them read
by a voice of Piper (pip install piper-tts), and writes a manifest that training.train reads like any other.

One voice becomes many speakers by playing it faster or slower, which moves pitch and formants together, after
it has spoken as much slower or faster. Texts and settings are a function of the seed; Piper's noise is not.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("synthesize")

import argparse
import heapq
import json
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
import soxr

from asr.audio import SAMPLE_RATE
from training.language_model import read_sentences
from training.manifest import Entry, write_manifest
from training.scoring.console import progress

ENOUGH = 4  # recordings of a word; after that it is no reason to select a sentence
WORDS = range(4, 31)  # in a sentence
SECONDS_PER_CHARACTER = 0.065  # about; decides only when enough has been selected
SENTENCE_CHARACTERS = 15  # added to the length of a sentence, for pauses and padding
SPEED = (0.85, 1.15)  # of the voice, at equal pitch
PITCH = (0.85, 1.2)  # factor on all its frequencies
OPUS_LEVEL = 0.9  # of soundfile's compression_level: about 24 kbit/s


def main(options: argparse.Namespace) -> None:
    """`hark synthesize`."""
    recorded = Counter(
        w for block in read_sentences(options.recorded) for line in block for w in line.split()
    )
    lines = [line for block in read_sentences(options.text) for line in block]
    sentences = choose(lines, recorded, options.hours * 3600)
    synthesize(sentences, options.voice, options.output, options.processes, options.seed)


def choose(lines: list[str], recorded: Counter, seconds: float) -> list[str]:
    """The sentences, about `seconds` long in all, that add the most of what is lacking, the best first.

    The gain of a sentence is the sum, over its words with fewer than ENOUGH recordings, of how often the word
    is in the text by how often it is recorded (selected sentences included), by the length of the sentence.
    Gains only fall, so a heap finds the next sentence without computing all of them again (Minoux 1978).
    """
    in_text = Counter(word for line in lines for word in line.split())
    recorded = Counter(recorded)

    def gain(line: str) -> float:
        lacking = (in_text[w] / (1 + recorded[w]) for w in set(line.split()) if recorded[w] < ENOUGH)
        return sum(lacking) / (len(line) + SENTENCE_CHARACTERS)

    heap = [(-gain(line), line) for line in set(lines) if readable(line)]
    heapq.heapify(heap)
    chosen = []
    while heap and seconds > 0:
        line = heap[0][1]
        now = (-gain(line), line)
        if now > heapq.heapreplace(heap, now):
            continue
        heapq.heappop(heap)
        chosen.append(line)
        recorded.update(line.split())
        seconds -= len(line) * SECONDS_PER_CHARACTER
    return chosen


def readable(line: str) -> bool:
    """Long and short enough, and without the stray letters that normalising leaves of "Ramón" or "U.S."."""
    words = line.split()
    return len(words) in WORDS and all(len(word) > 1 or word in "aio" for word in words)


def synthesize(sentences: list[str], voice: str, output: Path, processes: int, seed: int) -> None:
    """Writes output/*.opus and the manifest beside that folder. Raises ValueError for an unusable voice."""
    _load_voice(voice)  # here first: a pool would start processes that fail to load it, again and again
    output.mkdir(parents=True, exist_ok=True)
    jobs = [(sentence, seed, output.absolute() / f"{i:06d}.opus") for i, sentence in enumerate(sentences)]

    def spoken() -> Iterator[Entry]:
        with multiprocessing.get_context("spawn").Pool(processes, _load_voice, [voice]) as pool:
            results = zip(jobs, pool.imap(_speak, jobs), strict=True)
            for (sentence, _, path), seconds in progress("speaking")(results, total=len(jobs)):
                yield Entry("", path, sentence, seconds, 0.0, Path(voice).stem, {"corpus": "synthetic"})

    write_manifest(output.with_suffix(".jsonl"), spoken())


def _load_voice(path: str) -> None:
    """Makes `_speak` of this process use the Piper voice NAME.onnx."""
    global _voice
    try:
        from piper import PiperConfig, PiperVoice

        config = PiperConfig.from_dict(json.loads(Path(f"{path}.json").read_text(encoding="utf-8")))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a process a core is faster than threads
        _voice = PiperVoice(onnxruntime.InferenceSession(path, options), config)
    except ModuleNotFoundError:
        raise ValueError("speech is synthesised by Piper: pip install piper-tts") from None
    except Exception as error:  # ONNX Runtime's own errors share no base class
        raise ValueError(f"{path}: not a usable Piper voice: {str(error).splitlines()[0]}") from None


def _speak(job: tuple[str, int, Path]) -> float:
    """Writes one sentence, in a speed and pitch of its own, and returns its seconds."""
    from piper import SynthesisConfig

    sentence, seed, path = job
    random = np.random.default_rng([seed, int(path.stem)])
    speed, pitch = random.uniform(*SPEED), random.uniform(*PITCH)
    noise_scale, noise_w_scale = random.uniform(0.4, 0.9), random.uniform(0.6, 1.0)
    settings = SynthesisConfig(
        length_scale=pitch / speed, noise_scale=noise_scale, noise_w_scale=noise_w_scale
    )
    samples = np.concatenate([part.audio_float_array for part in _voice.synthesize(sentence, settings)])
    samples = soxr.resample(samples.astype("float32"), _voice.config.sample_rate * pitch, SAMPLE_RATE)
    soundfile.write(path, samples, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=OPUS_LEVEL)
    return round(len(samples) / SAMPLE_RATE, 3)
