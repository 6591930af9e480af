r"""Other recognisers beside ours: same speech, same threads, same normaliser, each in a process of its own.

    python -m training.benchmark peers dev-read.jsonl --model english --faster-whisper DIR --pocketsphinx
    python -m training.benchmark peers dev-read.jsonl --model english --faster-whisper DIR --output report \
        --conditions clean,noise:10,reverb --noise noise.jsonl

None of them is needed by the project: install those that you want to compare with.
"""

import argparse
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.scoring.console import progress
from training.scoring.degradation import check_conditions, noise_files_of
from training.scoring.provenance import provenance
from training.scoring.recognisers import RecogniserError, run
from training.scoring.report import interval_text, p_text, percent, tally, write_report
from training.scoring.results import Output, score
from training.scoring.transcripts import Heard, read_all_references

# What each peer is in Python, and how it is installed.
PACKAGES = {
    "faster-whisper": ("faster_whisper", "faster-whisper"),
    "whisper.cpp": ("pywhispercpp", "pywhispercpp"),
    "vosk": ("vosk", "vosk"),
    "pocketsphinx": ("pocketsphinx", "pocketsphinx"),
}


def main(options: argparse.Namespace) -> int:
    """Runs what is asked for and prints one table; the exit code, 1 if a recogniser or a sound failed."""
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
            heard = {id: Heard(text) for id, text in done.texts.items()}
            outputs.append(Output(system, heard, condition))
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
    print(table(scores.document, speed))
    for reason in unreadable.values():
        print(f"peers: not scored: {reason}", file=sys.stderr)
    if options.output:
        measured = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "speed": speed}
        write_report(options.output, scores, provenance("training.benchmark", options.arguments), measured)
    return 1 if failed or unreadable else 0


def table(results: dict[str, Any], speed: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row for each set and system; differences and p are to the first system."""
    speeds = {row["system"]: row for row in speed}
    ours = results["scores"][0]["system"]
    against = {
        (row["set"], row["condition"], row["systems"][1]): row
        for row in results["comparisons"]
        if row["systems"][0] == ours
    }
    lines = [
        f"{results['references']['scored']} utterances, {results['references']['words']} words; normaliser "
        f"{results['normalizer']['name']}: {results['normalizer']['what']}",
        "",
        f"| set | condition | system | WER % | 95 % interval | [errors / words] | less {ours}, points | "
        "95 % interval | p bootstrap | p MAPSSWE | real-time factor | cold start s | peak memory MB |",
        "|---" * 13 + "|",
    ]
    for row in results["scores"]:
        system = row["system"]
        cells = [
            row["set"],
            row["condition"],
            system,
            percent(row["wer"]["value"]),
            interval_text(row["wer"]["interval"]),
        ]
        cells.append(tally(row["counts"]))
        difference = against.get((row["set"], row["condition"], system))
        if difference:
            low, high = difference["interval"]
            turned = [None, None] if low is None else [0.0 - high, 0.0 - low]
            cells += [percent(0.0 - difference["difference"]), interval_text(turned)]
            cells += [p_text(difference["bootstrap_p"]), p_text(difference["mapsswe"]["p"])]
        else:
            cells += [""] * 4
        quick = speeds[system]
        cells.append(f"{quick['real_time_factor']:.3f}")
        cells += [f"{quick['cold_start_seconds']:.1f}", f"{quick['peak_memory_mb']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
