"""Finds the decoder's weights on speech that a model was not trained on, and writes them into its bundle.

    python -m training.tune_decoder dev-read.jsonl dev-other.jsonl --model english --lm lm

The language model in the folder of --lm (`ngram.bin`) is copied into the bundle first; without --lm that of
the bundle is tuned. The log-probs are computed once. Then the weights are changed one by one as long as fewer
words are wrong, and the narrowest beam with about as few errors is chosen.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("tune-decoder")

import argparse
import functools
import itertools
import json
import logging
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from asr.audio import AudioError, load_audio
from asr.bundle import Bundle
from asr.decoding.beam import LANGUAGE_MODEL_NAME, SETTINGS_NAME, BeamDecoder
from asr.decoding.greedy import greedy_decode
from asr.decoding.ngram import BEGIN, END, UNKNOWN, LanguageModelError, NgramModel
from asr.engine import Engine
from asr.files import replacing, write_whole
from asr.segmentation import cut_utterances
from asr.tokenizer import Tokenizer
from training.language_model import MODEL_NAME
from training.manifest import Entry, distinct_names, read_manifest
from training.scoring.alignment import HITS, align
from training.scoring.console import progress

log = logging.getLogger(__name__)


class Range(NamedTuple):
    """Where the search for a weight begins, its first step, and its lowest value."""

    start: float
    first_step: float
    lowest: float = 0.0


WEIGHTS = {
    "alpha": Range(0.5, 0.2),
    "beta": Range(1.0, 0.6, lowest=-math.inf),
    "unknown_penalty": Range(1.0, 0.6),
}
HALVINGS = 2  # of the steps
BEAM = 64  # while the weights are moved
BEAMS = (32, 64, 128, 256, 512)
NEGLIGIBLE = 0.005  # fraction of the errors that is no reason for a wider beam


class DevUtterance(NamedTuple):
    """An utterance of a manifest: its text, and log-probs [steps, units] of each part between pauses."""

    text: str
    log_probs: list[np.ndarray]


def readable(tokenizer: Tokenizer, entries: Iterable[Entry]) -> Iterator[tuple[Entry, np.ndarray]]:
    """Entries and their samples. Warns of those left out: bad sound, or text the model cannot write."""
    for entry in entries:
        if lost := tokenizer.lost(entry.text):
            log.warning("left out: %s: the model does not write %s of its text", entry.audio, " ".join(lost))
            continue
        try:
            yield entry, load_audio(entry.audio, entry.offset_seconds, entry.duration_seconds)
        except AudioError as error:
            log.warning("left out: %s", error)


def dev_utterances(engine: Engine, tokenizer: Tokenizer, entries: Iterable[Entry]) -> list[DevUtterance]:
    """Log-probs of the `readable` entries, as the recogniser would decode them."""
    utterances = []
    for entry, samples in readable(tokenizer, entries):
        parts = [engine.log_probs(utterance.samples) for utterance in cut_utterances([samples])]
        utterances.append(DevUtterance(tokenizer.normalize(entry.text), parts))
    return utterances


def transcribe(decode: Callable[[np.ndarray], str], utterances: Iterable[DevUtterance]) -> list[str]:
    """The text of each utterance by a function from log-probs to text."""
    return [" ".join(text for part in one.log_probs if (text := decode(part))) for one in utterances]


def word_errors(utterances: Sequence[DevUtterance], texts: Sequence[str]) -> int:
    """Substitutions, deletions and insertions of all utterances."""
    counts = align([one.text for one in utterances], texts).words.sum(axis=0)
    return int(counts.sum() - counts[HITS])


def tune(errors_of: Callable[[dict[str, float]], int]) -> dict[str, float]:
    """The weights with the fewest errors that a coordinate search finds.

    Each weight in turn is moved by its step, up or down, while that helps; then all steps are halved.

    Args:
      errors_of: the number of words that are wrong with some weights.
    """

    @functools.cache
    def errors(*values: float) -> int:
        return errors_of(dict(zip(WEIGHTS, values, strict=True)))

    best = {name: range.start for name, range in WEIGHTS.items()}
    for halving in range(HALVINGS + 1):
        improved = True
        while improved:
            improved = False
            for name, (_, first_step, lowest) in WEIGHTS.items():
                for step in (first_step / 2**halving, -first_step / 2**halving):
                    moved = best | {name: round(best[name] + step, 6)}
                    if moved[name] >= lowest and errors(*moved.values()) < errors(*best.values()):
                        best, improved = moved, True
    return best


def narrowest(errors_of: Callable[[int], int]) -> int:
    """The narrowest beam that makes hardly more errors than the best one."""
    errors = {beam: errors_of(beam) for beam in BEAMS}
    return next(beam for beam in BEAMS if errors[beam] <= (1 + NEGLIGIBLE) * min(errors.values()))


def tune_bundle(bundle: Bundle, sets: Mapping[str, Sequence[DevUtterance]]) -> dict[str, Any]:
    """Tunes a bundle's decoder; writes and returns the settings.

    Args:
      sets: utterances with log-probs of the bundle's model, by name; all sets are tuned on together.
    """
    model = NgramModel.load(bundle.directory / LANGUAGE_MODEL_NAME)
    everything = list(itertools.chain(*sets.values()))

    def errors_of(settings: dict[str, float]) -> int:
        decoder = BeamDecoder(bundle.tokenizer, model, **settings)
        errors = word_errors(everything, transcribe(lambda part: decoder.decode(part)[0].text, everything))
        print(f"{settings}: {errors} words wrong", file=sys.stderr)
        return errors

    settings: dict[str, Any] = tune(lambda weights: errors_of(weights | {"beam": BEAM}))
    settings["beam"] = narrowest(lambda beam: errors_of(settings | {"beam": beam}))
    path = bundle.directory / SETTINGS_NAME
    write_whole(path, json.dumps(settings, indent=2) + "\n")
    tuned = BeamDecoder.from_bundle(bundle)  # read back: what is measured is what a user gets
    decoders = {
        "greedy": lambda log_probs: greedy_decode(log_probs, bundle.tokenizer).text,
        "beam": lambda log_probs: tuned.decode(log_probs)[0].text,
    }
    settings["wer_percent"] = {
        name: {decoder: _wer_percent(decode, utterances) for decoder, decode in decoders.items()}
        for name, utterances in sets.items()
    }
    write_whole(path, json.dumps(settings, indent=2) + "\n")
    return settings


def _wer_percent(decode: Callable[[np.ndarray], str], utterances: Sequence[DevUtterance]) -> float | None:
    words = words_of(utterances)
    return round(100 * word_errors(utterances, transcribe(decode, utterances)) / words, 2) if words else None


def words_of(utterances: Iterable[DevUtterance]) -> int:
    """Number of words in the texts."""
    return sum(len(one.text.split()) for one in utterances)


def install(folder: Path, bundle: Bundle) -> None:
    """Replaces the bundle's language model by that of a folder."""
    target = bundle.directory / LANGUAGE_MODEL_NAME
    target.parent.mkdir(exist_ok=True)
    with replacing(target) as partial:
        shutil.copyfile(folder / MODEL_NAME, partial)


def spelling(path: Path, tokenizer: Tokenizer) -> str:
    """How many words of an n-gram model the acoustic model can write.

    Raises LanguageModelError where that is none of them, or the file is no such model.
    """
    model = NgramModel.load(path)
    words = [
        word for word in map(model.word, range(model.vocabulary_size)) if word not in (BEGIN, END, UNKNOWN)
    ]
    alphabet = set(tokenizer.alphabet)
    spelt = sum(alphabet.issuperset(word) for word in words)
    text = f"{spelt} of its {len(words)} words (upper and lower case differ)"
    if words and not spelt:
        raise LanguageModelError(
            f"{path}: the model writes {text}; estimate it on text in the letters {tokenizer.alphabet}"
        )
    return f"{path}: the model writes {'only ' * (2 * spelt < len(words))}{text}"


def main(options: argparse.Namespace) -> int:
    """`hark tune-decoder`. Returns the exit code: 1 if utterances were left out."""
    bundle = Bundle.load(options.model)
    names = distinct_names(options.manifests)
    manifests = {name: read_manifest(path) for name, path in zip(names, options.manifests, strict=True)}
    path = options.lm / MODEL_NAME if options.lm else bundle.directory / LANGUAGE_MODEL_NAME
    print(spelling(path, bundle.tokenizer), file=sys.stderr)
    engine = Engine.load(bundle)
    sets = {
        name: dev_utterances(engine, bundle.tokenizer, progress(name)(entries))
        for name, entries in manifests.items()
    }
    if not any(map(words_of, sets.values())):
        raise ValueError("there are no words to tune on: give speech whose texts have some")
    if options.lm:
        install(options.lm, bundle)
    settings = tune_bundle(bundle, sets)
    print(json.dumps(settings, indent=2))
    return int(any(len(sets[name]) < len(manifests[name]) for name in names))
