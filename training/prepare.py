"""Manifests of a corpus: hark prepare CORPUS SOURCE --output DIR [--download]

    hark prepare digits free-spoken-digit-dataset-1.0.9 --output data/digits
    hark prepare librispeech LibriSpeech --output data/librispeech --download
    hark prepare folder recordings --output data/mine

A corpus' own sets are kept. Where it has no dev or test set, one is taken from the rest, by whole speakers.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("prepare")

import argparse
import importlib
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from asr.audio import SAMPLE_RATE, AudioError, duration_seconds, load_audio
from training.corpora.corpus import Report, Utterance
from training.corpora.download import download
from training.manifest import Entry, write_manifest
from training.scoring.console import progress, table

HELD_OUT = 0.1  # share of the speech for a dev or test set that the corpus does not have
READERS = 8  # threads
FEWEST_SPEAKERS = 3  # with fewer, recordings are divided
LARGEST = 0.5  # share of the speech: a speaker with more is never held out

Sets = dict[str, list[Entry]]


def main(options: argparse.Namespace) -> int:
    """`hark prepare`: writes DIR/SET.jsonl of each set. Returns 1 where something was left out, else 0."""
    corpus = importlib.import_module(f"training.corpora.{options.corpus}")
    if options.download:
        if not hasattr(corpus, "ARCHIVES"):
            raise ValueError(f"{options.corpus} has no plain link; download it as its web page says")
        for url, md5 in corpus.ARCHIVES.items():
            download(url, md5, options.source)
    left_out: list[str] = []
    utterances = list(corpus.utterances(options.source, left_out.append))
    if not utterances and not left_out:
        raise ValueError(f"{options.source}: no corpus {options.corpus}: it should hold {corpus.LAYOUT}")
    sets = divide(measure(utterances, options.corpus, left_out.append))
    for problem in left_out:
        print(f"prepare: left out: {problem}", file=sys.stderr)
    rows = []
    for name, entries in sets.items():
        path = options.output / f"{name}.jsonl"
        write_manifest(path, entries)
        hours = sum(entry.duration_seconds for entry in entries) / 3600
        rows.append(
            [str(path), str(len(entries)), f"{hours:.2f}", str(len({one.speaker for one in entries}))]
        )
    if not rows:
        raise ValueError(f"{options.source}: no utterance can be used")
    print("\n".join(table(["manifest", "utterances", "hours", "speakers"], rows)))
    print(f"licence: {corpus.LICENCE}")
    return int(bool(left_out))


def measure(utterances: Iterable[Utterance], corpus: str, report: Report) -> Sets:
    """Manifest entries by set, with the length of their sound; each stretch of sound once."""
    places: dict[tuple[Path, float], Utterance] = {}
    for one in utterances:
        if places.setdefault((one.audio, one.start_seconds), one) is not one:
            report(f"{one.audio}: listed twice; the first text and set are taken")
    utterances = list(places.values())
    files = sorted({one.audio for one in utterances})
    with ThreadPoolExecutor(READERS) as pool:
        futures = [pool.submit(_seconds, file) for file in files]
        lengths = {
            file: future.result() for file, future in zip(files, progress("reading")(futures), strict=True)
        }
    sets: Sets = defaultdict(list)
    for one in utterances:
        seconds = lengths[one.audio]
        if isinstance(seconds, str):
            report(seconds)
        elif not one.text.strip():
            report(f"{one.audio}: no text")
        elif (end := one.end_seconds or seconds) > seconds + 1 or one.start_seconds >= seconds:
            report(f"{one.audio}: {one.start_seconds:g} to {end:g} s, but it ends at {seconds:g} s")
        else:
            end, written = min(end, seconds), {"text_cased": one.text} if one.is_written else {}
            length, start, text = end - one.start_seconds, one.start_seconds, one.text
            text = text if one.is_written else text.lower()
            fields = {**written, "corpus": corpus}
            sets[one.set].append(Entry("", one.audio.absolute(), text, length, start, one.speaker, fields))
    return sets


def _seconds(file: Path) -> float | str:
    """Length of a recording, or why it cannot be read."""
    try:
        return duration_seconds(file) or len(load_audio(file)) / SAMPLE_RATE
    except AudioError as error:
        return str(error)


def divide(sets: Sets) -> Sets:
    """The sets of a corpus, with those that it lacks taken from its speech without a set, or from "train"."""
    sets = dict(sets)
    for name in ("test", "dev"):
        source = "" if "" in sets else "train"
        if source in sets and not any(known.startswith(name) for known in sets):
            entries = sets[source]
            few = len({entry.speaker for entry in entries}) < FEWEST_SPEAKERS
            taken, sets[source] = take(entries, HELD_OUT, recording_of if few else speaker_of)
            if taken:
                sets[name] = taken
    if "" in sets:
        sets["train"] = sets.get("train", []) + sets.pop("")
    return sets


def speaker_of(entry: Entry) -> str:
    """Who speaks."""
    return entry.speaker


def recording_of(entry: Entry) -> str:
    """Name of the file."""
    return entry.audio.name


def take(
    entries: Sequence[Entry], share: float, unit: Callable[[Entry], str]
) -> tuple[list[Entry], list[Entry]]:
    """A share of some speech, by whole units in an order that depends on their names; and the rest.

    Units with more than `LARGEST` of the speech stay in the rest, which is never empty.

    Args:
      unit: what is not divided, such as `speaker_of`.
    """
    seconds: dict[str, float] = defaultdict(float)
    for entry in entries:
        seconds[unit(entry)] += entry.duration_seconds
    total, taken = sum(seconds.values()), set()
    order = sorted(seconds, key=lambda name: (zlib.crc32(name.encode()), name))
    small = [name for name in order if seconds[name] <= LARGEST * total]
    for name in small if len(small) < len(order) else order[:-1]:
        if sum(seconds[one] for one in taken) >= share * total:
            break
        taken.add(name)
    return [one for one in entries if unit(one) in taken], [one for one in entries if unit(one) not in taken]
