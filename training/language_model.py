"""Language models from text: estimate n-grams, train a recurrent model, convert, measure.

    python -m training.language_model ngram books.txt.xz --order 3 --prune 0 1 2 --output lm
    python -m training.language_model recurrent books.txt.xz --output lm
    python -m training.language_model convert other.arpa.gz --output lm
    python -m training.language_model perplexity lm/ngram.bin dev-read.jsonl

Text has a sentence a line (.xz and .gz are unpacked, - is standard input) and is normalised as transcripts
are: write numbers out before, they would be lost. Of a manifest (.jsonl) the texts are taken.
"""

if __name__ == "__main__":  # first, so that --help need not wait for the imports
    from training.commands import run_as_module

    run_as_module("language-model")


if __name__ == "__main__":
    from training.commands import run_as_module

    run_as_module("language-model")

import argparse
import gzip
import json
import lzma
import math
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from asr.decoding.arpa import read_arpa, write_arpa
from asr.decoding.ngram import NgramModel, is_compact
from asr.decoding.recurrent_lm import UNKNOWN_ID, RecurrentModel
from asr.tokenizer import Tokenizer
from training.ngram_estimation import FALLBACK_DISCOUNTS, estimate

MODEL_NAME, ARPA_NAME, RECURRENT_NAME = "ngram.bin", "ngram.arpa", "recurrent.safetensors"
ENGLISH = Tokenizer.characters()

_BLOCK_CHARACTERS = 1 << 24
_RECURRENT_BATCH = 64  # sentences at once
# Nothing here that normalisation would change, line by line.
_NORMAL = re.compile(r"(?:[a-z][a-z']*(?: [a-z][a-z']*)*\n)*")


class Perplexity(NamedTuple):
    """How well a model foretells a text.

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


def read_sentences(paths: Iterable[str], tokenizer: Tokenizer = ENGLISH) -> Iterator[list[str]]:
    """Blocks of normalised sentences without empty ones, of text files or manifests.

    Raises ValueError naming the file and what is wrong with it.
    """
    for path in paths:
        try:
            with _open(path) as file:
                while lines := file.readlines(_BLOCK_CHARACTERS):
                    if path.endswith(".jsonl"):
                        lines = [json.loads(line)["text"] + "\n" for line in lines]
                    yield _normalized(lines, tokenizer)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 ({error.reason}); convert the file") from error
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise ValueError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: a line is no manifest entry with a text") from error


def load(path: Path | str) -> NgramModel:
    """A compact n-gram model or an ARPA file (also .gz). Raises LanguageModelError for anything else."""
    return NgramModel.load(path) if is_compact(path) else read_arpa(path)


def measure(model: NgramModel | RecurrentModel, sentences: Iterable[list[str]]) -> Perplexity:
    """Perplexity and unknown words of some blocks of sentences."""
    foretell = _by_recurrent if isinstance(model, RecurrentModel) else _by_ngram
    words = unknown = ends = 0
    total = total_unknown = 0.0
    for log_probs, is_unknown in foretell(model, sentences):
        words += len(is_unknown)
        ends += 1
        unknown += int(is_unknown.sum())
        total += float(log_probs.sum())
        total_unknown += float(log_probs[:-1][is_unknown].sum())
    if not ends:
        raise ValueError("the text has no words")
    return Perplexity(
        words=words,
        unknown=unknown,
        perplexity=math.exp(-total / (words + ends)),
        perplexity_known=math.exp(-(total - total_unknown) / (words + ends - unknown)),
    )


def _by_ngram(model: NgramModel, sentences: Iterable[list[str]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each sentence ln P of its words and its end, and which of the words are unknown."""
    tables = model.tables
    ids: dict[str, int] = {}
    for sentence in chain.from_iterable(sentences):
        path = [tables.begin_id]
        for word in sentence.split():
            if word not in ids:
                ids[word] = model.id(word)
            path.append(ids[word])
        path.append(tables.end_id)
        log_probs = [model.log_prob(path[:place], path[place]) for place in range(1, len(path))]
        yield np.array(log_probs), np.array(path[1:-1]) == tables.unknown_id


def _by_recurrent(
    model: RecurrentModel, sentences: Iterable[list[str]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same by a recurrent model, normalised."""
    rest = chain.from_iterable(sentences)
    while block := list(islice(rest, _RECURRENT_BATCH)):
        ids = [[model.id(word) for word in sentence.split()] for sentence in block]
        for numbers, log_probs in zip(ids, model.log_probs(ids, normalized=True), strict=True):
            yield log_probs.astype(np.float64), np.array(numbers) == UNKNOWN_ID


def _open(path: str) -> AbstractContextManager[TextIO]:
    if path == "-":
        return nullcontext(sys.stdin)
    opener = {".xz": lzma.open, ".gz": gzip.open}.get(Path(path).suffix, open)
    return opener(path, "rt", encoding="utf-8")


def _normalized(lines: list[str], tokenizer: Tokenizer) -> list[str]:
    if not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    if tokenizer.alphabet == ENGLISH.alphabet and _NORMAL.fullmatch("".join(lines)):
        return [line[:-1] for line in lines]
    return [text for line in lines if (text := tokenizer.normalize(line))]


def _ngram(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=options.output, prefix="counts-") as folder:
        result = estimate(
            read_sentences(options.text), Path(folder), options.order, options.prune, options.vocabulary
        )
    for order in result.fallbacks:
        print(
            f"too little text for discounts of {order}-grams: took {', '.join(map(str, FALLBACK_DISCOUNTS))}",
            file=sys.stderr,
        )
    print(f"{result.words} words of text, {result.unknown} of them outside the vocabulary")
    _write(result.model, options)


def _recurrent(options: argparse.Namespace) -> None:
    from training import recurrent_training  # Keras would slow the other commands

    model = recurrent_training.train(
        read_sentences(options.text), options.output, options.words, options.width, options.epochs
    )
    path = options.output / RECURRENT_NAME
    model.save(path)
    print(f"{path}: {len(model.vocabulary)} words; {path.stat().st_size / 1e6:.1f} MB")


def _convert(options: argparse.Namespace) -> None:
    _write(load(options.model), options)


def _perplexity(options: argparse.Namespace) -> None:
    recurrent = options.model.endswith(Path(RECURRENT_NAME).suffix)
    model = RecurrentModel.load(options.model) if recurrent else load(options.model)
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
    commands = {"ngram": _ngram, "recurrent": _recurrent, "convert": _convert, "perplexity": _perplexity}
    commands[options.action](options)
