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
from training.scoring.intervals import SEED, rate_interval, resample, sums_by_unit
from training.scoring.measures import COUNT_COLUMNS, count_table, rates, word_counts
from training.scoring.normalizers import DESCRIPTIONS, normalizer
from training.scoring.significance import bootstrap_difference, matched_pairs
from training.scoring.transcripts import Recognised, Reference, TimedWord

EVERYTHING = "all"  # name of the set of all sets
ALWAYS_GROUPED = ("speaker", "duration")
DURATION_BANDS_SECONDS = (2, 5, 10, 20)
SNR_BANDS_DB = (5, 10, 20, 30)
_GROUP_RESAMPLES = 2_000  # there may be hundreds of groups
_NOTHING = Recognised("")
_COMMONEST = 50  # confusions listed
_NORMALIZER_SAMPLE = 2_000  # utterances on which normalisers are compared: the English one takes a while


@dataclass(frozen=True)
class Output:
    """The hypotheses of one system under one condition, by id of the reference."""

    system: str
    recognised: Mapping[str, Recognised]
    condition: str = "clean"
    extra: Sequence[str] = ()
    duplicates: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Scored(Output):
    """An output aligned to the references, in their order."""

    texts: list[str]
    alignments: Alignments
    counts: np.ndarray = field(repr=False)  # [utterances, COUNT_COLUMNS]


@dataclass(frozen=True)
class Scores:
    """References and outputs after scoring.

    Attributes:
      references: those that are scored.
      texts: [references] normalised.
      outputs: every system and condition; the first condition is the one that tables go into detail on.
      document: the numbers, ready for JSON.
    """

    references: list[Reference]
    texts: list[str]
    outputs: list[Scored]
    document: dict[str, Any]


def score(
    references: Sequence[Reference],
    outputs: Sequence[Output],
    normalizer_name: str,
    by: Sequence[str] = (),
    snr_db: Mapping[str, float] | None = None,
    not_scored: Mapping[str, str] | None = None,
) -> Scores:
    """Scores outputs on the same references; a missing hypothesis counts as an empty one.

    Args:
      references: with unique ids.
      outputs: at least one.
      normalizer_name: a key of normalizers.DESCRIPTIONS.
      by: fields of the manifest to group by.
      snr_db: estimated SNR by id, where sound was read.
      not_scored: ids that are left out for every system, and why.
    """
    not_scored = dict(not_scored or {})
    kept = [reference for reference in references if reference.id not in not_scored]
    normalize = normalizer(normalizer_name)
    texts = [normalize(reference.text) for reference in kept]
    scored = [_align(output, kept, texts, normalize) for output in outputs]
    detailed = [one for one in scored if one.condition == outputs[0].condition]
    said = _timed_words(texts, (one.words for one in kept), normalize)
    words = {
        one.system: _timed_words(
            one.texts, (one.recognised.get(ref.id, _NOTHING).words for ref in kept), normalize
        )
        for one in detailed
    }
    calibrations = {one.system: _calibration(one, words[one.system]) for one in detailed}
    times = {one.system: _word_times(one, said, words[one.system]) for one in detailed}
    document = {
        "normalizer": {"name": normalizer_name, "what": DESCRIPTIONS[normalizer_name]},
        "references": {
            "given": len(references),
            "scored": len(kept),
            "empty": sum(not text for text in texts),
            "words": sum(len(text.split()) for text in texts),
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
        "scores": _by_set(kept, scored),
        "comparisons": _comparisons(kept, scored),
        "normalizers": _normalizers(kept, detailed),
        "groups": {
            name: _groups(values, kept, detailed)
            for name, values in _groupings(kept, by, snr_db or {}).items()
        },
        "confusions": {one.system: _confusions(texts, one) for one in detailed},
        "calibration": {system: found for system, found in calibrations.items() if found},
        "word_times": {system: found for system, found in times.items() if found},
    }
    return Scores(kept, texts, scored, plain(document))


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


def _align(output: Output, references: list[Reference], texts: list[str], normalize: Callable) -> Scored:
    recognised = _texts(output, references, normalize)
    alignments = align(texts, recognised)
    return Scored(**vars(output), texts=recognised, alignments=alignments, counts=count_table(alignments))


def _texts(output: Output, references: list[Reference], normalize: Callable) -> list[str]:
    return [normalize(output.recognised.get(one.id, _NOTHING).text) for one in references]


def _sets(references: list[Reference]) -> dict[str, np.ndarray]:
    """Rows of each set, and of all together where there are several."""
    sets = np.array([one.set for one in references])
    names = list(dict.fromkeys(sets.tolist()))
    rows = {name: np.flatnonzero(sets == name) for name in names}
    return rows | ({EVERYTHING: np.arange(len(references))} if len(names) > 1 else {})


def _measured(counts: np.ndarray, speakers: Sequence[str], **options: int) -> dict[str, Any]:
    """Counts and rates with intervals of some rows of a table of counts, [utterances, COUNT_COLUMNS]."""
    unit, sums = sums_by_unit(counts, speakers)
    resampled = rates(resample(sums, **options))
    total = counts.sum(axis=0)
    return {
        "utterances": len(counts),
        "resampled_by": unit,
        "units": len(sums),
        "counts": word_counts(total),
    } | {
        name: {"value": value, "interval": rate_interval(value, resampled[name], len(sums))}
        for name, value in rates(total).items()
    }


def _by_set(references: list[Reference], scored: list[Scored]) -> list[dict[str, Any]]:
    return [
        {"set": name, "system": one.system, "condition": one.condition}
        | _measured(one.counts[rows], [references[row].speaker for row in rows])
        for name, rows in _sets(references).items()
        for one in scored
    ]


def _comparisons(references: list[Reference], scored: list[Scored]) -> list[dict[str, Any]]:
    """Every two systems under the same condition, on every set."""
    found = []
    for name, rows in _sets(references).items():
        speakers = [references[row].speaker for row in rows]
        for one, other in itertools.combinations(scored, 2):
            if one.condition != other.condition:
                continue
            unit, sums = sums_by_unit(np.hstack([one.counts[rows], other.counts[rows]]), speakers)
            resampled = resample(sums)
            halves = (slice(0, COUNT_COLUMNS), slice(COUNT_COLUMNS, None))
            difference = bootstrap_difference(
                np.array([rates(sums[:, half].sum(axis=0))["wer"] for half in halves]),
                np.column_stack([rates(resampled[:, half])["wer"] for half in halves]),
                len(sums),
            )
            operations = ([side.alignments.operations[row] for row in rows] for side in (one, other))
            found.append(
                {
                    "set": name,
                    "condition": one.condition,
                    "systems": [one.system, other.system],
                    "difference": difference.wer,
                    "interval": [difference.low, difference.high],
                    "resampled_by": unit,
                    "bootstrap_p": difference.p,
                    "mapsswe": asdict(matched_pairs(*operations)),
                }
            )
    return found


def _normalizers(references: list[Reference], scored: list[Scored]) -> list[dict[str, Any]]:
    """WER of the same hypotheses under every normaliser; on a seeded sample of very many utterances."""
    rows = np.arange(len(references))
    if len(rows) > _NORMALIZER_SAMPLE:
        rows = np.sort(np.random.default_rng(SEED).choice(rows, _NORMALIZER_SAMPLE, replace=False))
    sample = [references[row] for row in rows]
    found = []
    for name in DESCRIPTIONS:
        normalize = normalizer(name)
        texts = [normalize(one.text) for one in sample]
        for one in scored:
            total = count_table(align(texts, _texts(one, sample, normalize))).sum(axis=0)
            counts = word_counts(total)
            found.append(
                {
                    "normalizer": name,
                    "system": one.system,
                    "utterances": len(sample),
                    "wer": rates(total)["wer"],
                    "errors": counts["errors"],
                    "words": counts["words"],
                }
            )
    return found


def _groupings(
    references: list[Reference], by: Sequence[str], snr_db: Mapping[str, float]
) -> dict[str, list[str]]:
    """For each way to group, the group of every reference; "" where it is unknown."""
    durations = [one.duration_seconds for one in references]
    groupings = {
        "speaker": [one.speaker for one in references],
        "duration": [band(value, DURATION_BANDS_SECONDS, "s") if value else "" for value in durations],
        "snr": [band(snr_db[one.id], SNR_BANDS_DB, "dB") if one.id in snr_db else "" for one in references],
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
        for one in scored:
            measured = _measured(
                one.counts[rows], [references[row].speaker for row in rows], resamples=_GROUP_RESAMPLES
            )
            found.append(
                {
                    "group": value or "unknown",
                    "system": one.system,
                    "seconds": sum(references[row].duration_seconds or 0.0 for row in rows),
                    **{key: measured[key] for key in ("utterances", "resampled_by", "counts", "wer")},
                }
            )
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
