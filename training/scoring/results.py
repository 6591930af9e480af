"""From references and hypotheses to every number of a report, as plain data for results.json."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from training.scoring.alignment import Alignments, align, side_by_side
from training.scoring.calibration import calibration
from training.scoring.intervals import SEED, rate_interval, resample, resampling_units, sum_by_unit
from training.scoring.measures import COUNT_COLUMNS, Counts, count_table, rates
from training.scoring.normalizers import DESCRIPTIONS, normalizer
from training.scoring.significance import bootstrap_difference, matched_pairs
from training.scoring.transcripts import Recognised, Reference
from training.scoring.words import judged_confidences, normalized_words, time_errors

EVERYTHING = "all"  # name of the set of all sets
ALWAYS_GROUPED = ("speaker", "duration")
DURATION_BANDS_SECONDS = (2, 5, 10, 20)
SNR_BANDS_DB = (5, 10, 20, 30)
_GROUP_RESAMPLES = 2_000  # there may be hundreds of groups
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


@dataclass(frozen=True)
class Scored:
    """An output aligned to the references, in their order."""

    output: Output
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
    first_condition = [one for one in scored if one.output.condition == outputs[0].condition]
    document = {
        "normalizer": {"name": normalizer_name, "what": DESCRIPTIONS[normalizer_name]},
        "references": _what_was_scored(references, kept, texts, not_scored),
        "pairing": [_pairing(output, kept) for output in outputs],
        "scores": _by_set(kept, scored),
        "comparisons": _comparisons(kept, scored),
        "normalizers": _normalizers(kept, first_condition),
        "groups": {
            name: _groups(values, kept, first_condition)
            for name, values in _groupings(kept, by, snr_db or {}).items()
        },
        "confusions": {one.output.system: _confusions(texts, one) for one in first_condition},
        "calibration": _calibration(first_condition, kept, normalize),
        "word_times": _word_times(first_condition, kept, texts, normalize),
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
    recognised = [
        normalize(output.recognised[one.id].text) if one.id in output.recognised else "" for one in references
    ]
    alignments = align(texts, recognised)
    return Scored(output, recognised, alignments, count_table(alignments))


def _what_was_scored(
    references: Sequence[Reference], kept: list[Reference], texts: list[str], not_scored: dict[str, str]
) -> dict[str, Any]:
    return {
        "given": len(references),
        "scored": len(kept),
        "empty": sum(not text for text in texts),
        "words": sum(len(text.split()) for text in texts),
        "speakers": len({one.speaker for one in kept if one.speaker}),
        "without_speaker": sum(not one.speaker for one in kept),
        "seconds": sum(one.duration_seconds or 0.0 for one in kept),
        "not_scored": [{"id": id, "reason": reason} for id, reason in not_scored.items()],
    }


def _pairing(output: Output, references: list[Reference]) -> dict[str, Any]:
    return {
        "system": output.system,
        "condition": output.condition,
        "missing": [one.id for one in references if one.id not in output.recognised],
        "extra": list(output.extra),
        "duplicates": list(output.duplicates),
    }


def _sets(references: list[Reference]) -> dict[str, np.ndarray]:
    """Rows of each set, and of all together where there are several."""
    names = list(dict.fromkeys(one.set for one in references))
    rows = {name: np.array([row for row, one in enumerate(references) if one.set == name]) for name in names}
    return rows | ({EVERYTHING: np.arange(len(references))} if len(names) > 1 else {})


def _measured(counts: np.ndarray, speakers: Sequence[str], **options: int) -> dict[str, Any]:
    """Counts and rates with intervals of some rows of a table of counts, [utterances, COUNT_COLUMNS]."""
    unit, units = resampling_units(speakers)
    sums = sum_by_unit(counts, units)
    resampled = rates(resample(sums, **options))
    total = counts.sum(axis=0)
    tally = Counts.of(total)
    return {
        "utterances": len(counts),
        "resampled_by": unit,
        "units": len(sums),
        "counts": asdict(tally) | {"errors": tally.errors, "words": tally.words},
    } | {
        name: {"value": value, "interval": rate_interval(value, resampled[name], len(sums))}
        for name, value in rates(total).items()
    }


def _by_set(references: list[Reference], scored: list[Scored]) -> list[dict[str, Any]]:
    return [
        {"set": name, "system": one.output.system, "condition": one.output.condition}
        | _measured(one.counts[rows], [references[row].speaker for row in rows])
        for name, rows in _sets(references).items()
        for one in scored
    ]


def _comparisons(references: list[Reference], scored: list[Scored]) -> list[dict[str, Any]]:
    """Every two systems under the same condition, on every set."""
    couples = [
        (one, other)
        for one, other in itertools.combinations(scored, 2)
        if one.output.condition == other.output.condition
    ]
    found = []
    for name, rows in _sets(references).items():
        unit, units = resampling_units([references[row].speaker for row in rows])
        for one, other in couples:
            both = np.hstack([one.counts[rows], other.counts[rows]])
            sums = sum_by_unit(both, units)
            halves = (slice(0, COUNT_COLUMNS), slice(COUNT_COLUMNS, None))
            total, resampled = both.sum(axis=0), resample(sums)
            difference = bootstrap_difference(
                np.array([rates(total[half])["wer"] for half in halves]),
                np.column_stack([rates(resampled[:, half])["wer"] for half in halves]),
                len(sums),
            )
            pairs = matched_pairs(
                (one.alignments.operations[row] for row in rows),
                (other.alignments.operations[row] for row in rows),
            )
            found.append(
                {
                    "set": name,
                    "condition": one.output.condition,
                    "systems": [one.output.system, other.output.system],
                    "difference": difference.wer,
                    "interval": [difference.low, difference.high],
                    "resampled_by": unit,
                    "bootstrap_p": difference.p,
                    "mapsswe": asdict(pairs),
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
            total = _align(one.output, sample, texts, normalize).counts.sum(axis=0)
            found.append(
                {
                    "normalizer": name,
                    "system": one.output.system,
                    "utterances": len(sample),
                    "wer": rates(total)["wer"],
                    "errors": Counts.of(total).errors,
                    "words": Counts.of(total).words,
                }
            )
    return found


def _groupings(
    references: list[Reference], by: Sequence[str], snr_db: Mapping[str, float]
) -> dict[str, list[str]]:
    """For each way to group, the group of every reference; "" where it is unknown."""
    groupings = {
        "speaker": [one.speaker for one in references],
        "duration": [
            band(one.duration_seconds, DURATION_BANDS_SECONDS, "s") if one.duration_seconds else ""
            for one in references
        ],
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
                    "system": one.output.system,
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
        if wrong:
            for kind, word, instead in side_by_side(wrong, text.split(), recognised.split()):
                found[kind][word or "", instead or ""] += 1
    return {
        kind: [
            [said, recognised, times]
            for (said, recognised), times in sorted(counter.items(), key=lambda item: (-item[1], item[0]))
        ][:_COMMONEST]
        for kind, counter in found.items()
    }


def _calibration(scored: list[Scored], references: list[Reference], normalize: Callable) -> dict[str, Any]:
    found = {}
    for one in scored:
        judged, left_out = [], 0
        for row, reference in enumerate(references):
            recognised = one.output.recognised.get(reference.id)
            if recognised is None or not recognised.words:
                continue
            words = normalized_words(recognised.words, one.texts[row], normalize)
            if words is None:
                left_out += 1
            else:
                judged += judged_confidences(one.alignments.operations[row], words)
        if judged:
            confidence, is_right = np.array(judged).T
            result = calibration(confidence, is_right.astype(bool))
            found[one.output.system] = asdict(result) | {"utterances_left_out": left_out}
    return found


def _word_times(
    scored: list[Scored], references: list[Reference], texts: list[str], normalize: Callable
) -> dict[str, Any]:
    found = {}
    said = {
        row: words
        for row, one in enumerate(references)
        if one.words and (words := normalized_words(one.words, texts[row], normalize))
    }
    for one in scored:
        errors = [np.zeros((0, 2))]
        for row, true in said.items():
            recognised = one.output.recognised.get(references[row].id)
            words = normalized_words(recognised.words, one.texts[row], normalize) if recognised else None
            if words:
                errors.append(time_errors(one.alignments.operations[row], true, words))
        milliseconds = 1000 * np.abs(np.concatenate(errors))
        if len(milliseconds):
            found[one.output.system] = {
                "words": len(milliseconds),
                "median_start_ms": float(np.median(milliseconds[:, 0])),
                "median_end_ms": float(np.median(milliseconds[:, 1])),
                "median_ms": float(np.median(milliseconds)),
                "p90_ms": float(np.percentile(milliseconds, 90)),
            }
    return found
