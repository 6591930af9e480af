"""Word error rates that can be published: intervals, groups, significance, conditions and a report.

python -m training.evaluate dev-read.jsonl dev-other.jsonl --model english --output report
python -m training.evaluate dev-read.jsonl --model english --hypotheses whisper.jsonl --by gender
python -m training.evaluate references.stm --hypotheses ours.ctm theirs.ctm --normalizer english
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("evaluate")

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asr.audio import AudioError
from asr.recognizer import Recognizer
from asr.tokenizer import lost_characters, normalize
from training.environment import environment
from training.scoring.console import progress, summary
from training.scoring.degradation import check_conditions, noise_files_of
from training.scoring.recognisers import run
from training.scoring.report import write_report
from training.scoring.results import ALWAYS_GROUPED, Output, score
from training.scoring.snr import estimate_snr_db
from training.scoring.systems import recognise
from training.scoring.transcripts import (
    Pairing,
    Reference,
    read_all_references,
    read_hypotheses,
    read_samples,
)


@dataclass
class Gathered:
    """What was gathered before scoring: outputs, and by id the SNR and why an utterance is not scored."""

    outputs: list[Output] = field(default_factory=list)
    snr_db: dict[str, float] = field(default_factory=dict)
    not_scored: dict[str, str] = field(default_factory=dict)
    speed: list[dict[str, Any]] = field(default_factory=list)


def main(options: argparse.Namespace) -> int:
    """`hark evaluate`: reads, recognises, scores and reports.

    Returns the exit code: 1 if some utterances could not be scored. Raises ValueError, one line that says
    what to correct.
    """
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)  # else hours of work could be lost
    references = read_all_references(options.manifests)
    ignored = {one.id: "its file marks it as not to be scored" for one in references if one.ignored}
    gathered = Gathered(not_scored=_texts_lost(references, options.normalizer))
    audible = [one for one in references if one.id not in ignored | gathered.not_scored]
    if options.model:
        _hear_models(gathered, audible, options)
    elif "snr" in options.by:
        _estimate_snr(gathered, audible)
    for path in options.hypotheses:
        for condition, pairing in _pairings(path, references, options.conditions[0]).items():
            gathered.outputs.append(
                Output(path.stem, pairing.recognised, condition, pairing.extra, pairing.duplicates)
            )
    _check_outputs(gathered.outputs)
    for reason in gathered.not_scored.values():
        print(f"evaluate: not scored: {reason}", file=sys.stderr)
    by = [name for name in options.by if name not in ALWAYS_GROUPED and name != "snr"]
    _check_fields(by, references)
    scores = score(
        references, gathered.outputs, options.normalizer, by, gathered.snr_db, ignored | gathered.not_scored
    )
    print(summary(scores.document, gathered.speed))
    if not scores.references:
        raise ValueError("no utterance is left to score")
    if options.output:
        measured = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "speed": gathered.speed}
        write_report(options.output, scores, environment(["hark", "evaluate", *options.arguments]), measured)
        print(f"evaluate: wrote {options.output / 'report.html'}", file=sys.stderr)
    return 1 if gathered.not_scored else 0


def _pairings(path: Path, references: list[Reference], condition: str) -> dict[str, Pairing]:
    """The hypotheses of a file by condition. Raises ValueError where none of them is for a reference."""
    pairings = read_hypotheses(path, references, condition)
    if any(pairing.recognised for pairing in pairings.values()):
        return pairings
    extra = [name for pairing in pairings.values() for name in pairing.extra]
    found = f"none of its {len(extra)} hypotheses, such as {extra[0]}, is" if extra else "holds no hypotheses"
    raise ValueError(
        f"{path}: {found} for a reference, such as {references[0].id}; give matching ids or paths"
    )


def _texts_lost(references: list[Reference], normalizer: str) -> dict[str, str]:
    """Why, by id, of references that the normaliser makes empty though something is spoken.

    Warns of texts that lose only some of their characters; they are scored.
    """
    if normalizer != "basic":  # the others lose no letters or digits
        return {}
    lossy = {one.id: one for one in references if not one.ignored and lost_characters(one.text)}
    empty = {id: one for id, one in lossy.items() if not normalize(one.text)}
    if len(empty) < len(lossy):
        one = next(one for id, one in lossy.items() if id not in empty)
        print(
            f"evaluate: the normaliser basic drops letters, digits or signs of {len(lossy) - len(empty)} "
            f"references, such as {' '.join(lost_characters(one.text))} of {one.id}",
            file=sys.stderr,
        )
    return {
        id: f"{id}: nothing is left of {one.text[:40]!r} in the normaliser basic" for id, one in empty.items()
    }


def _hear_models(gathered: Gathered, references: list[Reference], options: argparse.Namespace) -> None:
    noise_files = noise_files_of(options.noise)
    check_conditions(options.conditions, noise_files)
    for model in options.model:
        recognizer = Recognizer.load(model, threads=options.threads)
        for decoder in options.decoder or [None]:
            system = f"{recognizer.bundle.name} {decoder}" if decoder else recognizer.bundle.name
            for condition in options.conditions:
                title = f"{system}, {condition}"
                found = recognise(
                    recognizer, references, decoder, condition, noise_files, options.seed, progress(title)
                )
                gathered.outputs.append(Output(system, found.recognised, condition))
                gathered.snr_db |= found.snr_db
                gathered.not_scored |= found.unreadable
                if condition == options.conditions[0] and found.recognised:
                    factor = found.compute_seconds / found.speech_seconds
                    row = {
                        "system": system,
                        "speech_seconds": found.speech_seconds,
                        "real_time_factor": factor,
                    }
                    readable = [one for one in references if one.id in found.recognised]
                    gathered.speed.append(row | _own_process(model, decoder, readable, options))


def _own_process(
    model: str, decoder: str | None, references: list[Reference], options: argparse.Namespace
) -> dict[str, float]:
    """Cold start with the shortest utterance, and peak memory with the longest after it."""
    by_length = sorted(references, key=lambda one: one.duration_seconds or 0.0)
    alone = run("hark", model, [by_length[0], by_length[-1]], options.threads, decoder or "")
    return {"cold_start_seconds": alone.cold_start_seconds, "peak_memory_mb": alone.peak_memory_mb}


def _estimate_snr(gathered: Gathered, references: list[Reference]) -> None:
    for one in progress("estimating SNR")(references):
        try:
            gathered.snr_db[one.id] = estimate_snr_db(read_samples(one))
        except AudioError as error:
            # Hypotheses are there all the same: the utterance is scored, in the group "unknown".
            print(f"evaluate: no SNR: {error}", file=sys.stderr)


def _check_outputs(outputs: list[Output]) -> None:
    if not outputs:
        raise ValueError("nothing to evaluate; give --model or --hypotheses")
    names = Counter((one.system, one.condition) for one in outputs)
    for (system, condition), times in names.items():
        if times > 1:
            raise ValueError(f"{times} systems are called {system} ({condition}); rename a file or a folder")


def _check_fields(by: Sequence[str], references: list[Reference]) -> None:
    for name in by:
        if not any(name in one.fields for one in references):
            known = sorted({known for one in references for known in one.fields})
            raise ValueError(f"no reference has a field {name!r}; there are: {', '.join(known) or 'none'}")
