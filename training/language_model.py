"""Language models from text: estimate n-grams, train a recurrent model, convert, measure.

    python -m training.language_model ngram books.txt.xz --order 3 --prune 0 1 2 --output lm
    python -m training.language_model recurrent books.txt.xz --output lm
    python -m training.language_model convert other.arpa.gz --output lm
    python -m training.language_model perplexity lm/ngram.bin dev-read.jsonl

Text has one sentence per line, or is a manifest, whose texts are taken; it is normalised as transcripts are.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("language-model")

import argparse
import logging
import math
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from asr.decoding.arpa import read_arpa, write_arpa
from asr.decoding.ngram import NgramModel, is_compact
from asr.files import READ_ERRORS, open_file, reason
from asr.tokenizer import Tokenizer
from training.manifest import MANIFESTS, manifest_kind, read_rows
from training.ngram_estimation import FALLBACK_DISCOUNTS, estimate

if TYPE_CHECKING:
    from training.recurrent_training import NoiseContrastiveLM

log = logging.getLogger(__name__)

MODEL_NAME, ARPA_NAME, RECURRENT_NAME = "ngram.bin", "ngram.arpa", "recurrent.safetensors"
ENGLISH = Tokenizer.characters()

_BLOCK_CHARACTERS, _BLOCK_ROWS = 1 << 24, 1 << 18
# Lines that normalising leaves as they are: taken whole, many times as fast.
_NORMAL = re.compile(r"(?:[a-z][a-z']*(?: [a-z][a-z']*)*(?:\n|$))*")
_MAY_LOSE = re.compile(r"""[^a-zA-Z' \n\t.,;:!?"()\[\]_-]""")


class Perplexity(NamedTuple):
    """How well a model predicts a text.

    Attributes:
      words: running words, without sentence ends.
      unknown: how many of them are not in the vocabulary.
      perplexity: of all words and sentence ends; unknown words count with the probability of `<unk>`.
      perplexity_known: the same without the unknown words.
    """

    words: int
    unknown: int
    perplexity: float
    perplexity_known: float


def read_sentences(paths: Iterable[str]) -> Iterator[list[str]]:
    """Blocks of normalised sentences, without empty ones, of text files or manifests ("-": standard input).

    Warns of sentences that lose letters or digits. Raises ValueError naming the file and what is wrong, as
    where no text has words.
    """
    paths, found = list(paths), False
    for path in paths:
        lossy = 0
        for lines in _blocks_of_rows(path) if manifest_kind(path) in MANIFESTS else _blocks_of_lines(path):
            block = "".join(lines)
            if _NORMAL.fullmatch(block):
                texts = block.splitlines()
            else:
                for line in filter(_MAY_LOSE.search, lines):
                    if lost := ENGLISH.lost(line):
                        lossy, example = lossy + 1, (lost, line.strip()[:60])
                texts = [text for line in lines if (text := ENGLISH.normalize(line))]
            found |= bool(texts)
            yield texts
        if lossy:
            log.warning("%s: %d sentences lose characters (%s in %r); write them out", path, lossy, *example)
    if paths and not found:
        raise ValueError(f"{', '.join(paths)}: the text has no words")


def _blocks_of_rows(path: str) -> Iterator[list[str]]:
    """The texts of a manifest, which needs no other fields here."""
    rows = read_rows(path, ["text"])
    while block := list(islice(rows, _BLOCK_ROWS)):
        for number, row in block:
            if not isinstance(row.get("text"), str):
                raise ValueError(f'{path}:{number}: no "text"; found: {", ".join(row) or "nothing"}')
        yield [row["text"].replace("\n", " ") + "\n" for _, row in block]


def _blocks_of_lines(path: str) -> Iterator[list[str]]:
    try:
        with nullcontext(sys.stdin) if path == "-" else open_file(path) as file:
            lines = file.readlines(_BLOCK_CHARACTERS)
            if lines and "audio_filepath" in lines[0]:
                raise ValueError(f"{path}: looks like a manifest; name it .jsonl, .csv or .tsv")
            while lines:
                yield lines
                lines = file.readlines(_BLOCK_CHARACTERS)
    except (UnicodeDecodeError, *READ_ERRORS) as error:
        raise ValueError(f"{path}: {reason(error)}") from error


def load(path: Path | str) -> NgramModel:
    """A compact n-gram model or an ARPA file (.gz, .xz too). Raises LanguageModelError for anything else."""
    return NgramModel.load(path) if is_compact(path) else read_arpa(path)


def measure(model: "NgramModel | NoiseContrastiveLM", sentences: Iterable[list[str]]) -> Perplexity:
    """Perplexity and unknown words of some blocks of sentences, at least one of them."""
    words = unknown = ends = 0
    total = total_unknown = 0.0
    for log_probs, is_unknown in predictions(model, chain.from_iterable(sentences)):
        words += len(is_unknown)
        ends += 1
        unknown += int(is_unknown.sum())
        total += float(log_probs.sum())
        total_unknown += float(log_probs[:-1][is_unknown].sum())
    perplexity_known = math.exp(-(total - total_unknown) / (words + ends - unknown))
    return Perplexity(words, unknown, math.exp(-total / (words + ends)), perplexity_known)


def predictions(
    model: "NgramModel | NoiseContrastiveLM", sentences: Iterable[str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each sentence ln P of its words and its end, and which of the words are unknown."""
    return (_by_ngram if isinstance(model, NgramModel) else _by_recurrent)(model, sentences)


def _by_ngram(model: NgramModel, sentences: Iterable[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    tables, id_of = model.tables, cache(model.id)
    for sentence in sentences:
        path = [tables.begin_id, *map(id_of, sentence.split()), tables.end_id]
        log_probs = [model.log_prob(path[:place], path[place]) for place in range(1, len(path))]
        yield np.array(log_probs), np.array(path[1:-1]) == tables.unknown_id


def _by_recurrent(
    model: "NoiseContrastiveLM", sentences: Iterable[str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for sentence in sentences:
        words = sentence.split()
        yield (
            model.log_probs(words).astype(np.float64),
            np.array([word not in model.ids for word in words], bool),
        )


def _ngram(options: argparse.Namespace) -> None:
    sentences = read_sentences(options.text)
    with tempfile.TemporaryDirectory(dir=options.output, prefix="counts-") as folder:
        try:
            result = estimate(sentences, Path(folder), options.order, options.prune, options.vocabulary)
        except OSError as error:
            raise OSError(error.errno, f"cannot hold the tables: {reason(error)}", folder) from error
    for order in result.fallbacks:
        taken = ", ".join(map(str, FALLBACK_DISCOUNTS))
        print(f"too little text for discounts of {order}-grams: took {taken}", file=sys.stderr)
    print(f"{result.words} words of text, {result.unknown} of them outside the vocabulary")
    _write(result.model, options)


def _recurrent(options: argparse.Namespace) -> None:
    from training import recurrent_training  # Keras would slow the other commands

    sentences = read_sentences(options.text)
    model = recurrent_training.train(sentences, options.output, options.words, options.width, options.epochs)
    path = options.output / RECURRENT_NAME
    recurrent_training.save(model, path)
    print(f"{path}: {len(model.ids)} words; {path.stat().st_size / 1e6:.1f} MB")


def _perplexity(options: argparse.Namespace) -> None:
    if options.model.endswith(Path(RECURRENT_NAME).suffix):
        from training import recurrent_training

        model = recurrent_training.load(options.model)
    else:
        model = load(options.model)
    for path in options.text:
        result = measure(model, read_sentences([path]))
        print(
            f"{path}: {result.words} words, OOV {100 * result.unknown / max(1, result.words):.2f} %, "
            f"perplexity {result.perplexity:.1f}, without OOV {result.perplexity_known:.1f}"
        )


def _write(model: NgramModel, options: argparse.Namespace) -> None:
    if options.arpa:
        write_arpa(model, options.output / ARPA_NAME)
    path = options.output / MODEL_NAME
    model.save(path)
    sizes = ", ".join(f"{size} {order}-grams" for order, size in enumerate(model.counts, start=1))
    print(f"{path}: {sizes}; {path.stat().st_size / 1e6:.1f} MB")


def main(options: argparse.Namespace) -> None:
    """`hark language-model`."""
    match options.action:
        case "ngram":
            _ngram(options)
        case "recurrent":
            _recurrent(options)
        case "convert":
            _write(load(options.model), options)
        case "perplexity":
            _perplexity(options)
