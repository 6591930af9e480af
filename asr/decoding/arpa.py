"""ARPA files: the text format in which every toolkit writes its n-gram models."""

from __future__ import annotations

import logging
import math
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asr.decoding.ngram import BEGIN, END, UNKNOWN, LanguageModelError, NgramLevel, NgramModel
from asr.files import READ_ERRORS, open_file, reason, replacing

log = logging.getLogger(__name__)

_LN_10 = math.log(10)
_SPECIAL = (BEGIN, END, UNKNOWN)
_BLANKS = re.compile(r"[ \t]+")  # other white space, such as a no-break space, may be part of a word
_COUNT = re.compile(r"ngram[ \t]+([0-9]{1,2})[ \t]*=[ \t]*([0-9]{1,18})")
_MAX_LOG10 = 1e-4  # rounding in other tools; beyond it, a probability above 1 is a broken estimate
_MAX_BACKOFF_LOG10 = 99.0  # more is damage
_NEVER_LOG10 = -99.0  # SRILM's mark of a word that is never predicted, such as <s>


def read_arpa(path: Path | str) -> NgramModel:
    """The model of an ARPA file; compressed if its name ends in .gz or .xz.

    Words in upper case become lower case, with a warning, unless some are there in both.
    A vocabulary without `<unk>` is given one, as improbable as its rarest word: no word is impossible. A copy
    of the line of `<s>` that is named `</s>`, as recipes for Hugging Face add it, is ignored.

    Raises:
      LanguageModelError: naming file and line, for text that is not UTF-8, n-grams that are more or fewer
        than announced, probabilities above 1, words without a unigram, contexts that are missing or lack
        their back-off weight.
    """
    path = Path(path)
    lines = _Lines(path)
    sizes = _read_counts(lines)
    ids: dict[str, int] = {}
    orders = [
        _read_order(lines, order, size, ids, has_backoffs=order < len(sizes))
        for order, size in enumerate(sizes, start=1)
    ]
    if lines.text != "\\end\\":
        raise lines.error(
            f'expected \\end\\ after {sizes[-1]} {len(sizes)}-grams, as line "ngram {len(sizes)}=" says'
        )
    for word in (BEGIN, END):
        if word not in ids:
            raise LanguageModelError(
                f"{path}: no {word} among the 1-grams; estimate it on text with sentence ends"
            )
    if UNKNOWN not in ids:
        log_probs = orders[0].log_probs
        lowest = log_probs[log_probs > _NEVER_LOG10].min(initial=0.0)
        added = _Order(np.array([[len(ids)]]), np.array([lowest]), np.zeros(1), np.zeros(1, np.int64))
        orders[0] = _Order(*map(np.concatenate, zip(orders[0], added, strict=True)))
        ids[UNKNOWN] = len(ids)
    return _model(path, _lower_case(path, list(ids)), orders)


def write_arpa(model: NgramModel, path: Path | str) -> None:
    """Writes a model as ARPA text, compressed if the name ends in .gz or .xz."""
    words = model.vocabulary()
    with replacing(path) as partial, open_file(partial, "wt") as file:
        file.write("\\data\\\n")
        for order, size in enumerate(model.counts, start=1):
            file.write(f"ngram {order}={size}\n")
        names = words
        for order, level in enumerate(model.levels(), start=1):
            if order > 1:
                grams = zip(level.prefixes.tolist(), level.words.tolist(), strict=True)
                names = [f"{names[prefix]} {words[word]}" for prefix, word in grams]
            file.write(f"\n\\{order}-grams:\n")
            values = level.log_probs.tolist(), names, level.backoffs.tolist()
            for log_prob, name, backoff in zip(*values, strict=True):
                weight = f"\t{backoff / _LN_10:.7g}" if order < model.order else ""
                file.write(f"{log_prob / _LN_10:.7g}\t{name}{weight}\n")
        file.write("\n\\end\\\n")


class _Lines:
    """The lines of a file that are not blank. `text` is the current one, `number` its place in the file."""

    def __init__(self, path: Path):
        self.path, self.number, self.text = path, 0, ""
        self._lines = self._read()

    def error(self, reason: str) -> LanguageModelError:
        return LanguageModelError(f"{self.path}, line {self.number}: {reason}")

    def next(self) -> str:
        self.text = next(self._lines)
        return self.text

    def _read(self) -> Iterator[str]:
        try:
            with open_file(self.path, "rb") as file:
                for self.number, line in enumerate(file, start=1):
                    if text := line.decode("utf-8-sig" if self.number == 1 else "utf-8").strip(" \t\r\n"):
                        yield text
        except UnicodeDecodeError as error:
            raise self.error(reason(error)) from error
        except READ_ERRORS as error:
            raise LanguageModelError(f"{self.path}: {reason(error)}") from error
        if not self.number:
            raise LanguageModelError(f"{self.path}: is empty")
        raise self.error("the file ends before \\end\\; copy it again")


def _read_counts(lines: _Lines) -> list[int]:
    while lines.next() != "\\data\\":
        if lines.number > 100:
            raise lines.error("no \\data\\ so far: this is no ARPA file, nor a compact model of ours")
    sizes = []
    while match := _COUNT.fullmatch(lines.next()):
        order, size = int(match[1]), int(match[2])
        if order != len(sizes) + 1:
            raise lines.error(f"expected the number of {len(sizes) + 1}-grams")
        sizes.append(size)
    if not sizes:
        raise lines.error('expected "ngram 1=..." after \\data\\')
    return sizes


class _Order(NamedTuple):
    """The n-grams of one order, in the order of the file; a back-off weight that is not there is NaN."""

    grams: np.ndarray  # int64 [n-grams, order]: ids of the words, in the order of the 1-grams
    log_probs: np.ndarray  # float64 [n-grams], to base 10
    backoffs: np.ndarray  # float64 [n-grams], to base 10
    lines: np.ndarray  # int64 [n-grams]


def _read_order(lines: _Lines, order: int, size: int, ids: dict[str, int], has_backoffs: bool) -> _Order:
    """Reads the n-grams of one order; those of order 1 fill `ids`."""
    if lines.text != f"\\{order}-grams:":
        said = f'; line "ngram {order - 1}=" announced fewer' if order > 1 else ""
        raise lines.error(f"expected \\{order}-grams:, found {lines.text[:40]!r}{said}")
    grams, log_probs, backoffs, numbers = array("q"), array("d"), array("d"), array("q")
    for row in range(size):
        fields = _BLANKS.split(lines.next())
        if fields[0].startswith("\\"):
            raise lines.error(f'{row} {order}-grams, but line "ngram {order}=" announced {size}')
        if len(fields) != order + 1 and not (has_backoffs and len(fields) == order + 2):
            raise lines.error(f"expected a probability, {order} words" + ", a back-off" * has_backoffs)
        try:
            log_prob = float(fields[0])
            backoff = float(fields[-1]) if len(fields) == order + 2 else math.nan
        except ValueError as error:
            raise lines.error(str(error)) from error
        if not log_prob <= _MAX_LOG10:
            raise lines.error(f"probability above 1: its logarithm is {fields[0]}")
        if len(fields) == order + 2 and not backoff <= _MAX_BACKOFF_LOG10:
            raise lines.error(f"the back-off weight is {fields[-1]}")
        words = [
            word.lower() if word[:1] == "<" and word.lower() in _SPECIAL else word
            for word in fields[1 : order + 1]
        ]
        if order == 1 and words[0] in ids:
            id, begin = ids[words[0]], log_probs[ids[BEGIN]] if BEGIN in ids else math.nan
            if words[0] not in _SPECIAL or (
                log_prob != log_probs[id] and begin not in (log_prob, log_probs[id])
            ):
                raise lines.error(f"{words[0]!r} is among the 1-grams twice")
            if log_prob != begin:
                log_probs[id], backoffs[id] = log_prob, backoff
            continue
        if order == 1:
            ids[words[0]] = len(ids)
        for word in words:
            if word not in ids:
                raise lines.error(f"{word!r} is not among the 1-grams")
            grams.append(ids[word])
        log_probs.append(log_prob)
        backoffs.append(backoff)
        numbers.append(lines.number)
    lines.next()
    columns = (np.array(values, dtype=values.typecode) for values in (log_probs, backoffs, numbers))
    return _Order(np.array(grams, np.int64).reshape(-1, order), *columns)


def _model(path: Path, words: list[str], orders: list[_Order]) -> NgramModel:
    """Sorts what was read into a trie, and checks that every context is there."""
    by_spelling = sorted(range(len(words)), key=lambda id: words[id].encode())
    new_id = np.argsort(by_spelling)
    levels: list[NgramLevel] = []
    below = orders[0]
    for order, read in enumerate(orders, start=1):
        grams = new_id[read.grams]
        prefixes = np.zeros(len(grams), dtype=np.int64)
        for place, level in enumerate(levels, start=1):
            prefixes = _find(
                level.prefixes * len(words) + level.words, prefixes * len(words) + grams[:, place - 1]
            )
            if (prefixes < 0).any():
                row = int(np.argmax(prefixes < 0))
                context = " ".join(words[id] for id in read.grams[row, :place])
                raise LanguageModelError(
                    f"{path}, line {read.lines[row]}: its context {context!r} is no {place}-gram here"
                )
        keys = prefixes * len(words) + grams[:, -1]
        rows = np.argsort(keys, kind="stable")
        if (twice := np.flatnonzero(np.diff(keys[rows]) == 0)).size:
            line = read.lines[rows[twice[0] + 1]]
            raise LanguageModelError(f"{path}, line {line}: this n-gram is there twice")
        if order > 1:
            used = np.unique(prefixes)
            if (lacking := used[np.isnan(below.backoffs[used])]).size:
                raise LanguageModelError(
                    f"{path}, line {below.lines[lacking[0]]}: no back-off weight, "
                    f"but longer n-grams begin with this one"
                )
        below = _Order(*(values[rows] for values in read))
        values = below.log_probs * _LN_10, np.nan_to_num(below.backoffs) * _LN_10
        levels.append(NgramLevel(prefixes[rows], grams[rows, -1], *values))
    return NgramModel.from_levels([words[id] for id in by_spelling], levels)


def _lower_case(path: Path, words: list[str]) -> list[str]:
    """The words in lower case, as transcripts have them, unless that would make two words one."""
    lower = [word.lower() for word in words]
    capitals = sum(word != other for word, other in zip(words, lower, strict=True))
    if not capitals:
        return words
    if len(set(lower)) == len(words):
        log.warning(
            "%s: %d words in upper case are read in lower case, as transcripts have them", path, capitals
        )
        return lower
    log.warning(
        "%s: %d of %d words have upper case, which transcripts never have, and are useless; estimate the "
        "model on text in lower case",
        *(path, capitals, len(words)),
    )
    return words


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The place of each wanted number among sorted ones, -1 where it is not there."""
    if not len(keys):
        return np.full(len(wanted), -1)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)
