"""Back-off n-gram language models: the tables, how a word is looked up, and the compact file."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asr.decoding.compilation import compiled
from asr.files import reason, replacing

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"

_MAGIC = b"HARKNGR1"  # the last character is the format's version
_ALIGNMENT = 64  # bytes; a cache line
_BOOK = 256  # values that an 8-bit code can name


class LanguageModelError(ValueError):
    """A language model that cannot be used: one line that names the file, what is wrong and what to do."""


class NgramTables(NamedTuple):
    """A trie of n-grams as flat arrays, laid out for lookup in compiled code.

    N-grams are numbered: first all of order 1 (the number is the word's id), then all of order 2, and so on,
    each order sorted by its word ids. So the continuations of an n-gram are a range of numbers, sorted by
    their last word. Word ids follow the order of the words' UTF-8 bytes: the words that begin with the same
    letters are a range of ids.

    Probabilities of order 2 and above are codes into a codebook; `book_stride` is 256 where each order
    has a codebook of its own with 8-bit codes, 0 where all orders use one.
    """

    text: np.ndarray  # uint8: the words' UTF-8 bytes, one after the other
    text_begin: np.ndarray  # uint32 [vocabulary + 1]
    unigram_log_probs: np.ndarray  # float32 [vocabulary], natural logarithms
    unigram_backoffs: np.ndarray  # float32 [vocabulary], natural logarithms
    words: np.ndarray  # uint16 or uint32 [n-grams of order ≥ 2]: id of the last word
    begin: np.ndarray  # uint32 [n-grams below the highest order + 1]: the first continuation's number
    log_prob_codes: np.ndarray  # uint8 or uint32 [n-grams of order ≥ 2]
    log_prob_book: np.ndarray  # float32
    backoff_codes: np.ndarray  # uint8 or uint32 [n-grams of order ≥ 2 below the highest]
    backoff_book: np.ndarray  # float32
    book_stride: int
    order: int
    begin_id: int
    end_id: int
    unknown_id: int


@compiled
def continuation(tables, ngram, word):
    """Number of the n-gram that `word` makes of the n-gram numbered `ngram`, or -1."""
    vocabulary = tables.unigram_log_probs.size
    low = np.int64(tables.begin[ngram]) - vocabulary
    high = np.int64(tables.begin[ngram + 1]) - vocabulary
    end = high
    while low < high:
        middle = (low + high) // 2
        if tables.words[middle] < word:
            low = middle + 1
        else:
            high = middle
    if low < end and tables.words[low] == word:
        return low + vocabulary
    return np.int64(-1)


@compiled
def ngram_log_prob(tables, history, word):
    """ln P(word | history) by backing off; `history` is at most order - 1 ids, newest last."""
    vocabulary = tables.unigram_log_probs.size
    backoff = 0.0
    for start in range(len(history)):
        ngram = np.int64(history[start])
        for i in range(start + 1, len(history)):
            ngram = continuation(tables, ngram, history[i])
            if ngram < 0:
                break
        if ngram < 0:
            continue
        level = len(history) - start - 1  # 0 where the history is one word
        found = continuation(tables, ngram, word)
        if found >= 0:
            code = tables.log_prob_codes[found - vocabulary]
            return backoff + tables.log_prob_book[level * tables.book_stride + code]
        if level == 0:
            backoff += tables.unigram_backoffs[ngram]
        else:
            code = tables.backoff_codes[ngram - vocabulary]
            backoff += tables.backoff_book[(level - 1) * tables.book_stride + code]
    return backoff + tables.unigram_log_probs[word]


@compiled
def narrowed(tables, first, last, letters, letter):
    """The words whose next byte is `letter`, of `first` to `last` - 1, whose first `letters` are equal."""
    start = _first_word_from(tables, first, last, letters, letter)
    return start, _first_word_from(tables, start, last, letters, letter + 1)


@compiled
def _first_word_from(tables, low, high, letters, letter):
    while low < high:
        middle = (low + high) // 2
        place = np.int64(tables.text_begin[middle]) + letters
        if place < tables.text_begin[middle + 1] and tables.text[place] >= letter:
            high = middle
        else:
            low = middle + 1
    return low


@compiled
def word_length(tables, word):
    """Bytes of a word."""
    return np.int64(tables.text_begin[word + 1]) - np.int64(tables.text_begin[word])


class NgramModel:
    """A back-off n-gram model, in memory or mapped from the compact file.

    Log-probs are natural logarithms. Words that are not in the vocabulary are scored as `<unk>`.

    Attributes:
      tables: the arrays, for compiled code.
      order: length of the longest n-grams.
    """

    def __init__(self, tables: NgramTables):
        self.tables = tables
        self.order = tables.order

    @classmethod
    def from_levels(cls, vocabulary: Sequence[str], levels: Sequence[NgramLevel]) -> NgramModel:
        """The exact model of some n-grams.

        Args:
          vocabulary: the words in the order of their UTF-8 bytes, `<s>`, `</s>` and `<unk>` among them.
          levels: the n-grams of order 1, 2, ...; those of order 1 are all words, by id.
        """
        encoded = [word.encode() for word in vocabulary]
        sizes = [len(level.words) for level in levels]
        begin = [
            sum(sizes[: k + 1]) + np.searchsorted(levels[k + 1].prefixes, np.arange(sizes[k]))
            for k in range(len(levels) - 1)
        ]
        log_probs = _joined([level.log_probs for level in levels[1:]], np.float32)
        backoffs = _joined([level.backoffs for level in levels[1:-1]], np.float32)
        tables = NgramTables(
            text=np.frombuffer(b"".join(encoded), np.uint8),
            text_begin=np.cumsum([0, *map(len, encoded)]).astype(np.uint32),
            unigram_log_probs=np.asarray(levels[0].log_probs, np.float32),
            unigram_backoffs=np.asarray(levels[0].backoffs, np.float32),
            words=_joined([level.words for level in levels[1:]], np.uint32),
            begin=_joined([*begin, [sum(sizes)]], np.uint32),
            log_prob_codes=np.arange(len(log_probs), dtype=np.uint32),
            log_prob_book=log_probs,
            backoff_codes=np.arange(len(backoffs), dtype=np.uint32),
            backoff_book=backoffs,
            book_stride=0,
            order=len(levels),
            begin_id=vocabulary.index(BEGIN),
            end_id=vocabulary.index(END),
            unknown_id=vocabulary.index(UNKNOWN),
        )
        return cls(_read_only(tables))

    @classmethod
    def load(cls, path: Path | str) -> NgramModel:
        """A compact file (`save`), mapped into memory. Raises LanguageModelError for anything else."""
        path = Path(path)
        magic = _beginning(path)
        if magic[:-1] != _MAGIC[:-1]:
            raise LanguageModelError(
                f"{path}: no compact model; "
                "make one of an ARPA file by python -m training.language_model convert"
            )
        if magic != _MAGIC:
            raise LanguageModelError(
                f"{path}: written by another version; build it again from its ARPA file or text"
            )
        return cls(_map_tables(path))

    def save(self, path: Path | str) -> None:
        """Writes the compact file: probabilities of order 2 and above in 8 bits, a codebook an order.

        Quantisation is by equal population (Federico & Bertoldi 2006): each value is the mean of as many
        probabilities as any other.
        """
        tables = self.quantised().tables
        arrays = {name: value for name, value in tables._asdict().items() if isinstance(value, np.ndarray)}
        numbers = {name: value for name, value in tables._asdict().items() if name not in arrays}
        entries, offset = {}, 0
        for name, array in arrays.items():
            entries[name] = {"dtype": array.dtype.str, "size": array.size, "offset": offset}
            offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        header = json.dumps({**numbers, "arrays": entries}).encode()
        header += b" " * (-(len(_MAGIC) + 8 + len(header)) % _ALIGNMENT)
        with replacing(path) as partial, open(partial, "wb") as file:
            file.write(_MAGIC + len(header).to_bytes(8, "little") + header)
            for array in arrays.values():
                file.write(array.tobytes())
                file.write(bytes(-array.nbytes % _ALIGNMENT))

    def quantised(self) -> NgramModel:
        """This model as `save` writes it."""
        if self.tables.book_stride:
            return self
        levels = islice(self.levels(), 1, None)
        codes = [(_codes(level.log_probs), _codes(level.backoffs)) for level in levels]
        log_probs, backoffs = [pair[0] for pair in codes], [pair[1] for pair in codes[:-1]]
        tables = self.tables._replace(
            words=self.tables.words.astype(np.uint16 if self.vocabulary_size <= 1 << 16 else np.uint32),
            log_prob_codes=_joined([codes for codes, _ in log_probs], np.uint8),
            log_prob_book=_joined([book for _, book in log_probs], np.float32),
            backoff_codes=_joined([codes for codes, _ in backoffs], np.uint8),
            backoff_book=_joined([book for _, book in backoffs], np.float32),
            book_stride=_BOOK,
        )
        return NgramModel(_read_only(tables))

    def levels(self) -> Iterator[NgramLevel]:
        """The n-grams of order 1, 2, ..., as `from_levels` takes them; the highest back-offs are 0."""
        tables, vocabulary = self.tables, self.vocabulary_size
        words, zeros = np.arange(vocabulary), np.zeros(vocabulary, np.int64)
        yield NgramLevel(zeros, words, tables.unigram_log_probs, tables.unigram_backoffs)
        above = 0  # number of the first n-gram of the order before
        for book, (parents, size) in enumerate(pairwise(self.counts)):
            children = np.diff(tables.begin[above : above + parents + 1])
            above += parents
            here, offset = slice(above - vocabulary, above - vocabulary + size), book * tables.book_stride
            backoffs = np.zeros(size, np.float32)
            if book < self.order - 2:
                backoffs = tables.backoff_book[offset + tables.backoff_codes[here].astype(np.int64)]
            log_probs = tables.log_prob_book[offset + tables.log_prob_codes[here].astype(np.int64)]
            prefixes = np.repeat(np.arange(parents), children)
            yield NgramLevel(prefixes, tables.words[here], log_probs, backoffs)

    @property
    def vocabulary_size(self) -> int:
        """Number of words, with `<s>`, `</s>` and `<unk>`."""
        return len(self.tables.unigram_log_probs)

    @property
    def counts(self) -> list[int]:
        """Number of n-grams of order 1, 2, ..."""
        starts = [0]
        for _ in range(self.order):
            starts.append(int(self.tables.begin[starts[-1]]))
        return [end - start for start, end in pairwise(starts)]

    def vocabulary(self) -> list[str]:
        """All words, by id."""
        text = self.tables.text.tobytes()
        return [text[first:last].decode() for first, last in pairwise(self.tables.text_begin.tolist())]

    def word(self, id: int) -> str:
        """The word of an id."""
        first, last = self.tables.text_begin[id : id + 2]
        return self.tables.text[first:last].tobytes().decode()

    def id(self, word: str) -> int:
        """The id of a word; `<unk>`'s for one that is not in the vocabulary."""
        first = bisect_left(range(self.vocabulary_size), word, key=self.word)
        return first if self.knows(word) else self.tables.unknown_id

    def knows(self, letters: str, finished: bool = True) -> bool:
        """Whether the letters are a word of the vocabulary or, if not `finished`, the beginning of one."""
        first = bisect_left(range(self.vocabulary_size), letters, key=self.word)
        word = self.word(first) if first < self.vocabulary_size else ""
        return word == letters if finished else word.startswith(letters)

    def log_prob(self, history: Sequence[int], word: int) -> float:
        """ln P(word | history); ids, the history's newest word last and of any length."""
        kept = history[max(0, len(history) - self.order + 1) :]
        return float(ngram_log_prob(self.tables, np.array(kept, dtype=np.int64), word))

    @cached_property
    def cumulative_probability(self) -> np.ndarray:
        """float64 [vocabulary + 1]: entry b minus entry a is the unigram probability of the words a to b - 1.

        Without `<s>`, `</s>` and `<unk>`, which no letters spell.
        """
        probabilities = np.exp(self.tables.unigram_log_probs.astype(np.float64))
        probabilities[[self.tables.begin_id, self.tables.end_id, self.tables.unknown_id]] = 0.0
        return np.concatenate([[0.0], np.cumsum(probabilities)])


def is_compact(path: Path | str) -> bool:
    """Whether `NgramModel.save` wrote the file. Raises LanguageModelError for one that cannot be read."""
    return _beginning(Path(path))[:-1] == _MAGIC[:-1]


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC))
    except OSError as error:
        raise LanguageModelError(f"{path}: {reason(error)}") from error


class NgramLevel(NamedTuple):
    """All n-grams of one order, sorted by their word ids.

    `prefixes` [n-grams] is the place of the first words in the level below, `words` [n-grams] the last word's
    id, `log_probs` and `backoffs` [n-grams] are natural logarithms.
    """

    prefixes: np.ndarray
    words: np.ndarray
    log_probs: np.ndarray
    backoffs: np.ndarray


def _read_only(tables: NgramTables) -> NgramTables:
    """Mapped tables cannot be written to; neither can the others, so that one compilation serves both."""
    for array in tables:
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    return tables


def _map_tables(path: Path) -> NgramTables:
    data = np.memmap(path, np.uint8, "r")
    start = len(_MAGIC) + 8
    try:
        start += int.from_bytes(data[len(_MAGIC) : start].tobytes(), "little")
        fields = json.loads(data[len(_MAGIC) + 8 : start].tobytes())
        arrays = {}
        for name, entry in fields.pop("arrays").items():
            dtype = np.dtype(entry["dtype"])
            first = start + entry["offset"]
            part = data[first : first + entry["size"] * dtype.itemsize]
            arrays[name] = np.asarray(part).view(dtype)
            if arrays[name].size != entry["size"]:
                raise ValueError("it ends too early")
        tables = NgramTables(**arrays, **fields)
        _check(tables)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise LanguageModelError(
            f"{path}: damaged language model ({error}); copy or build it again"
        ) from error
    return tables


def _check(tables: NgramTables) -> None:
    """Compiled lookup trusts the tables: a damaged file must not send it outside of them."""
    vocabulary, total = len(tables.unigram_log_probs), len(tables.unigram_log_probs) + len(tables.words)
    special = (tables.begin_id, tables.end_id, tables.unknown_id)
    sound = (
        len(tables.unigram_backoffs) == vocabulary
        and len(tables.text_begin) == vocabulary + 1
        and np.all(tables.text_begin[:-1] <= tables.text_begin[1:])
        and tables.text_begin[-1] == len(tables.text)
        and len(tables.log_prob_codes) == len(tables.words)
        and len(tables.begin) == (vocabulary + len(tables.backoff_codes) if tables.order > 1 else 0) + 1
        and np.all(tables.begin[:-1] <= tables.begin[1:])
        and tables.begin[0] >= vocabulary
        and tables.begin[-1] == total
        and (len(tables.words) == 0 or tables.words.max() < vocabulary)
        and tables.book_stride == _BOOK
        and tables.log_prob_codes.dtype == tables.backoff_codes.dtype == np.uint8
        and len(tables.log_prob_book) == _BOOK * (tables.order - 1)
        and len(tables.backoff_book) == _BOOK * max(0, tables.order - 2)
        and all(0 <= id < vocabulary for id in special)
    )
    if not sound:
        raise ValueError("its tables do not fit together")


def _codes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 codes [values] and their codebook [256]; code 0 is 0.0, the back-off of a dead end."""
    codes = np.zeros(len(values), dtype=np.uint8)
    book = np.zeros(_BOOK, dtype=np.float32)
    others = values != 0.0
    distinct = np.unique(values[others])
    if len(distinct) < _BOOK:
        book[1 : 1 + len(distinct)] = distinct
        codes[others] = 1 + np.searchsorted(distinct, values[others])
    else:
        bins = np.array_split(np.sort(values[others]), _BOOK - 1)
        book[1:] = [part.mean(dtype=np.float64) for part in bins]
        codes[others] = 1 + np.searchsorted([part[0] for part in bins[1:]], values[others], side="right")
    return codes, book


def _joined(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([*parts, []]).astype(dtype)
