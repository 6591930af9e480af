"""What hot words gain: recall of rare words, and word error rate elsewhere, without and with them.

    python -m training.benchmark hotwords dev-read.jsonl dev-narrow.jsonl --model english

The hot words are those words of all transcripts together that the language model thinks rarest, unknown ones
first: in books mostly names. All are given at once, for every utterance, as someone gives the names of a
project. A word counts as found where the alignment with the fewest errors has it right; "elsewhere" are all
other words, and all insertions.
"""

import argparse
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asr.bundle import Bundle
from asr.decoding.beam import BeamDecoder
from asr.decoding.ngram import NgramModel
from asr.engine import Engine
from training.manifest import distinct_names, read_manifest
from training.scoring.alignment import align, side_by_side
from training.scoring.console import progress
from training.scoring.intervals import percentile_interval, resample, resampling_units, sum_by_unit
from training.tune_decoder import DevUtterance, dev_utterances, transcribe

FEWEST_LETTERS = 4  # shorter ones are seldom names

# Columns of a table of counts.
FOUND, SAID, ERRORS_ELSEWHERE, WORDS_ELSEWHERE = range(4)


def main(options: argparse.Namespace) -> None:
    """Prints one table."""
    _compare(options.manifests, Bundle.load(options.model), options.words)


def _compare(manifests: Sequence[Path], bundle: Bundle, count: int) -> None:
    if not bundle.has_language_model:
        raise ValueError(f"{bundle.name} has no language model: run python -m training.tune_decoder")
    names = distinct_names(manifests)
    sets = {name: read_manifest(path) for name, path in zip(names, manifests, strict=True)}
    engine = Engine.load(bundle)
    utterances = {
        name: dev_utterances(engine, bundle.tokenizer, progress(name)(entries))
        for name, entries in sets.items()
    }
    everything = [one for ones in utterances.values() for one in ones]
    without = BeamDecoder.from_bundle(bundle)
    words = rarest_words([one.text for one in everything], without.language_model, count)
    with_words = BeamDecoder.from_bundle(bundle, words)

    print(f"{len(words)} hot words: {', '.join(words)}\n")
    print(f"{'':14} {'said':>5} {'recall % without':>17} {'with':>6} {'points more':>22} ", end="")
    print(f"{'WER % elsewhere without':>24} {'with':>6} {'points more':>22}")
    counts = {
        name: [_counts(decoder, ones, words) for decoder in (without, with_words)]
        for name, ones in utterances.items()
    }
    speakers = {name: [entry.speaker or "" for entry in entries] for name, entries in sets.items()}
    for name in utterances:
        _print_row(name, *counts[name], speakers[name])
    if len(utterances) > 1:
        together = (np.concatenate([pair[i] for pair in counts.values()]) for i in range(2))
        _print_row("all", *together, list(itertools.chain(*speakers.values())))


def rarest_words(texts: Sequence[str], model: NgramModel, count: int) -> list[str]:
    """The words to which a language model gives the least probability, of equals the more frequent first."""
    times_said = Counter(word for text in texts for word in text.split() if len(word) >= FEWEST_LETTERS)

    def rarity(word: str) -> tuple:
        log_prob = model.log_prob([], model.id(word)) if model.knows(word) else -np.inf
        return log_prob, -times_said[word], word

    return sorted(times_said, key=rarity)[:count]


def count_words(references: Sequence[str], hypotheses: Sequence[str], words: Sequence[str]) -> np.ndarray:
    """int64 [utterances, 4]: the given words that were found, and said; errors and words elsewhere."""
    counts = np.zeros((len(references), 4), np.int64)
    wanted = set(words)
    operations = align(references, hypotheses).operations
    for row, reference, hypothesis, runs in zip(counts, references, hypotheses, operations, strict=True):
        for kind, said, _ in side_by_side(runs, reference.split(), hypothesis.split()):
            if said in wanted:
                row[[FOUND, SAID]] += kind == "equal", 1
            else:
                row[[ERRORS_ELSEWHERE, WORDS_ELSEWHERE]] += kind != "equal", said is not None
    return counts


def _counts(decoder: BeamDecoder, utterances: Sequence[DevUtterance], words: Sequence[str]) -> np.ndarray:
    texts = transcribe(lambda log_probs: decoder.decode(log_probs)[0].text, utterances)
    return count_words([one.text for one in utterances], texts, words)


def _print_row(name: str, without: np.ndarray, with_words: np.ndarray, speakers: Sequence[str]) -> None:
    _, units = resampling_units(speakers)
    sums = sum_by_unit(np.hstack([without, with_words]), units)

    def measures(totals: np.ndarray) -> np.ndarray:
        """[..., 6] in percent: recall without, with, points more; the same of WER elsewhere."""
        found, said, errors, words = (totals[..., column::4] for column in range(4))
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = 100 * found / said, 100 * errors / words
        return np.concatenate([part for rate in rates for part in (rate, np.diff(rate))], axis=-1)

    found = measures(sums.sum(axis=0))
    resampled = measures(resample(sums))
    rise, points = (_with_interval(found[i], resampled[:, i], len(sums)) for i in (2, 5))
    print(f"{name:14} {sums.sum(axis=0)[SAID]:5} {found[0]:17.1f} {found[1]:6.1f} {rise:>22} ", end="")
    print(f"{found[3]:24.2f} {found[4]:6.2f} {points:>22}")


def _with_interval(value: float, resampled: np.ndarray, units: int) -> str:
    low, high = percentile_interval(resampled, units)
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"
