"""Your own voice: hark finetune MANIFEST... --from english --output DIR

Checks the recordings, trains an existing model further on them, mixes the result with the model that it began
with, and measures what that gained on a part of the recordings that it was not trained on:

    DIR/check.json  suspicious.jsonl    what is wrong with the recordings
    DIR/train.jsonl  dev.jsonl          what is trained and measured on
    DIR/run/                            the run, as of `hark train`
    DIR/bundle/                         the new model
    DIR/report.html  report.md  ...     what was gained, as of `hark evaluate`

The same command goes on where it was stopped.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("finetune")

import argparse
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

from asr.bundle import Bundle, weights_digest, weights_path
from asr.decoding import Hypothesis
from asr.decoding.beam import BeamDecoder
from asr.decoding.joint import JointDecoder
from asr.decoding.written import with_capitals
from asr.engine import Engine
from asr.files import write_whole
from asr.tokenizer import WORD_BOUNDARY, Tokenizer
from asr.transcript import SENTENCE_ENDS
from training.average import average
from training.cache import fingerprint
from training.calibrate import calibrate
from training.callbacks import BEST, CHECKPOINT, load_progress
from training.config import ConfigError
from training.environment import environment
from training.export import export
from training.manifest import Entry, read_manifest, write_manifest
from training.prepare import LARGEST, speaker_of, take
from training.recipes import MAX_SECONDS, recipe_for, run_config
from training.scoring.console import progress, summary, table
from training.scoring.normalizers import DEFAULT
from training.scoring.recognisers import RecogniserRun, run
from training.scoring.report import interval_text, p_text, percent, write_report
from training.scoring.results import score
from training.scoring.transcripts import Output, Reference, read_all_references
from training.speech import Speech, description, read_speech, tell
from training.suspicious import Finding, shortened, suspicious
from training.train import train

LEAST_SECONDS = 60.0  # of speech; with less there is nothing to learn and to measure
SHOWN = 20  # suspicious utterances in the table
CALIBRATION_WORDS = 200  # of the dev set; with fewer, confidence stays that of the start
BEFORE, AFTER = "before", "after"  # the systems of the report

# Of the trained model in its average with the start (Wortsman et al. 2022); the best on the dev set is taken.
SHARES = (0.25, 0.5, 0.75, 1.0)


def main(options: argparse.Namespace) -> int:
    """`hark finetune`. Returns 1 where recordings were left out, else 0."""
    start, output = Bundle.load(options.start), options.output
    if not start.has_ctc:
        raise ValueError(f"{start.name} has no CTC head, which checks the texts; start from english")
    for manifest in options.manifests:
        if manifest.absolute().parent == output.absolute():
            raise ValueError(f"{manifest}: is in {output}, where its namesakes are written; choose another")
    checked = check(read_entries(options.manifests), start, output)
    show(checked, output)
    train(run_config(start, recipe_for(checked["hours"]), output), resume=True)
    mixed = mix(start, output)
    confidence(start, output, checked["dev_words"])
    report(checked, start, output, mixed, ["hark", "finetune", *options.arguments])
    return int(bool(checked["left_out"]))


def read_entries(manifests: Sequence[Path]) -> list[Entry]:
    """The utterances of all manifests. Raises ManifestError, or ValueError where one is given twice."""
    entries = [entry for manifest in manifests for entry in read_manifest(manifest)]
    times = Counter((entry.audio, entry.offset_seconds, entry.duration_seconds) for entry in entries)
    (audio, *_), most = times.most_common(1)[0]
    if most > 1:
        raise ValueError(f"{audio}: is {most} times in the manifests; give every utterance once")
    return entries


# Check


def check(entries: Sequence[Entry], start: Bundle, output: Path) -> dict[str, Any]:
    """Finds what cannot be used and what is suspicious, and divides the rest; only once for an `output`.

    Returns what check.json holds. Raises ConfigError where `output` holds the run of another call, ValueError
    where too little can be used.
    """
    given = [[description(one), one.text, one.speaker, one.fields] for one in entries]
    key = fingerprint([weights_digest(weights_path(start.directory)), given])
    path = output / "check.json"
    if path.exists() and (done := json.loads(path.read_text(encoding="utf-8")))["key"] == key:
        for problem in done["left_out"]:
            tell(problem)
        return done
    if (output / "run" / CHECKPOINT).exists():
        raise ConfigError(f"{output}: holds a run on other recordings or from another model; choose another")

    left_out: list[str] = []

    def leave_out(problem: str) -> None:
        tell(problem)
        left_out.append(problem)

    tokenizer = start.tokenizer
    limits = {"max_seconds": MAX_SECONDS, "step_seconds": start.step_seconds}
    decoding, checking = progress("decoding"), progress("checking")
    speech = read_speech(
        entries, tokenizer, output / "cache" / "audio", **limits, progress=decoding, report=leave_out
    )
    engine = Engine.load(start, threads=os.cpu_count())
    findings = suspicious(speech, engine, tokenizer, checking)
    for finding in findings:
        if finding.unusable:
            leave_out(f"{finding.entry.id}: left out, there is no voice")
    unusable = {id(finding.entry) for finding in findings if finding.unusable}
    findings = [finding for finding in findings if not finding.unusable]
    used = [i for i, entry in enumerate(speech.entries) if id(entry) not in unusable]
    seconds = sum(speech.entries[i].duration_seconds for i in used if speech.texts[i])
    if seconds < LEAST_SECONDS:
        raise ValueError(f"{seconds:.0f} s of speech can be used; give {LEAST_SECONDS:.0f} s or more")
    usable = as_written(speech, used, start, engine)
    hours = sum(entry.duration_seconds for entry in usable) / 3600
    training, dev, unit = divide(usable, recipe_for(hours).held_out)
    write_manifest(output / "train.jsonl", training)
    write_manifest(output / "dev.jsonl", dev)
    marked = []
    for one in findings:
        fields = {"suspicion": "; ".join(one.reasons), "recognised": one.recognised}
        marked.append(replace(one.entry, fields={**one.entry.fields, **fields}))
    write_manifest(output / "suspicious.jsonl", marked)
    done = {
        "key": key,
        "utterances": len(usable),
        "hours": hours,
        "speakers": len({entry.speaker for entry in usable if entry.speaker}),
        "train_seconds": sum(entry.duration_seconds for entry in training),
        "dev_seconds": sum(entry.duration_seconds for entry in dev),
        "dev_utterances": len(dev),
        "dev_words": sum(len(tokenizer.normalize(entry.text).split()) for entry in dev),
        "dev_unit": unit,
        "left_out": left_out,
        "suspicious": len(findings),
        "most_suspicious": [row(finding) for finding in findings[:SHOWN]],
    }
    write_whole(path, json.dumps(done, ensure_ascii=False, indent=1) + "\n")
    return done


def row(finding: Finding) -> dict[str, Any]:
    """A row of the table of suspicious utterances."""
    entry = finding.entry
    return {
        "id": entry.id,
        "why": "; ".join(finding.reasons),
        "text": entry.text,
        "recognised": finding.recognised,
        "audio": str(entry.audio),
        "start_seconds": entry.offset_seconds,
        "end_seconds": entry.offset_seconds + entry.duration_seconds,
    }


def divide(entries: Sequence[Entry], share: float) -> tuple[list[Entry], list[Entry], str]:
    """Utterances to train on, utterances to measure on, and what was not divided between them.

    Whole speakers are held out where all are named and some of them have about this share of the speech; else
    recordings; of one recording, utterances. Where nothing is said there is nothing to measure.

    Raises ValueError where there is too little of all.
    """
    spoken = [entry for entry in entries if entry.text.strip()]
    units = {
        "speaker": speaker_of,
        "recording": lambda entry: str(entry.audio),
        "utterance": lambda entry: f"{entry.audio}@{entry.offset_seconds}",
    }
    if not all(entry.speaker for entry in spoken):
        del units["speaker"]
    for name, unit in units.items():
        dev, _ = take(spoken, share, unit)
        held_out = {unit(entry) for entry in dev}
        part = sum(one.duration_seconds for one in dev) / sum(one.duration_seconds for one in spoken)
        if share / 2 <= part <= LARGEST:
            training = [one for one in entries if not one.text.strip() or unit(one) not in held_out]
            return training, dev, name
    raise ValueError("too few utterances to hold some of them out; cut the recordings into more")


def as_written(speech: Speech, used: Sequence[int], start: Bundle, engine: Engine) -> list[Entry]:
    """The entries; those without `text_cased` get one where the model has a decoder, which would else unlearn
    capitals and punctuation.
    """
    if start.vocabulary is None:
        return [speech.entries[i] for i in used]
    beam = BeamDecoder.from_bundle(start)
    joint = JointDecoder(engine.step, start.vocabulary, start.tokenizer, beam, start.step_seconds)
    entries = []
    for i in progress("writing")(used):
        entry = speech.entries[i]
        if entry.written is None:
            encoding = engine.encode(speech[i])
            [recognised] = joint.decode(encoding.log_probs, encoding.memory)
            written = spelt(speech.texts[i], recognised, start.tokenizer)
            entry = replace(
                entry, fields={**entry.fields, "text_cased": written, "text_cased_from": start.name}
            )
        entries.append(entry)
    return entries


def spelt(text: str, recognised: Hypothesis, tokenizer: Tokenizer) -> str:
    """A text of letters with the capitals and marks of a decoder's text, where that has the same words."""
    words = with_capitals(text.split(), at_start=True).split()
    theirs = [word.text for word in recognised.written]
    matcher = SequenceMatcher(None, text.split(), list(map(tokenizer.normalize, theirs)), autojunk=False)
    for first, other, count in matcher.get_matching_blocks():
        words[first : first + count] = theirs[other : other + count]
    if recognised.text.endswith(SENTENCE_ENDS) and not words[-1].endswith(SENTENCE_ENDS):
        words[-1] += recognised.text[-1]
    return WORD_BOUNDARY.join(words)


def division(checked: dict[str, Any]) -> str:
    """How the speech was divided, in a sentence."""
    why = {
        "speaker": "other speakers than those trained on",
        "recording": "other recordings than those trained on, but of the same speakers",
        "utterance": "other parts of the recordings trained on",
    }[checked["dev_unit"]]
    minutes = [checked[name] / 60 for name in ("train_seconds", "dev_seconds")]
    words = checked["dev_words"]
    return f"{minutes[0]:.1f} minutes to train on, {minutes[1]:.1f} ({words} words) to measure on: {why}"


def show(checked: dict[str, Any], output: Path) -> None:
    """Prints what the check found."""
    count = checked["suspicious"]
    if count:
        print(f"{count} of {checked['utterances']} utterances are suspicious; they are used all the same:")
    rows = [
        [one["id"], one["why"], shortened(one["text"]), shortened(one["recognised"])]
        for one in checked["most_suspicious"]
    ]
    print("\n".join(table(["utterance", "why", "text", "recognised"], rows)))
    if count > SHOWN:
        print(f"and {count - SHOWN} more, in {output / 'suspicious.jsonl'}")
    print(division(checked), flush=True)


# Measure


class Mixed(NamedTuple):
    """The averages of start and trained model.

    Attributes:
      references: of the dev set.
      normalizers: under which texts are compared.
      runs: what each share recognised, with share 0 for the start.
      errors: words that are wrong, by share.
      share: that was taken.
    """

    references: list[Reference]
    normalizers: list[str]
    runs: dict[float, RecogniserRun]
    errors: dict[float, int]
    share: float


def mix(start: Bundle, output: Path) -> Mixed:
    """Averages start and trained model by each share, and makes the best on the dev set DIR/bundle."""
    references = read_all_references([output / "dev.jsonl"])
    normalizers = list(DEFAULT) if start.tokenizer.language == "en" else ["letters"]
    trained, threads, folders = (
        Bundle.load(output / "run" / "bundle"),
        os.cpu_count() or 1,
        {0.0: start.directory},
    )
    for share in SHARES:
        folder = folders[share] = output / "shares" / f"{share:g}"
        shutil.rmtree(folder, ignore_errors=True)
        average(start, trained, {"": share}, folder)
        if start.has_language_model:
            shutil.copytree(start.directory / "lm", folder / "lm")
        export(Bundle.load(folder), int8=True)
    runs = {
        share: run("hark", str(folder), "", references, threads, progress(f"share {share:g}"))
        for share, folder in folders.items()
    }
    outputs = [Output(f"{share:g}", done.recognised) for share, done in runs.items()]
    scored = score(references, outputs, normalizers[:1]).document["scores"]
    errors = {float(one["system"]): one["counts"]["errors"] for one in scored}
    best = min(SHARES, key=lambda share: (errors[share], share))
    shutil.rmtree(output / "bundle", ignore_errors=True)
    folders[best].rename(output / "bundle")
    shutil.rmtree(output / "shares")
    return Mixed(references, normalizers, runs, errors, best)


def confidence(start: Bundle, output: Path, words: int) -> None:
    """Calibrates the new model on the dev set, or takes over what the start has."""
    bundle = Bundle.load(output / "bundle")
    try:
        if words < CALIBRATION_WORDS:
            raise ValueError(f"{words} words are too few to calibrate on")
        calibrate(bundle, read_manifest(output / "dev.jsonl"))
    except ValueError as error:
        tell(f"confidence is calibrated as that of {start.name}: {error}")
        if known := start.config.get("confidence"):
            content = json.dumps({**bundle.config, "confidence": known}, indent=2) + "\n"
            write_whole(bundle.directory / "model.json", content)


def report(
    checked: dict[str, Any], start: Bundle, output: Path, mixed: Mixed, command: Sequence[str]
) -> None:
    """Writes the report, and prints what was gained and how to use it."""
    done = {BEFORE: mixed.runs[0.0], AFTER: mixed.runs[mixed.share]}
    outputs = [Output(name, one.recognised) for name, one in done.items()]
    scores = score(mixed.references, outputs, mixed.normalizers)
    speed = [{"system": name} | one.speed() for name, one in done.items()]
    measured = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "speed": speed}
    for one in checked["most_suspicious"]:
        one["audio"] = os.path.relpath(one["audio"], output.absolute())
    found = verdict(scores.document["comparisons"][0], start.name)
    finetuning = {
        "start": start.name,
        "check": checked,
        "division": division(checked),
        "recipe": recipe_for(checked["hours"])._asdict(),
        "epoch": load_progress(output / "run" / BEST)["epoch"],
        "share": mixed.share,
        "errors": [{"share": share, "errors": errors} for share, errors in mixed.errors.items()],
        "verdict": found,
        "bundle": str(output / "bundle"),
    }
    write_report(output, scores, environment(command), measured, finetuning)
    print(summary(scores.document, speed))
    print(f"\n{found}")
    print(f"hark transcribe --model {output / 'bundle'} RECORDING")
    print(f"python app.py --model {output / 'bundle'}")
    print(f"finetune: wrote {output / 'report.html'}", file=sys.stderr)


def verdict(comparison: dict[str, Any], start: str) -> str:
    """What the difference of before and after means, in a sentence."""
    gained, (low, high) = comparison["difference"], comparison["interval"]
    if gained == 0:
        return f"No gain: as many words are wrong as before. Keep {start}, and record more."
    interval = [low, high] if gained > 0 or low is None else [-high, -low]
    p = comparison["mapsswe"]["p"]
    figures = f"{percent(abs(gained))} points (95 % {interval_text(interval)}, MAPSSWE p {p_text(p)})"
    if gained < 0:
        return f"No gain: the new model is worse by {figures}. Keep {start}, and record more."
    if low is None or low <= 0:
        return f"The new model is better by {figures}, which may be chance. Record more to know."
    return f"The new model is better by {figures}."
