"""Recognisers, each in a process of its own: the only way to measure cold start and peak memory.

    python -m training.scoring.recognisers KIND MODEL THREADS OPTION

reads one request a line as JSON on standard input (`_request`), answers each with what `answer` returns, and
at the end writes {"peak_memory_mb"}.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from asr.audio import SAMPLE_RATE, AudioError
from asr.transcript import Word
from training.scoring.transcripts import CLEAN, Recognised, Reference, TimedWord, read_samples

WINDOW_SECONDS = 30.0  # longer utterances are cut at pauses, as a user's recording would be
Transcribe = Callable[[np.ndarray], Recognised]
_ROOT = Path(__file__).parents[2]


def _hark(model: str, threads: int, decoder: str) -> Transcribe:
    from asr import Recognizer

    return transcriber(Recognizer.load(model, threads=threads), decoder)


def transcriber(recognizer: "Recognizer", decoder: str = "") -> Transcribe:  # noqa: F821 (loaded late)
    """A function from an utterance, float32 [samples], to its words."""
    read = reader(recognizer, decoder)
    return lambda samples: joined(read(samples))


def reader(
    recognizer: "Recognizer",  # noqa: F821
    decoder: str = "",
) -> Callable[[np.ndarray], Iterator[Sequence[Word]]]:
    """A generator function from an utterance, float32 [samples], to its words, part by part.

    An utterance up to WINDOW_SECONDS goes whole through the model: nothing is cut and nothing dropped as
    silence. Each goes alone, as a user's would: an 8-bit graph scales activations by all of a batch.
    """
    decode = recognizer.decoder(decoder or None)

    def read(samples: np.ndarray) -> Iterator[Sequence[Word]]:
        if len(samples) <= WINDOW_SECONDS * SAMPLE_RATE:
            yield decode(recognizer.engine.encode(samples))
        else:
            for segment in recognizer.segments((samples, SAMPLE_RATE), decoder=decoder or None):
                yield segment.words

    return read


def joined(parts: Iterable[Sequence[Word]]) -> Recognised:
    """What was recognised, from its words part by part."""
    words = [word for part in parts for word in part]
    timed = tuple(TimedWord(word.text, word.start, word.end, word.confidence) for word in words)
    return Recognised(" ".join(word.text for word in words), timed)


def _faster_whisper(model: str, threads: int, beam: str) -> Transcribe:
    from faster_whisper import WhisperModel

    whisper = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=threads)
    beam_size = int(beam or 5)  # 5 is its own default

    def transcribe(samples: np.ndarray) -> Recognised:
        segments, _ = whisper.transcribe(samples, language="en", beam_size=beam_size)
        return Recognised(" ".join(segment.text for segment in segments))

    return transcribe


RECOGNISERS: dict[str, Callable[[str, int, str], Transcribe]] = {
    "hark": _hark,
    "faster-whisper": _faster_whisper,
}


class RecogniserError(ValueError):
    """One line: which recogniser failed, and the last line that it wrote."""


@dataclass
class RecogniserRun:
    """What a recogniser did.

    Attributes:
      recognised: by id.
      unreadable: why, by id of the references whose sound cannot be read.
      speech_seconds, compute_seconds: length of the speech, and the time for recognising it; reading and
        degrading not counted.
      cold_start_seconds: from starting the process to the text of the first utterance.
      peak_memory_mb: most memory that the process had at once.
    """

    recognised: dict[str, Recognised] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    speech_seconds: float = 0.0
    compute_seconds: float = 0.0
    cold_start_seconds: float = 0.0
    peak_memory_mb: float = 0.0

    def speed(self) -> dict[str, float]:
        """For results.json; of a run that recognised something."""
        return {
            "speech_seconds": self.speech_seconds,
            "real_time_factor": self.compute_seconds / (self.speech_seconds or 1),
            "cold_start_seconds": self.cold_start_seconds,
            "peak_memory_mb": self.peak_memory_mb,
        }


def run(
    kind: str,
    model: str,
    option: str,
    references: Sequence[Reference],
    threads: int,
    progress: Callable[[Iterable], Iterable] = iter,
    condition: str = CLEAN,
    noise_files: Sequence[Path] = (),
    seed: int = 0,
) -> RecogniserRun:
    """Transcribes references one by one, the shortest first, in a process of its own.

    Args:
      kind: a key of RECOGNISERS.
      model: path or name of its model.
      option: decoder for hark, beam for faster-whisper; "" is the default.
      references: those whose sound cannot be read are named in the result.
      threads: that it may use.
      progress: wraps the references.
      condition, noise_files, seed: what happens to the sound, as in `training.augmentation.degrade`.

    Raises:
      RecogniserError: the process ended early.
    """
    threading = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    search = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    found = RecogniserRun()
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+", errors="replace") as log,
        subprocess.Popen(
            [sys.executable, "-m", "training.scoring.recognisers", kind, model, str(threads), option],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | threading | {"PYTHONPATH": search},
        ) as process,
    ):
        try:
            for one in progress(sorted(references, key=lambda one: one.duration_seconds or 0.0)):
                request = _request(one, condition, noise_files, seed)
                print(json.dumps(request), file=process.stdin, flush=True)
                answer = json.loads(process.stdout.readline())
                if "error" in answer:
                    found.unreadable[one.id] = answer["error"]
                    continue
                if not found.recognised:
                    found.cold_start_seconds = time.perf_counter() - began
                words = tuple(TimedWord(**word) for word in answer["words"])
                found.recognised[one.id] = Recognised(answer["text"], words)
                found.compute_seconds += answer["compute_seconds"]
                found.speech_seconds += answer["speech_seconds"]
            process.stdin.close()
            found.peak_memory_mb = json.loads(process.stdout.readline())["peak_memory_mb"]
        except (BrokenPipeError, json.JSONDecodeError):
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
            log.seek(0)
            last = [line for line in log if line.strip()][-1:] or ["nothing"]
            message = f"{kind} {model} stopped; the last line it wrote: {last[0].strip()}"
            raise RecogniserError(message) from None
    return found


def _request(reference: Reference, condition: str, noise_files: Sequence[Path], seed: int) -> dict[str, Any]:
    where = {name: getattr(reference, name) for name in ("id", "start_seconds", "end_seconds")}
    where["audio"] = reference.audio and str(reference.audio)
    return {"reference": where, "degrade": [condition, list(map(str, noise_files)), seed]}


def answer(request: dict[str, Any], transcribe: Transcribe) -> dict[str, Any]:
    """What the process answers to a request."""
    where = request["reference"]
    reference = Reference(set="", text="", **where | {"audio": where["audio"] and Path(where["audio"])})
    condition, noise_files, seed = request["degrade"]
    try:
        samples = read_samples(reference)
        if condition != CLEAN:
            from training.augmentation import degrade  # late: it would be part of a recogniser's cold start

            samples = degrade(samples, reference.id, condition, [Path(name) for name in noise_files], seed)
    except AudioError as error:
        return {"error": str(error)}
    began = time.perf_counter()
    recognised = transcribe(samples)
    compute_seconds = time.perf_counter() - began
    measured = {"compute_seconds": compute_seconds, "speech_seconds": len(samples) / SAMPLE_RATE}
    return asdict(recognised) | measured


def peak_memory_mb() -> float:
    """Most memory that this process had at once, in MB (10⁶ bytes)."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would also count what the process had been before it became this program
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024 / 1e6
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6


def main(argv: Sequence[str]) -> None:
    """The process itself."""
    # Answers keep standard output for themselves; what libraries print there goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    kind, model, threads, option = argv
    try:
        transcribe = RECOGNISERS[kind](model, int(threads), option)
    except ModuleNotFoundError as error:
        sys.exit(f"{kind} is not installed; pip install {error.name.replace('_', '-')}")
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), transcribe)), file=answers, flush=True)
    print(json.dumps({"peak_memory_mb": peak_memory_mb()}), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
