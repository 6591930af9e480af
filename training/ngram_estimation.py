"""Interpolated modified Kneser–Ney estimation of n-gram models in bounded memory.

Chen & Goodman 1998, "An empirical study of smoothing techniques for language modeling", with pruning by
count as in Heafield et al. 2013, "Scalable modified Kneser–Ney language model estimation" (KenLM's lmplz).

All tables are files of a temporary folder, mapped into memory and processed in blocks; only the vocabulary
and the pruned model stay in memory. The folder takes 16 bytes per word of text and 40 per distinct n-gram.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asr.decoding.ngram import BEGIN, END, UNKNOWN, NgramLevel, NgramModel

# N-grams sorted at a time: 64 MiB of keys.
BLOCK = 1 << 23
# What lmplz falls back to where a text is too small for discounts of its own.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)


class Estimate(NamedTuple):
    """A model and what is known of its text.

    Attributes:
      model: the n-grams that were kept.
      words: running words of the text, without sentence ends.
      unknown: how many of them are not in the vocabulary.
      fallbacks: the orders whose counts gave no discounts, so that `FALLBACK_DISCOUNTS` were taken.
    """

    model: NgramModel
    words: int
    unknown: int
    fallbacks: list[int]


class _Order:
    """All distinct n-grams of one order, sorted by their words; arrays mapped from files.

    `keys` holds prefix << bits | word, where the prefix is the place of the first words in the order below.
    """

    def __init__(self, keys: np.ndarray, counts: np.ndarray, folder: Path, name: str):
        self.keys, self.counts = keys, counts
        # Place of the last words in the order below; whether the first word is <s>.
        self.suffixes = _array(folder / f"{name}.suffixes", np.int64, len(keys))
        self.begins = _array(folder / f"{name}.begins", np.bool_, len(keys))
        self.adjusted = _array(folder / f"{name}.adjusted", np.int64, len(keys))
        # Of the n-gram as a context: sum of its continuations' counts, and its back-off weight.
        self.total = _array(folder / f"{name}.total", np.float64, len(keys))
        self.backoff = _array(folder / f"{name}.backoff", np.float64, len(keys))
        self.probability = _array(folder / f"{name}.probability", np.float64, len(keys))


def estimate(
    sentences: Iterable[Sequence[str]],
    folder: Path,
    order: int = 3,
    prune: Sequence[int] = (0,),
    vocabulary_limit: int | None = None,
) -> Estimate:
    """A model of some text.

    Args:
      sentences: blocks of sentences, of any number; words between blanks.
      folder: an empty one for the tables.
      order: length of the longest n-grams, 1 to 6.
      prune: for each order, n-grams that occur so often or less are left out; the last number holds for the
        orders that follow. The first must be 0: for fewer words use `vocabulary_limit`.
      vocabulary_limit: so many of the most frequent words are kept, others become `<unk>`; None keeps all.

    Raises:
      ValueError: no words; a number out of its range; more n-grams than fit 64-bit numbers.
    """
    thresholds = [prune[min(k, len(prune) - 1)] for k in range(order)]
    if thresholds[0] != 0 or sorted(thresholds) != thresholds:
        raise ValueError("pruning starts with 0 and never falls: a kept n-gram needs its shorter ones")
    if vocabulary_limit is not None and vocabulary_limit < 1:
        raise ValueError(f"a vocabulary of {vocabulary_limit} words is too small: give at least 1")
    words, ids = _read(sentences, folder)
    vocabulary, ids = _limit_vocabulary(words, ids, folder, vocabulary_limit)
    special = {word: vocabulary.index(word) for word in (BEGIN, END, UNKNOWN)}
    bits = len(vocabulary).bit_length()

    unigrams = np.bincount(ids, minlength=len(vocabulary))
    orders = [_Order(np.arange(len(vocabulary)), unigrams, folder, "1")]
    orders[0].begins[special[BEGIN]] = True
    ranks = ids  # of the n-gram that ends at each word, in its order; -1 where it would begin before <s>
    for k in range(2, order + 1):
        if len(orders[-1].keys).bit_length() + bits > 63:
            raise ValueError(
                f"too many {k - 1}-grams ({len(orders[-1].keys)}): lower --order or --vocabulary"
            )
        blocks = (keys[keys >= 0] for _, keys in _keys(ranks, ids, bits, special[BEGIN]))
        table = _Order(*_sort_and_count(blocks, folder, f"{k}"), folder, f"{k}")
        orders.append(table)
        _link(orders, bits)
        if k < order:
            longer = _array(folder / f"{k}.ranks", np.int64, len(ids))
            longer[0] = -1
            for place, keys in _keys(ranks, ids, bits, special[BEGIN]):
                longer[place] = np.where(keys >= 0, np.searchsorted(table.keys, keys), -1)
            ranks = longer
    _adjust_counts(orders)

    discounts = [_discounts(table) for table in orders]
    fallbacks = [k for k, found in enumerate(discounts, start=1) if found is None]
    discounts = [found or FALLBACK_DISCOUNTS for found in discounts]
    _unigram_probabilities(orders[0], discounts[0], special)
    for k in range(1, order):
        _probabilities(orders[k], orders[k - 1], discounts[k], thresholds[k], bits)
    return Estimate(
        model=NgramModel.from_levels(vocabulary, _kept(orders, thresholds, bits)),
        words=int(unigrams.sum() - unigrams[special[BEGIN]] - unigrams[special[END]]),
        unknown=int(unigrams[special[UNKNOWN]]),
        fallbacks=fallbacks,
    )


def _read(sentences: Iterable[Sequence[str]], folder: Path) -> tuple[list[str], np.ndarray]:
    """The distinct words in order of appearance, and the text as their ids with <s> and </s>, [tokens]."""
    ids: defaultdict[str, int] = defaultdict()
    ids.default_factory = ids.__len__
    for word in (BEGIN, END, UNKNOWN):
        ids[word]
    path = folder / "text"
    with open(path, "wb") as file:
        for block in sentences:
            tokens = f"{BEGIN} {f' {END} {BEGIN} '.join(block)} {END}".split() if block else []
            np.fromiter(map(ids.__getitem__, tokens), np.int64, len(tokens)).tofile(file)
    if len(ids) == 3:
        raise ValueError("the text has no words")
    return list(ids), np.memmap(path, np.int64, "r")


def _limit_vocabulary(
    words: list[str], ids: np.ndarray, folder: Path, limit: int | None
) -> tuple[list[str], np.ndarray]:
    """The vocabulary in the order of its UTF-8 bytes, and the text in its ids."""
    counts = np.bincount(ids, minlength=len(words))
    ordinary = sorted(range(3, len(words)), key=lambda id: (-counts[id], words[id]))[:limit]
    kept = sorted([0, 1, 2, *ordinary], key=lambda id: words[id].encode())
    vocabulary = [words[id] for id in kept]
    new_id = np.full(len(words), vocabulary.index(UNKNOWN), dtype=np.int64)
    new_id[kept] = np.arange(len(kept))
    mapped = _array(folder / "ids", np.int64, len(ids))
    for block in _blocks(len(ids)):
        mapped[block] = new_id[ids[block]]
    return vocabulary, mapped


def _keys(ranks: np.ndarray, ids: np.ndarray, bits: int, begin: int) -> Iterator[tuple[slice, np.ndarray]]:
    """In blocks, keys of the n-grams that end at each word but the first; -1 where there is none.

    `ranks` are those of the n-grams that are one word shorter.
    """
    for block in _blocks(len(ids) - 1):
        place = slice(block.start + 1, block.stop + 1)
        shorter, word = ranks[block], ids[place]
        yield place, np.where((shorter >= 0) & (word != begin), (shorter << bits) | word, -1)


def _sort_and_count(blocks: Iterable[np.ndarray], folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys, sorted, and how often each occurs: an external merge sort."""
    runs = []
    for number, block in enumerate(blocks):
        keys, counts = _count(np.sort(block), np.ones(len(block), dtype=np.int64))
        for kind, values in (("keys", keys), ("counts", counts)):
            values.tofile(folder / f"{name}.{number}.{kind}")
        runs.append(tuple(_mapped(folder / f"{name}.{number}.{kind}") for kind in ("keys", "counts")))
    if len(runs) == 1:
        return runs[0]
    # Cuts after every `step` keys of each run: between two cuts are at most two blocks of keys.
    step = max(1, BLOCK // len(runs))
    cuts = np.unique(np.concatenate([keys[::step] for keys, _ in runs]))
    paths = folder / f"{name}.keys", folder / f"{name}.counts"
    with open(paths[0], "wb") as key_file, open(paths[1], "wb") as count_file:
        bounds = [np.append(np.searchsorted(keys, cuts), len(keys)) for keys, _ in runs]
        for part in range(len(cuts)):
            slices = [slice(bound[part], bound[part + 1]) for bound in bounds]
            keys = np.concatenate([run[0][here] for run, here in zip(runs, slices, strict=True)])
            counts = np.concatenate([run[1][here] for run, here in zip(runs, slices, strict=True)])
            order = np.argsort(keys, kind="stable")
            keys, counts = _count(keys[order], counts[order])
            keys.tofile(key_file)
            counts.tofile(count_file)
    return _mapped(paths[0]), _mapped(paths[1])


def _count(keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct ones of sorted keys, with the sums of their counts."""
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[first], np.add.reduceat(counts, first) if len(first) else counts


def _link(orders: list[_Order], bits: int) -> None:
    """Fills `suffixes` and `begins` of the highest order so far."""
    table, below = orders[-1], orders[-2]
    for block in _blocks(len(table.keys)):
        prefix, word = table.keys[block] >> bits, table.keys[block] & ((1 << bits) - 1)
        table.begins[block] = below.begins[prefix]
        if len(orders) == 2:
            table.suffixes[block] = word
        else:
            table.suffixes[block] = np.searchsorted(below.keys, (below.suffixes[prefix] << bits) | word)


def _adjust_counts(orders: list[_Order]) -> None:
    """Counts of lower orders become the number of different words before them, except after <s>."""
    for table, above in pairwise(orders):
        for block in _blocks(len(above.keys)):
            np.add.at(table.adjusted, above.suffixes[block], 1)
        for block in _blocks(len(table.keys)):
            table.adjusted[block] = np.where(table.begins[block], table.counts[block], table.adjusted[block])
    for block in _blocks(len(orders[-1].keys)):
        orders[-1].adjusted[block] = orders[-1].counts[block]
    orders[0].adjusted[orders[0].begins] = 0  # nothing comes before <s>, and it is never predicted


def _discounts(table: _Order) -> tuple[float, float, float] | None:
    """Chen & Goodman's D1, D2, D3+; None where the counts of counts do not allow them."""
    n = np.zeros(6, dtype=np.int64)
    for block in _blocks(len(table.keys)):
        n += np.bincount(np.minimum(table.adjusted[block], 5), minlength=6)
    if not n[1:4].all():
        return None
    y = n[1] / (n[1] + 2 * n[2])
    discounts = tuple(float(k - (k + 1) * y * n[k + 1] / n[k]) for k in (1, 2, 3))
    return discounts if all(0 <= d <= k for k, d in enumerate(discounts, start=1)) else None


def _unigram_probabilities(table: _Order, discounts: Sequence[float], special: dict[str, int]) -> None:
    """Discounted counts, interpolated with the uniform distribution over all words but <s>."""
    taken = np.array([0.0, *discounts])[np.minimum(table.adjusted, 3)]
    total = table.adjusted.sum()
    table.probability[:] = (table.adjusted - taken + taken.sum() / (len(table.keys) - 1)) / total
    table.probability[special[BEGIN]] = 1.0  # as lmplz writes it: a condition, never scored


def _probabilities(
    table: _Order, below: _Order, discounts: Sequence[float], threshold: int, bits: int
) -> None:
    """Discounted relative counts, interpolated with the order below; fills the back-offs of that order."""
    discount = np.array([0.0, *discounts])
    for block in _blocks(len(table.keys)):
        prefix, adjusted = table.keys[block] >> bits, table.adjusted[block]
        # All counts of a pruned n-gram go to backing off.
        saved = np.where(table.counts[block] > threshold, discount[np.minimum(adjusted, 3)], adjusted)
        np.add.at(below.total, prefix, adjusted)
        np.add.at(below.backoff, prefix, saved)
    for block in _blocks(len(below.keys)):
        total = below.total[block]
        below.backoff[block] = np.where(total > 0, below.backoff[block] / np.maximum(total, 1), 1.0)
    for block in _blocks(len(table.keys)):
        prefix, adjusted = table.keys[block] >> bits, table.adjusted[block]
        own = (adjusted - discount[np.minimum(adjusted, 3)]) / below.total[prefix]
        table.probability[block] = own + below.backoff[prefix] * below.probability[table.suffixes[block]]


def _kept(orders: list[_Order], thresholds: Sequence[int], bits: int) -> list[NgramLevel]:
    """What pruning leaves, as natural logarithms."""
    levels = []
    place = np.empty(0, dtype=np.int64)  # of an n-gram of the order below among those kept
    for k, (table, threshold) in enumerate(zip(orders, thresholds, strict=True), start=1):
        keep = table.counts > threshold if k > 1 else np.ones(len(table.keys), dtype=bool)
        keys = table.keys[keep]
        levels.append(
            NgramLevel(
                prefixes=place[keys >> bits] if k > 1 else np.zeros(len(keys), dtype=np.int64),
                words=keys & ((1 << bits) - 1),
                log_probs=np.log(table.probability[keep]).astype(np.float32),
                backoffs=np.log(table.backoff[keep] if k < len(orders) else np.ones(len(keys))).astype(
                    np.float32
                ),
            )
        )
        place = np.cumsum(keep) - 1
    return levels


def _blocks(size: int) -> Iterator[slice]:
    for start in range(0, size, BLOCK):
        yield slice(start, min(start + BLOCK, size))


def _array(path: Path, dtype: type, size: int) -> np.ndarray:
    """Zeros in a file, mapped for writing."""
    np.zeros(size, dtype).tofile(path)  # a full disk is an error here; of a mapped hole it would be a crash
    return np.memmap(path, dtype, "r+") if size else np.empty(0, dtype)


def _mapped(path: Path) -> np.ndarray:
    return np.memmap(path, np.int64, "r") if path.stat().st_size else np.empty(0, np.int64)
