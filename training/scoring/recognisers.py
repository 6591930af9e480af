"""Recognisers in a process of their own: the only way to measure cold start and peak memory.

    python -m training.scoring.recognisers KIND MODEL THREADS OPTION

reads one Reference a line as JSON on standard input, with "degrade" (the condition, noise files and seed of
`training.scoring.degradation`) beside it where its sound is not to stay as it is, answers each with {"text",
"compute_seconds", "speech_seconds"} and at the end says {"peak_memory_mb"}.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr.audio import SAMPLE_RATE, AudioError
from training.scoring.degradation import CLEAN, degrade
from training.scoring.transcripts import Reference, read_samples

Transcribe = Callable[[np.ndarray], str]
_ROOT = Path(__file__).parents[2]


def _hark(model: str, threads: int, decoder: str) -> Transcribe:
    from asr import Recognizer
    from training.scoring.systems import utterance_transcriber

    transcribe = utterance_transcriber(Recognizer.load(model, threads=threads), decoder or None)
    return lambda samples: " ".join(word.text for word in transcribe(samples))


def _faster_whisper(model: str, threads: int, beam: str) -> Transcribe:
    from faster_whisper import WhisperModel

    whisper = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=threads)
    beam_size = int(beam or 5)  # 5 is its own default

    def transcribe(samples: np.ndarray) -> str:
        segments, _ = whisper.transcribe(samples, language="en", beam_size=beam_size)
        return " ".join(segment.text for segment in segments)

    return transcribe


def _whisper_cpp(model: str, threads: int, _: str) -> Transcribe:
    from pywhispercpp.model import Model

    whisper = Model(model, n_threads=threads, language="en", print_progress=False, print_realtime=False)
    return lambda samples: " ".join(segment.text for segment in whisper.transcribe(samples))


def _vosk(model: str, threads: int, _: str) -> Transcribe:
    from vosk import KaldiRecognizer, Model

    kaldi = Model(model)

    def transcribe(samples: np.ndarray) -> str:
        decoder = KaldiRecognizer(kaldi, SAMPLE_RATE)
        decoder.AcceptWaveform(_as_int16(samples))
        return json.loads(decoder.FinalResult())["text"]

    return transcribe


def _pocketsphinx(model: str, threads: int, _: str) -> Transcribe:
    """`model` is a folder laid out as the package's own en-us, which is used for an empty name."""
    from pocketsphinx import Decoder, get_model_path

    folder = Path(model or get_model_path("en-us"))
    sphinx = Decoder(
        hmm=str(folder / "en-us"),
        lm=str(folder / "en-us.lm.bin"),
        dict=str(folder / "cmudict-en-us.dict"),
        loglevel="FATAL",
    )

    def transcribe(samples: np.ndarray) -> str:
        sphinx.start_utt()
        sphinx.process_raw(_as_int16(samples), full_utt=True)
        sphinx.end_utt()
        best = sphinx.hyp()
        return best.hypstr if best else ""

    return transcribe


def _as_int16(samples: np.ndarray) -> bytes:
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


RECOGNISERS: dict[str, Callable[[str, int, str], Transcribe]] = {
    "hark": _hark,
    "faster-whisper": _faster_whisper,
    "whisper.cpp": _whisper_cpp,
    "vosk": _vosk,
    "pocketsphinx": _pocketsphinx,
}


class RecogniserError(ValueError):
    """One line: which recogniser failed, and what it said last."""


@dataclass(frozen=True)
class RecogniserRun:
    """What a recogniser of its own process did.

    Attributes:
      texts: what it recognised, by id.
      unreadable: why, by id of the references whose sound cannot be read.
      speech_seconds, compute_seconds: length of the speech, and the time for recognising it, reading not
        counted.
      cold_start_seconds: from starting the process to the text of the first utterance.
      peak_memory_mb: most memory that the process had at once.
    """

    texts: dict[str, str]
    unreadable: dict[str, str]
    speech_seconds: float
    compute_seconds: float
    cold_start_seconds: float
    peak_memory_mb: float


def run(
    kind: str,
    model: str,
    references: Sequence[Reference],
    threads: int,
    option: str = "",
    progress: Callable[[Iterable], Iterable] = iter,
    condition: str = CLEAN,
    noise_files: Sequence[Path] = (),
    seed: int = 0,
) -> RecogniserRun:
    """Transcribes references one by one in a process of its own.

    Args:
      kind: a key of RECOGNISERS.
      model: path or name of its model.
      references: in the order in which they are transcribed.
      threads: that it may use.
      option: decoder for hark, beam for faster-whisper; "" is the default.
      progress: wraps the references.
      condition, noise_files, seed: what happens to the sound, as in `training.scoring.degradation`.

    Raises:
      RecogniserError: the process ended early.
    """
    threading = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    search = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    texts: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    speech_seconds = compute_seconds = cold_start_seconds = 0.0
    began = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+", errors="replace") as complaints,
        subprocess.Popen(
            [sys.executable, "-m", "training.scoring.recognisers", kind, model, str(threads), option],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=os.environ | threading | {"PYTHONPATH": search},
        ) as process,
    ):
        try:
            for one in progress(references):
                request = _request(one)
                if condition != CLEAN:
                    request["degrade"] = [condition, [str(path) for path in noise_files], seed]
                print(json.dumps(request), file=process.stdin, flush=True)
                answer = json.loads(process.stdout.readline())
                if "error" in answer:
                    unreadable[one.id] = answer["error"]
                    continue
                if not texts:
                    cold_start_seconds = time.perf_counter() - began
                texts[one.id] = answer["text"]
                compute_seconds += answer["compute_seconds"]
                speech_seconds += answer["speech_seconds"]
            process.stdin.close()
            peak_mb = json.loads(process.stdout.readline())["peak_memory_mb"]
        except (BrokenPipeError, json.JSONDecodeError):
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
            complaints.seek(0)
            last = [line for line in complaints if line.strip()][-1:] or ["nothing"]
            raise RecogniserError(f"{kind} {model} stopped; its last words: {last[0].strip()}") from None
    return RecogniserRun(texts, unreadable, speech_seconds, compute_seconds, cold_start_seconds, peak_mb)


def _request(reference: Reference) -> dict[str, Any]:
    audio = None if reference.audio is None else str(reference.audio)
    return asdict(reference) | {"audio": audio, "words": (), "fields": {}}


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
    transcribe = RECOGNISERS[kind](model, int(threads), option)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(answer(request, transcribe)), file=answers, flush=True)
    print(json.dumps({"peak_memory_mb": peak_memory_mb()}), file=answers, flush=True)


def answer(request: dict[str, Any], transcribe: Transcribe) -> dict[str, Any]:
    """What the process says to one line of its input."""
    if request["audio"] is not None:
        request["audio"] = Path(request["audio"])
    condition, noise_files, seed = request.pop("degrade", [CLEAN, [], 0])
    try:
        samples = read_samples(Reference(**request))
        samples = degrade(samples, request["id"], condition, [Path(name) for name in noise_files], seed)
    except AudioError as error:
        return {"error": str(error)}
    began = time.perf_counter()
    text = transcribe(samples)
    compute_seconds = time.perf_counter() - began
    return {"text": text, "compute_seconds": compute_seconds, "speech_seconds": len(samples) / SAMPLE_RATE}


if __name__ == "__main__":
    main(sys.argv[1:])
