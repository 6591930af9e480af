r"""Other recognisers beside ours: same speech, same threads, same normaliser, each in a process of its own.

    python -m training.benchmark peers dev-read.jsonl --model english --faster-whisper DIR --pocketsphinx
    python -m training.benchmark peers dev-read.jsonl --model english --faster-whisper DIR --output report \
        --conditions clean,noise:10,reverb --noise noise.jsonl

None of them is needed by the project: install those that you want to compare with.
"""

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.environment import environment
from training.scoring.console import progress, summary
from training.scoring.degradation import check_conditions, noise_files_of
from training.scoring.recognisers import RecogniserError, run
from training.scoring.report import write_report
from training.scoring.results import Output, score
from training.scoring.transcripts import Recognised, read_all_references

# What each peer is in Python, and how it is installed.
PACKAGES = {
    "faster-whisper": ("faster_whisper", "faster-whisper"),
    "whisper.cpp": ("pywhispercpp", "pywhispercpp"),
    "vosk": ("vosk", "vosk"),
    "pocketsphinx": ("pocketsphinx", "pocketsphinx"),
}


def main(options: argparse.Namespace) -> int:
    """Runs what is asked for and prints a summary; the exit code, 1 if a recogniser or a sound failed."""
    references = read_all_references(options.manifests)[: options.limit]
    noise_files = noise_files_of(options.noise)
    check_conditions(options.conditions, noise_files)
    outputs: list[Output] = []
    speed: list[dict[str, Any]] = []
    unreadable: dict[str, str] = {}
    failed = False
    for system, kind, model, option in _asked_for(options):
        module, package = PACKAGES.get(kind, ("asr", "hark"))
        if importlib.util.find_spec(module) is None:
            print(f"peers: {system} is not installed; pip install {package}", file=sys.stderr)
            failed = True
            continue
        for condition in options.conditions:
            title = progress(f"{system}, {condition}")
            degradation = (condition, noise_files, options.seed)
            try:
                done = run(kind, model, references, options.threads, option, title, *degradation)
            except RecogniserError as error:
                print(f"peers: {error}", file=sys.stderr)
                failed = True
                break
            recognised = {id: Recognised(text) for id, text in done.texts.items()}
            outputs.append(Output(system, recognised, condition))
            unreadable |= done.unreadable
            if condition == options.conditions[0]:
                speed.append(
                    {
                        "system": system,
                        "speech_seconds": done.speech_seconds,
                        "real_time_factor": done.compute_seconds / (done.speech_seconds or 1),
                        "cold_start_seconds": done.cold_start_seconds,
                        "peak_memory_mb": done.peak_memory_mb,
                    }
                )
    if not outputs:
        raise ValueError("no recogniser ran; give --model, or the model of an installed peer")
    scores = score(references, outputs, options.normalizer, not_scored=unreadable)
    print(summary(scores.document, speed))
    for reason in unreadable.values():
        print(f"peers: not scored: {reason}", file=sys.stderr)
    if options.output:
        measured = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "speed": speed}
        write_report(options.output, scores, environment(["hark", "benchmark", *options.arguments]), measured)
    return 1 if failed or unreadable else 0


def _asked_for(options: argparse.Namespace) -> Iterator[tuple[str, str, str, str]]:
    """(name in the table, kind, model, option) of each recogniser, ours first."""
    for model in options.model:
        for decoder in options.decoder:
            yield " ".join(filter(None, [Path(model).name, decoder])), "hark", model, decoder
    if options.faster_whisper:
        for beam in options.beam:
            yield f"faster-whisper, beam {beam}", "faster-whisper", options.faster_whisper, str(beam)
    for kind in ("whisper.cpp", "vosk", "pocketsphinx"):
        model = getattr(options, kind.replace(".", "_"))
        if model is not None:
            yield kind, kind, model, ""
