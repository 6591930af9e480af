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
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from asr.decoding.beam import LANGUAGE_MODEL_NAME
from asr.decoding.ngram import NgramModel
from asr.recognizer import Recognizer
from asr.segmentation import cut_utterances
from training.manifest import Entry, distinct_names, read_manifest
from training.scoring.alignment import align, side_by_side
from training.scoring.console import progress, table
from training.scoring.intervals import percentile_interval, resample, sums_by_unit
from training.scoring.normalizers import DEFAULT, normalizer
from training.tune_decoder import readable

FEWEST_LETTERS = 4  # shorter ones are seldom names

# Columns of a table of counts.
FOUND, SAID, ERRORS_ELSEWHERE, WORDS_ELSEWHERE = range(4)


def main(options: argparse.Namespace) -> None:
    """`hark benchmark hotwords`: prints one table."""
    recognizer = Recognizer.load(options.model)
    bundle = recognizer.bundle
    if not bundle.has_language_model:
        raise ValueError(f"{bundle.name} has no language model: run python -m training.tune_decoder")
    names = distinct_names(options.manifests)
    entries = {name: read_manifest(path) for name, path in zip(names, options.manifests, strict=True)}
    texts = [bundle.tokenizer.normalize(entry.text) for name in names for entry in entries[name]]
    model = NgramModel.load(bundle.directory / LANGUAGE_MODEL_NAME)
    words = rarest_words(texts, model, options.words)
    print(f"{len(words)} hot words: {', '.join(words)}")
    decoders = [recognizer.decoder(), recognizer.decoder(hotwords=words)]
    sets = {name: recognise(recognizer, decoders, progress(name)(entries[name])) for name in names}
    rows = []
    for normalizer_name in DEFAULT:
        normalize = normalizer(normalizer_name)
        measured = []
        for name, (said, speakers, recognised) in sets.items():
            counts = [count_words(said, found, words, normalize) for found in recognised]
            measured.append((name, np.hstack(counts), speakers))
        if len(measured) > 1:
            _, counts, speakers = zip(*measured, strict=True)
            measured.append(("all", np.concatenate(counts), list(itertools.chain(*speakers))))
        rows += [[name, normalizer_name, *_row(counts, speakers)] for name, counts, speakers in measured]
    head = ["", "normaliser", "said", "recall % without", "with", "points more"]
    head += ["WER % elsewhere without", "with", "points more"]
    print("\n".join(table(head, rows)))


def recognise(
    recognizer: Recognizer, decoders: Sequence[Callable], entries: Iterable[Entry]
) -> tuple[list[str], list[str], list[list[str]]]:
    """Texts and speakers of the readable entries, and their texts by each decoder."""
    said, speakers = [], []
    recognised: list[list[str]] = [[] for _ in decoders]
    for entry, samples in readable(recognizer.tokenizer, entries):
        said.append(recognizer.tokenizer.normalize(entry.text))
        speakers.append(entry.speaker)
        encodings = [recognizer.engine.encode(part.samples) for part in cut_utterances([samples])]
        for texts, decode in zip(recognised, decoders, strict=True):
            texts.append(" ".join(word.text for encoding in encodings for word in decode(encoding)))
    return said, speakers, recognised


def rarest_words(texts: Sequence[str], model: NgramModel, count: int) -> list[str]:
    """The words to which a language model gives the least probability, of equals the more frequent first."""
    times_said = Counter(word for text in texts for word in text.split() if len(word) >= FEWEST_LETTERS)

    def rarity(word: str) -> tuple:
        log_prob = model.log_prob([], model.id(word)) if model.knows(word) else -np.inf
        return log_prob, -times_said[word], word

    return sorted(times_said, key=rarity)[:count]


def count_words(
    references: Sequence[str],
    hypotheses: Sequence[str],
    words: Sequence[str],
    normalize: Callable[[str], str] = str,
) -> np.ndarray:
    """int64 [utterances, 4]: the given words that were found, and said; errors and words elsewhere.

    Texts and words are normalised first; a word that becomes several is no longer looked for.
    """
    counts = np.zeros((len(references), 4), np.int64)
    references, hypotheses, words = (list(map(normalize, texts)) for texts in (references, hypotheses, words))
    wanted = set(words)
    operations = align(references, hypotheses).operations
    for row, reference, hypothesis, runs in zip(counts, references, hypotheses, operations, strict=True):
        for kind, said, _ in side_by_side(runs, reference.split(), hypothesis.split()):
            if said in wanted:
                row[[FOUND, SAID]] += kind == "equal", 1
            else:
                row[[ERRORS_ELSEWHERE, WORDS_ELSEWHERE]] += kind != "equal", said is not None
    return counts


def _row(counts: np.ndarray, speakers: Sequence[str]) -> list[str]:
    """Cells of the table, from counts [utterances, 8] without and with hot words."""
    _, sums = sums_by_unit(counts, speakers)

    def measures(totals: np.ndarray) -> np.ndarray:
        """[..., 6] in percent: recall without, with, points more; the same of WER elsewhere."""
        found, said, errors, words = (totals[..., column::4] for column in range(4))
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = 100 * found / said, 100 * errors / words
        return np.concatenate([part for rate in rates for part in (rate, np.diff(rate))], axis=-1)

    total = sums.sum(axis=0)
    cells = [f"{value:.2f}" for value in measures(total)]
    for column, resampled in enumerate(measures(resample(sums)).T):
        if column % 3 == 2:
            low, high = percentile_interval(resampled, len(sums))
            cells[column] = f"{float(cells[column]):+.2f} ({low:+.2f} to {high:+.2f})"
    return [str(total[SAID]), *cells]
