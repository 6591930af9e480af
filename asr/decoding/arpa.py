"""ARPA files: the text format in which every toolkit writes its n-gram models."""

from __future__ import annotations

import logging
import math
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from asr.decoding.ngram import BEGIN, END, UNKNOWN, LanguageModelError, NgramLevel, NgramModel
from asr.files import READ_ERRORS, open_file, reason, replacing

log = logging.getLogger(__name__)

_LN_10 = math.log(10)
_SPECIAL = (BEGIN, END, UNKNOWN)
_BLANKS = re.compile(r"[ \t]+")  # other white space, such as a no-break space, may be part of a word
_COUNT = re.compile(r"ngram[ \t]+([0-9]{1,2})[ \t]*=[ \t]*([0-9]{1,18})")
# Rounding in other tools; a probability above 1 beyond it is a broken estimate.
_MAX_LOG10 = 1e-4
# SRILM's "never": what cannot be foretold, such as <s>.
_NEVER_LOG10 = -99.0


def read_arpa(path: Path | str) -> NgramModel:
    """The model of an ARPA file; compressed if its name ends in .gz or .xz.

    Words in upper case become lower case, with a warning, unless some are there in both.
    A vocabulary without `<unk>` is given one, as improbable as its rarest word: no word is impossible. A copy
    of the line of `<s>` that is named `</s>`, as recipes for Hugging Face add it, gives way to the true one.

    Raises:
      LanguageModelError: naming file and line, for anything that is not as the format wants it: text that is
        not UTF-8, n-grams that are more or fewer than announced, probabilities above 1, words without a
        unigram, contexts that are missing or lack their back-off weight.
    """
    lines = _Lines(Path(path))
    sizes = _read_counts(lines)
    ids: dict[str, int] = {}
    levels = []
    for order, size in enumerate(sizes, start=1):
        levels.append(_read_order(lines, order, size, ids, has_backoffs=order < len(sizes)))
    if lines.text != "\\end\\":
        raise lines.error(
            f'expected \\end\\ after {sizes[-1]} {len(sizes)}-grams, as line "ngram {len(sizes)}=" says'
        )
    for word in (BEGIN, END):
        if word not in ids:
            raise LanguageModelError(
                f"{path}: no {word} among the 1-grams; estimate it on text with sentence ends"
            )
    return _model(Path(path), ids, levels)


def write_arpa(model: NgramModel, path: Path | str) -> None:
    """Writes a model as ARPA text, compressed if the name ends in .gz or .xz."""
    tables, words = model.tables, [model.word(id) for id in range(model.vocabulary_size)]
    with replacing(path) as partial, open_file(partial, "wt") as file:
        file.write("\\data\\\n")
        for order, size in enumerate(model.counts, start=1):
            file.write(f"ngram {order}={size}\n")
        names, start = words, 0
        for order, size in enumerate(model.counts, start=1):
            file.write(f"\n\\{order}-grams:\n")
            log_probs, backoffs = _values(model, order, start, size)
            for name, log_prob, backoff in zip(names, log_probs, backoffs, strict=True):
                weight = "" if backoff is None else f"\t{backoff / _LN_10:.7g}"
                file.write(f"{log_prob / _LN_10:.7g}\t{name}{weight}\n")
            if order < model.order:
                children = np.diff(tables.begin[start : start + size + 1])
                first = int(tables.begin[start]) - len(words)
                last = tables.words[first : first + int(children.sum())]
                parents = np.repeat(np.arange(size), children)
                names = [
                    f"{names[p]} {words[w]}" for p, w in zip(parents.tolist(), last.tolist(), strict=True)
                ]
            start += size
        file.write("\n\\end\\\n")


def _values(model: NgramModel, order: int, start: int, size: int) -> tuple[list[float], list[float | None]]:
    """Log-probs and back-offs (None for the highest order) of the n-grams from `start` on."""
    tables = model.tables
    if order == 1:
        backoffs = tables.unigram_backoffs.tolist() if model.order > 1 else [None] * size
        return tables.unigram_log_probs.tolist(), backoffs
    here = slice(start - model.vocabulary_size, start - model.vocabulary_size + size)
    book = (order - 2) * tables.book_stride
    log_probs = tables.log_prob_book[book + tables.log_prob_codes[here].astype(np.int64)].tolist()
    if order == model.order:
        return log_probs, [None] * size
    return log_probs, tables.backoff_book[book + tables.backoff_codes[here].astype(np.int64)].tolist()


class _Lines:
    """The lines of a file that are not blank, with the place for messages. `text` is the current one."""

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


def _read_order(lines: _Lines, order: int, size: int, ids: dict[str, int], has_backoffs: bool) -> dict:
    """Arrays of the n-grams of one order, in the order of the file; `ids` are those of first appearance."""
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
        if len(fields) == order + 2 and not backoff < math.inf:
            raise lines.error(f"the back-off weight is {fields[-1]}")
        words = [_as_special(word) if word[:1] == "<" else word for word in fields[1 : order + 1]]
        if order == 1 and words[0] in ids:
            [word], begin = words, log_probs[ids[BEGIN]] if BEGIN in ids else math.nan
            if word not in _SPECIAL or (
                log_prob != log_probs[ids[word]] and begin not in (log_prob, log_probs[ids[word]])
            ):
                raise lines.error(f"{word!r} is among the 1-grams twice")
            if log_prob != begin:
                log_probs[ids[word]], backoffs[ids[word]] = log_prob, backoff
            continue
        for word in words:
            if order == 1:
                ids[word] = len(ids)
            elif word not in ids:
                raise lines.error(f"{word!r} is not among the 1-grams")
            grams.append(ids[word])
        log_probs.append(log_prob)
        backoffs.append(backoff)
        numbers.append(lines.number)
    lines.next()
    columns = {"grams": grams, "log_probs": log_probs, "backoffs": backoffs, "lines": numbers}
    arrays = {name: np.array(values, dtype=values.typecode) for name, values in columns.items()}
    return arrays | {"grams": arrays["grams"].reshape(-1, order)}


def _model(path: Path, ids: dict[str, int], orders: list[dict]) -> NgramModel:
    """Sorts what was read into a trie, and checks that every context is there."""
    if UNKNOWN not in ids:
        ids[UNKNOWN] = len(ids)
        ordinary = orders[0]["log_probs"][orders[0]["log_probs"] > _NEVER_LOG10]
        orders[0]["log_probs"] = np.append(orders[0]["log_probs"], ordinary.min(initial=0.0))
        orders[0]["backoffs"] = np.append(orders[0]["backoffs"], 0.0)
        orders[0]["lines"] = np.append(orders[0]["lines"], 0)
        orders[0]["grams"] = np.append(orders[0]["grams"], [[ids[UNKNOWN]]], axis=0)
    words = _lower_case(path, list(ids))
    ids = {word: id for id, word in enumerate(words)}
    vocabulary = sorted(words, key=str.encode)
    new_id = np.empty(len(words), dtype=np.int64)
    new_id[[ids[word] for word in vocabulary]] = np.arange(len(words))

    levels: list[NgramLevel] = []
    below: dict = {}
    for order, read in enumerate(orders, start=1):
        grams = new_id[read["grams"]]
        prefixes = np.zeros(len(grams), dtype=np.int64)
        for place in range(1, order):
            prefixes = _find(_keys(levels, place, len(words)), prefixes * len(words) + grams[:, place - 1])
            if (prefixes < 0).any():
                row = int(np.argmax(prefixes < 0))
                context = " ".join(words[id] for id in read["grams"][row, :place])
                raise LanguageModelError(
                    f"{path}, line {read['lines'][row]}: its context {context!r} is no {place}-gram here"
                )
        keys = prefixes * len(words) + grams[:, -1]
        rows = np.argsort(keys, kind="stable")
        if (twice := np.flatnonzero(np.diff(keys[rows]) == 0)).size:
            raise LanguageModelError(
                f"{path}, line {read['lines'][rows[twice[0] + 1]]}: this n-gram is there twice"
            )
        if order > 1:
            used = np.unique(prefixes)
            lacking = used[np.isnan(below["backoffs"][used])]
            if lacking.size:
                raise LanguageModelError(
                    f"{path}, line {below['lines'][lacking[0]]}: no back-off weight, "
                    f"but longer n-grams begin with this one"
                )
        below = {name: values[rows] for name, values in read.items()}
        levels.append(
            NgramLevel(
                prefixes[rows],
                grams[rows, -1],
                below["log_probs"] * _LN_10,
                np.nan_to_num(below["backoffs"]) * _LN_10,
            )
        )
    return NgramModel.from_levels(vocabulary, levels)


def _as_special(word: str) -> str:
    return word.lower() if word.lower() in _SPECIAL else word


def _lower_case(path: Path, words: list[str]) -> list[str]:
    """The words in lower case, as transcripts have them, unless that would make two words one."""
    lower = [word.lower() for word in words]
    capitals = sum(word != other for word, other in zip(words, lower, strict=True))
    if capitals and len(set(lower)) == len(words):
        log.warning(
            "%s: %d words in upper case are read in lower case, as transcripts have them", path, capitals
        )
        return lower
    if capitals:
        log.warning(
            "%s: %d of %d words have upper case, which transcripts never have, and are useless; estimate the "
            "model on text in lower case",
            *(path, capitals, len(words)),
        )
    return words


def _keys(levels: list[NgramLevel], order: int, vocabulary: int) -> np.ndarray:
    """One sorted number for each n-gram of an order: the place of its first words, then the last word."""
    return levels[order - 1].prefixes * vocabulary + levels[order - 1].words


def _find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted number stands among sorted ones, -1 where it does not."""
    if not len(keys):
        return np.full(len(wanted), -1)
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)
