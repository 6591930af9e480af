"""From references and hypotheses to every number of a report, as plain data for results.json."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from training.scoring.alignment import Alignments, align, side_by_side
from training.scoring.calibration import calibration
from training.scoring.cased import EQUAL_WORDS, MARKS, cased_counts, mark_counts, mark_rates
from training.scoring.intervals import percentile_interval, rate_interval, resample, sums_by_unit
from training.scoring.measures import count_table, rates, word_counts
from training.scoring.normalizers import DESCRIPTIONS, normalizer
from training.scoring.significance import bootstrap_difference, matched_pairs
from training.scoring.transcripts import Output, Recognised, Reference, TimedWord

EVERYTHING = "all"  # name of the set of all sets
ALWAYS_GROUPED = ("speaker", "duration")
DURATION_BANDS_SECONDS = (2, 5, 10, 20)
_GROUP_RESAMPLES = 2_000  # there may be hundreds of groups
_NOTHING = Recognised("")
_COMMONEST = 50  # confusions listed


@dataclass(frozen=True, kw_only=True)
class Scored(Output):
    """An output aligned to the references, in their order, under one normaliser."""

    normalizer: str
    texts: list[str]
    alignments: Alignments
    counts: np.ndarray = field(repr=False)  # [utterances, COUNT_COLUMNS]


@dataclass(frozen=True)
class Scores:
    """References and outputs after scoring.

    Attributes:
      references: those that are scored.
      texts: [references] by the first normaliser.
      outputs: every system and condition, by the first normaliser; the first condition is the one that tables
        go into detail on.
      document: the numbers, ready for JSON.
    """

    references: list[Reference]
    texts: list[str]
    outputs: list[Scored]
    document: dict[str, Any]


def score(
    references: Sequence[Reference],
    outputs: Sequence[Output],
    normalizers: Sequence[str],
    by: Sequence[str] = (),
    not_scored: Mapping[str, str] | None = None,
    cased: bool = False,
) -> Scores:
    """Scores outputs on the same references; a missing hypothesis counts as an empty one.

    Args:
      references: with unique ids.
      outputs: at least one.
      normalizers: keys of normalizers.DESCRIPTIONS. Every WER is measured under each of them; confusions,
        confidence and times of words are of the first.
      by: fields of the manifest to group by.
      not_scored: ids that are left out for every system, and why.
      cased: whether capitals and punctuation are scored too, on references that are `written`.
    """
    not_scored = dict(not_scored or {})
    kept = [reference for reference in references if reference.id not in not_scored]
    texts: dict[str, list[str]] = {}
    scored: list[Scored] = []
    for name in normalizers:
        normalize = normalizer(name)
        texts[name] = [normalize(reference.text) for reference in kept]
        scored += [_align(output, kept, texts[name], name, normalize) for output in outputs]
    detailed = [one for one in scored if one.condition == outputs[0].condition]
    first = normalizers[0]
    normalize = normalizer(first)
    shown = [one for one in detailed if one.normalizer == first]
    said = _timed_words(texts[first], (one.words for one in kept), normalize)
    words = {
        one.system: _timed_words(
            one.texts, (one.recognised.get(ref.id, _NOTHING).words for ref in kept), normalize
        )
        for one in shown
    }
    calibrations = {one.system: _calibration(one, words[one.system]) for one in shown}
    times = {one.system: _word_times(one, said, words[one.system]) for one in shown}
    scores, comparisons = _by_set(kept, scored)
    document = {
        "normalizers": [
            {
                "name": name,
                "what": DESCRIPTIONS[name],
                "words": sum(len(text.split()) for text in texts[name]),
                "empty": sum(not text for text in texts[name]),
            }
            for name in normalizers
        ],
        "references": {
            "given": len(references),
            "scored": len(kept),
            "speakers": len({one.speaker for one in kept if one.speaker}),
            "without_speaker": sum(not one.speaker for one in kept),
            "seconds": sum(one.duration_seconds or 0.0 for one in kept),
            "not_scored": [{"id": id, "reason": reason} for id, reason in not_scored.items()],
        },
        "pairing": [
            {
                "system": one.system,
                "condition": one.condition,
                "missing": [reference.id for reference in kept if reference.id not in one.recognised],
                "extra": list(one.extra),
                "duplicates": list(one.duplicates),
            }
            for one in outputs
        ],
        "scores": scores,
        "comparisons": comparisons,
        "cased": _cased(kept, outputs) if cased else None,
        "groups": {name: _groups(values, kept, detailed) for name, values in _groupings(kept, by).items()},
        "confusions": {one.system: _confusions(texts[first], one) for one in shown},
        "calibration": {system: found for system, found in calibrations.items() if found},
        "word_times": {system: found for system, found in times.items() if found},
    }
    return Scores(kept, texts[first], [one for one in scored if one.normalizer == first], plain(document))


def plain(value: Any) -> Any:
    """For JSON: numbers rounded to 6 decimals, NaN as None, tuples as lists."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def band(value: float, limits: Sequence[float], unit: str) -> str:
    """Name of the band between two of the limits that holds a value: "5–10 s", "<2 s", "≥20 s"."""
    above = [limit for limit in limits if value >= limit]
    if not above:
        return f"<{limits[0]} {unit}"
    if len(above) == len(limits):
        return f"≥{limits[-1]} {unit}"
    return f"{above[-1]}–{limits[len(above)]} {unit}"


def _align(
    output: Output, references: list[Reference], texts: list[str], name: str, normalize: Callable
) -> Scored:
    recognised = [normalize(output.recognised.get(one.id, _NOTHING).text) for one in references]
    alignments = align(texts, recognised)
    counts = count_table(alignments)
    return Scored(**vars(output), normalizer=name, texts=recognised, alignments=alignments, counts=counts)


def _sets(references: list[Reference]) -> dict[str, np.ndarray]:
    """Rows of each set, and of all together where there are several."""
    sets = np.array([one.set for one in references])
    names = list(dict.fromkeys(sets.tolist()))
    rows = {name: np.flatnonzero(sets == name) for name in names}
    return rows | ({EVERYTHING: np.arange(len(references))} if len(names) > 1 else {})


def _resampled(
    tables: Sequence[np.ndarray], references: Sequence[Reference], rows: Sequence[int], **options: int
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """What is drawn, and its sums [units, tables, columns] and resampled totals [resamples, tables, columns],
    from some rows of a table of counts [references, columns] for each output; all on the same draws.
    """
    shape = -1, len(tables), tables[0].shape[1]
    speakers = [references[row].speaker for row in rows]
    unit, sums = sums_by_unit(np.hstack([table[rows] for table in tables]), speakers)
    drawn = {"utterances": len(rows), "resampled_by": unit, "units": len(sums)}
    return drawn, sums.reshape(shape), resample(sums, **options).reshape(shape)


def _measured(sums: np.ndarray, resampled: np.ndarray) -> dict[str, Any]:
    """Counts and rates with intervals from [units, columns] and [resamples, columns]."""
    total = sums.sum(axis=0)
    spread = rates(resampled)
    return {"counts": word_counts(total)} | {
        name: {"value": value, "interval": rate_interval(value, spread[name], len(sums))}
        for name, value in rates(total).items()
    }


def _by_set(
    references: list[Reference], scored: list[Scored]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rates on every set, and the differences of every two systems under one condition and normaliser."""
    scores, comparisons = [], []
    for name, rows in _sets(references).items():
        drawn, sums, resampled = _resampled([one.counts for one in scored], references, rows)
        for number, one in enumerate(scored):
            about = {
                "set": name,
                "normalizer": one.normalizer,
                "system": one.system,
                "condition": one.condition,
            }
            scores.append(about | drawn | _measured(sums[:, number], resampled[:, number]))
        wers = rates(sums.sum(axis=0))["wer"], rates(resampled)["wer"]
        for pair in itertools.combinations(range(len(scored)), 2):
            one, other = (scored[number] for number in pair)
            if (one.condition, one.normalizer) != (other.condition, other.normalizer):
                continue
            difference = bootstrap_difference(*(wer[..., pair] for wer in wers), len(sums))
            operations = ([side.alignments.operations[row] for row in rows] for side in (one, other))
            comparisons.append(
                {
                    "set": name,
                    "condition": one.condition,
                    "normalizer": one.normalizer,
                    "systems": [one.system, other.system],
                    "difference": difference.wer,
                    "interval": [difference.low, difference.high],
                    "resampled_by": drawn["resampled_by"],
                    "bootstrap_p": difference.p,
                    "mapsswe": asdict(matched_pairs(*operations)),
                }
            )
    return scores, comparisons


def _cased(references: list[Reference], outputs: Sequence[Output]) -> dict[str, Any]:
    """Scores of capitals and punctuation on every set, on the references that are written with them."""
    kept = [one for one in references if one.written is not None]
    texts = [one.written for one in kept]
    tables = [
        cased_counts(texts, [output.recognised.get(one.id, _NOTHING).text for one in kept])
        for output in outputs
    ]
    scores, marks = [], []
    for name, rows in _sets(kept).items():
        drawn, sums, resampled = _resampled(tables, kept, rows)
        for number, output in enumerate(outputs):
            about = {"set": name, "system": output.system, "condition": output.condition}
            measured = _measured(sums[:, number], resampled[:, number])
            total = sums[:, number].sum(axis=0)
            words = {"words_compared": total[EQUAL_WORDS]}
            scores.append(about | drawn | {key: measured[key] for key in ("counts", "wer")} | words)
            for mark, kind in enumerate(MARKS):
                counts = mark_counts(total)[mark]
                spread = mark_rates(mark_counts(resampled[:, number])[:, mark])
                found = dict(zip(("both", "recognised", "written"), counts, strict=True)) | {
                    rate: {"value": value, "interval": percentile_interval(spread[rate], len(sums))}
                    for rate, value in mark_rates(counts).items()
                }
                marks.append(about | {"mark": kind} | found)
    left_out = len(references) - len(kept)
    return {"utterances": len(kept), "left_out": left_out, "scores": scores, "marks": marks}


def _groupings(references: list[Reference], by: Sequence[str]) -> dict[str, list[str]]:
    """For each way to group, the group of every reference; "" where it is unknown."""
    durations = [one.duration_seconds for one in references]
    groupings = {
        "speaker": [one.speaker for one in references],
        "duration": [band(value, DURATION_BANDS_SECONDS, "s") if value else "" for value in durations],
    }
    for name in by:
        groupings[name] = [str(one.fields.get(name, "")) for one in references]
    return {name: values for name, values in groupings.items() if any(values)}


def _groups(values: list[str], references: list[Reference], scored: list[Scored]) -> list[dict[str, Any]]:
    rows_of: dict[str, list[int]] = {}
    for row, value in enumerate(values):
        rows_of.setdefault(value, []).append(row)
    found = []
    for value, rows in sorted(rows_of.items(), key=lambda item: _natural(item[0])):
        tables = [one.counts for one in scored]
        drawn, sums, resampled = _resampled(tables, references, rows, resamples=_GROUP_RESAMPLES)
        seconds = sum(references[row].duration_seconds or 0.0 for row in rows)
        for number, one in enumerate(scored):
            about = {"group": value or "unknown", "normalizer": one.normalizer, "system": one.system}
            measured = _measured(sums[:, number], resampled[:, number])
            figures = {key: measured[key] for key in ("counts", "wer")}
            found.append(about | {"seconds": seconds} | drawn | figures)
    return found


def _natural(name: str) -> tuple:
    """Sorts "<2 s" before "2–5 s" before "10–20 s", "speaker-9" before "speaker-10", and the unknown last."""
    prefix, number = re.match(r"[<≥]?(\D*)(\d*)", name).groups()
    return not name, prefix, int(number or 0), not name.startswith("<"), name


def _confusions(texts: list[str], scored: Scored) -> dict[str, list[list[Any]]]:
    """The commonest substitutions, deletions and insertions, most first: [said, recognised, times]."""
    found: dict[str, Counter] = {"substitute": Counter(), "delete": Counter(), "insert": Counter()}
    for text, recognised, operations in zip(texts, scored.texts, scored.alignments.operations, strict=True):
        wrong = [operation for operation in operations if operation.kind != "equal"]
        for kind, word, instead in side_by_side(wrong, text.split(), recognised.split()):
            found[kind][word or "", instead or ""] += 1
    most_first = {
        kind: sorted(counter.items(), key=lambda item: (-item[1], item[0])) for kind, counter in found.items()
    }
    return {
        kind: [[*pair, times] for pair, times in counts[:_COMMONEST]] for kind, counts in most_first.items()
    }


def _timed_words(
    texts: list[str], words: Iterable[Sequence[TimedWord]], normalize: Callable
) -> list[list[TimedWord] | None]:
    """[utterances] the words of normalised texts with the times and confidence of those they come from.

    Empty where there are no times. None where the words, normalised one by one, are not those of the text: a
    normaliser may join words, as in "twenty one", and a confidence then belongs to no one word.
    """
    found: list[list[TimedWord] | None] = []
    for text, timed in zip(texts, words, strict=True):
        split = [replace(word, text=part) for word in timed for part in normalize(word.text).split()]
        found.append(split if not timed or [word.text for word in split] == text.split() else None)
    return found


def _calibration(scored: Scored, words: list[list[TimedWord] | None]) -> dict[str, Any] | None:
    judged = [
        (word.confidence, operation.kind == "equal")
        for operations, recognised in zip(scored.alignments.operations, words, strict=True)
        for operation in operations
        for word in (recognised or [])[operation.hypothesis_start : operation.hypothesis_end]
        if word.confidence is not None
    ]
    if not judged:
        return None
    confidence, is_right = np.array(judged).T
    return asdict(calibration(confidence, is_right.astype(bool))) | {"utterances_left_out": words.count(None)}


def _word_times(
    scored: Scored, said: list[list[TimedWord] | None], words: list[list[TimedWord] | None]
) -> dict[str, Any] | None:
    """How far starts and ends of right words are from the true ones."""
    errors = []
    for operations, true, recognised in zip(scored.alignments.operations, said, words, strict=True):
        for kind, start, end, recognised_start, recognised_end in operations if true and recognised else ():
            if kind == "equal":
                pairs = zip(true[start:end], recognised[recognised_start:recognised_end], strict=True)
                errors += [(late.start - word.start, late.end - word.end) for word, late in pairs]
    if not errors:
        return None
    milliseconds = 1000 * np.abs(errors)
    median_start, median_end = np.median(milliseconds, axis=0)
    return {
        "words": len(milliseconds),
        "median_start_ms": median_start,
        "median_end_ms": median_end,
        "median_ms": np.median(milliseconds),
        "p90_ms": np.percentile(milliseconds, 90),
    }
