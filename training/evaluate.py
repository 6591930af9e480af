"""Word error rates that can be published: intervals, groups, significance, conditions and a report.

python -m training.evaluate dev-read.jsonl dev-other.jsonl --model english --output report
python -m training.evaluate dev-read.jsonl --model english --hypotheses whisper.jsonl --by gender
python -m training.evaluate references.stm --hypotheses ours.ctm theirs.ctm --normalizer none
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("evaluate")

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asr.audio import SAMPLE_RATE
from asr.bundle import Bundle
from training.augmentation import degrade
from training.environment import environment
from training.manifest import read_manifest
from training.scoring.console import progress, summary
from training.scoring.normalizers import texts_lost
from training.scoring.recognisers import RecogniserError, RecogniserRun, run
from training.scoring.report import write_report
from training.scoring.results import ALWAYS_GROUPED, score
from training.scoring.transcripts import Output, Reference, read_all_references, read_hypotheses


class System(NamedTuple):
    """A recogniser to run: its name in tables, and what `training.scoring.recognisers.run` needs."""

    name: str
    kind: str
    model: str
    option: str = ""


def main(options: argparse.Namespace) -> int:
    """`hark evaluate`. Returns the exit code, as `evaluate` does."""
    if not options.model and not options.hypotheses:
        raise ValueError("nothing to evaluate; give --model or --hypotheses")
    references = read_all_references(options.manifests)
    systems = hark_systems(options.model, options.decoder or [""])
    command = ["hark", "evaluate", *options.arguments]
    return evaluate(references, systems, options, command, options.hypotheses, options.by)


def hark_systems(models: Sequence[str], decoders: Sequence[str]) -> list[System]:
    """Every bundle with every decoder. Raises BundleError."""
    return [
        System(" ".join(filter(None, [Bundle.load(model).name, decoder])), "hark", model, decoder)
        for model in models
        for decoder in decoders
    ]


def evaluate(
    references: list[Reference],
    systems: Sequence[System],
    options: argparse.Namespace,
    command: Sequence[str],
    hypotheses: Sequence[Path] = (),
    by: Sequence[str] = (),
) -> int:
    """Runs recognisers, reads hypotheses, scores all, prints a summary and writes the report.

    Args:
      references: of all sets.
      systems: recognisers to run.
      options: conditions, noise, seed, normalizer (several), cased, threads and output.
      command: for the report.
      hypotheses: files of other recognisers.
      by: fields of the manifest to group by.

    Returns the exit code: 1 if a recogniser failed or some utterances could not be scored. Raises ValueError,
    one line that says what to correct.
    """
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)  # else hours of work could be lost
    fields = [name for name in by if name not in ALWAYS_GROUPED]
    _check_fields(fields, references)
    given = [one for path in hypotheses for one in _read_outputs(path, references, options.conditions[0])]
    ignored = {one.id: "its file marks it as not to be scored" for one in references if one.ignored}
    normalizers = list(dict.fromkeys(options.normalizer))
    not_scored, lossy = texts_lost(references, normalizers)
    if lossy:
        print(
            f"evaluate: the normaliser basic drops letters, digits or signs of {len(lossy)} references, "
            f"such as {lossy[0]}",
            file=sys.stderr,
        )
    scorable = [one for one in references if one.id not in ignored | not_scored]
    if options.cased and not any(one.written for one in scorable):
        raise ValueError(
            "--cased needs references with capitals and punctuation; add text_cased to a manifest"
        )
    runs, failed = _run_all(systems, scorable, options)
    outputs = [Output(name, done.recognised, condition) for name, condition, done in runs] + given
    if not outputs:
        raise ValueError("nothing to evaluate: no recogniser ran")
    for (name, condition), times in Counter((one.system, one.condition) for one in outputs).items():
        if times > 1:
            raise ValueError(f"{times} systems are called {name} ({condition}); rename a file or a folder")
    for _, _, done in runs:
        not_scored |= done.unreadable
    for why in not_scored.values():
        print(f"evaluate: not scored: {why}", file=sys.stderr)
    scores = score(references, outputs, normalizers, fields, ignored | not_scored, options.cased)
    speed = [
        {"system": name} | done.speed()
        for name, condition, done in runs
        if condition == options.conditions[0] and done.recognised
    ]
    print(summary(scores.document, speed))
    if not scores.references:
        raise ValueError("no utterance is left to score")
    if options.output:
        measured = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "speed": speed}
        write_report(options.output, scores, environment(command), measured)
        print(f"evaluate: wrote {options.output / 'report.html'}", file=sys.stderr)
    return 1 if failed or not_scored else 0


def _run_all(
    systems: Sequence[System], references: list[Reference], options: argparse.Namespace
) -> tuple[list[tuple[str, str, RecogniserRun]], bool]:
    """(system, condition, what was recognised) of all that ran, and whether a recogniser failed."""
    noise_files = [entry.audio for entry in read_manifest(options.noise)] if options.noise else []
    if systems:  # a misspelt condition is found before hours are spent on the others
        for condition in options.conditions:
            degrade(np.zeros(SAMPLE_RATE, np.float32), "", condition, noise_files)
    runs = []
    failed = False
    for name, *system in systems:
        for condition in options.conditions:
            degradation = (condition, noise_files, options.seed)
            title = progress(f"{name}, {condition}")
            try:
                runs.append((name, condition, run(*system, references, options.threads, title, *degradation)))
            except RecogniserError as error:
                print(f"evaluate: {error}", file=sys.stderr)
                failed = True
                break
    return runs, failed


def _read_outputs(path: Path, references: list[Reference], condition: str) -> list[Output]:
    """The hypotheses of a file, by condition. Raises ValueError where none of them is for a reference."""
    outputs = read_hypotheses(path, references, condition)
    if not any(one.recognised for one in outputs):
        extra = [name for one in outputs for name in one.extra]
        if not extra:
            raise ValueError(f"{path}: holds no hypotheses; give one for each reference")
        raise ValueError(
            f"{path}: none of its {len(extra)} hypotheses, such as {extra[0]}, is for a reference, such as "
            f"{references[0].id}; give matching ids or paths"
        )
    return outputs


def _check_fields(by: Sequence[str], references: list[Reference]) -> None:
    for name in by:
        if not any(name in one.fields for one in references):
            known = sorted({known for one in references for known in one.fields})
            raise ValueError(f"no reference has a field {name!r}; there are: {', '.join(known) or 'none'}")
