"""Writes the report folder: report.html, report.md, results.json, utterances.jsonl and hypotheses."""

import base64
import json
import mimetypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from asr.files import write_whole
from training.scoring import plots
from training.scoring.alignment import SUBSTITUTIONS, side_by_side
from training.scoring.measures import RATES, Counts
from training.scoring.results import EVERYTHING, Scores, plain
from training.scoring.transcripts import Reference

_EMBEDDED_AUDIO_BYTES = 2_000_000  # sound inside the page, worst utterances first; the rest is linked
_MOST_ROWS = 5_000  # utterances in the page, worst first; utterances.jsonl has all
_KINDS = {"equal": "=", "substitute": "s", "delete": "d", "insert": "i"}


def write_report(
    folder: Path, scores: Scores, header: Mapping[str, Any], measured: Mapping[str, Any]
) -> None:
    """Writes the report into `folder`, which is made where it is missing.

    The folder `hypotheses` has the texts of each system in the form that `read_hypotheses` reads, so that a
    recogniser need not run again to be compared with the next one.

    Args:
      folder: where to.
      scores: of all systems and conditions.
      header: what names the run and is the same when it is run again: command, commit, versions, hardware.
      measured: what differs from run to run: date and speed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = plain({"header": dict(header), **scores.document, "measured": dict(measured)})
    write_whole(folder / "results.json", json.dumps(results, ensure_ascii=False, indent=1) + "\n")
    rows = utterance_rows(scores)
    write_whole(
        folder / "utterances.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    )
    (folder / "hypotheses").mkdir(exist_ok=True)
    for system, lines in hypothesis_rows(scores).items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines)
        write_whole(folder / "hypotheses" / f"{system}.jsonl", text)
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=lambda name: bool(name and ".html" in name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"percent": percent, "interval": interval_text, "p": p_text, "tally": tally}
    templates.filters |= filters | {"worst_first": worst_first}
    view = {"results": results, "rates": RATES, "everything": EVERYTHING, **_tables(results)}
    write_whole(folder / "report.md", templates.get_template("report.md.j2").render(view))
    page_rows = _page_rows(scores, folder)
    view |= {
        "plots": _plots(view),
        "colour": plots.colour,
        "data": json.dumps(page_rows, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        "rows": len(page_rows),
    }
    write_whole(folder / "report.html", templates.get_template("report.html.j2").render(view))


def percent(value: float | None, digits: int = 2) -> str:
    """A fraction as percent without the sign; an en dash where it is undefined."""
    return "–" if value is None else f"{100 * value:.{digits}f}".replace("-", "−")


def interval_text(interval: list[float | None], digits: int = 2) -> str:
    """An interval of fractions as percent."""
    low, high = interval
    if low is None:
        return "–"
    joint = "–" if low >= 0 else " to "
    return f"{percent(low, digits)}{joint}{percent(high, digits)}"


def p_text(p: float | None) -> str:
    """A probability with four decimals; an en dash where it is undefined."""
    if p is None:
        return "–"
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"


def tally(counts: Mapping[str, int]) -> str:
    """[errors / words, ins, del, sub]."""
    return str(Counts(*(counts[name] for name in ("hits", "substitutions", "deletions", "insertions"))))


def worst_first(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups by falling WER, those without words last."""
    wers = [-1.0 if row["wer"]["value"] is None else row["wer"]["value"] for row in groups]
    return [groups[i] for i in sorted(range(len(groups)), key=lambda i: -wers[i])]


def hypothesis_rows(scores: Scores) -> dict[str, list[dict[str, Any]]]:
    """By system, one row an utterance and condition: what was recognised, before any normalisation."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for one in scores.outputs:
        for id, recognised in one.output.recognised.items():
            row = {"id": id, "condition": one.output.condition, "text": recognised.text}
            if recognised.words:
                row["words"] = [
                    {"word": word.text, "start": word.start, "end": word.end, "confidence": word.confidence}
                    for word in recognised.words
                ]
            rows.setdefault(one.output.system, []).append(plain(row))
    return rows


def utterance_rows(scores: Scores) -> list[dict[str, Any]]:
    """One row an utterance and condition, for utterances.jsonl."""
    by_condition: dict[str, list] = {}
    for one in scores.outputs:
        by_condition.setdefault(one.output.condition, []).append(one)
    return [
        {
            "id": reference.id,
            "set": reference.set,
            "condition": condition,
            "speaker": reference.speaker,
            "duration": reference.duration_seconds,
            "reference": scores.texts[row],
            "systems": {
                one.output.system: {
                    "hypothesis": one.texts[row],
                    "missing": reference.id not in one.output.recognised,
                    "hits_substitutions_deletions_insertions": one.alignments.words[row].tolist(),
                }
                for one in outputs
            },
        }
        for condition, outputs in by_condition.items()
        for row, reference in enumerate(scores.references)
    ]


def _tables(results: dict[str, Any]) -> dict[str, Any]:
    """What both templates lay out: names, and scores by (set, system, condition)."""
    scores = results["scores"]
    names = {key: list(dict.fromkeys(row[key] for row in scores)) for key in ("set", "system", "condition")}
    return {
        "sets": names["set"],
        "systems": names["system"],
        "conditions": names["condition"],
        "score": {(row["set"], row["system"], row["condition"]): row for row in scores},
        "detail": names["condition"][0],
        "unpaired": [
            row for row in results["pairing"] if row["missing"] or row["extra"] or row["duplicates"]
        ],
    }


def _point(x: float, wer: dict[str, Any]) -> plots.Point:
    low, high = (None if end is None else 100 * end for end in wer["interval"])
    return plots.Point(x, 100 * wer["value"], low, high)


def _plots(view: dict[str, Any]) -> dict[str, str]:
    score, systems, detail = view["score"], view["systems"], view["detail"]
    drawn = {}
    rows = []
    for name in view["sets"]:
        found = [score[name, system, detail]["wer"] for system in systems if (name, system, detail) in score]
        rows.append((name, [_point(0, wer) for wer in found if wer["value"] is not None]))
    drawn["wer"] = plots.interval_plot(rows, "WER %")
    whole = EVERYTHING if EVERYTHING in view["sets"] else view["sets"][0]
    levels = {c: float(c.partition(":")[2]) for c in view["conditions"] if c.startswith("noise:")}
    if len(levels) > 1:
        lines = {
            system: [
                _point(level, score[whole, system, condition]["wer"])
                for condition, level in levels.items()
                if (whole, system, condition) in score
            ]
            for system in systems
        }
        lines = {system: line for system, line in lines.items() if line}
        drawn["noise"] = plots.line_plot(lines, "signal over noise, dB", "WER %")
    if calibration := view["results"]["calibration"]:
        lines = {
            system: [
                (bin["confidence"], bin["accuracy"], bin["words"]) for bin in calibration[system]["bins"]
            ]
            for system in systems
            if system in calibration
        }
        drawn["reliability"] = plots.reliability_plot(lines)
    return drawn


def _page_rows(scores: Scores, folder: Path) -> list[list[Any]]:
    """Rows of the page's table: id, set, speaker, seconds, audio, words, and each system's alignment, errors
    and whether its text is missing.
    """
    detail = scores.outputs[0].output.condition
    outputs = [one for one in scores.outputs if one.output.condition == detail]
    errors = sum(one.alignments.words[:, SUBSTITUTIONS:].sum(axis=1) for one in outputs)
    worst = sorted(range(len(scores.references)), key=lambda row: (-int(errors[row]), row))[:_MOST_ROWS]
    sources = _audio_sources([scores.references[row] for row in worst], folder)
    rows = []
    for row, source in zip(worst, sources, strict=True):
        reference = scores.references[row]
        words = scores.texts[row].split()
        systems = []
        for one in outputs:
            operations = one.alignments.operations[row]
            aligned = side_by_side(operations, words, one.texts[row].split())
            tokens = [[_KINDS[kind], said or "", recognised or ""] for kind, said, recognised in aligned]
            missing = int(reference.id not in one.output.recognised)
            systems.append([_merge(tokens), int(one.alignments.words[row, SUBSTITUTIONS:].sum()), missing])
        about = [reference.id, reference.set, reference.speaker, reference.duration_seconds]
        rows.append([*about, source, len(words), systems])
    return rows


def _merge(tokens: list[list[str]]) -> list[list[str]]:
    """Joins neighbouring right words, which makes the page a third as large."""
    merged: list[list[str]] = []
    for kind, said, recognised in tokens:
        if kind == "=" and merged and merged[-1][0] == "=":
            merged[-1][1] += f" {said}"
        else:
            merged.append([kind, said] if kind == "=" else [kind, said, recognised])
    return merged


def _audio_sources(references: list[Reference], folder: Path) -> list[str]:
    """For a player: the sound itself while there is room, then a link relative to the page; "" without."""
    room = _EMBEDDED_AUDIO_BYTES
    sources = []
    for reference in references:
        if reference.audio is None or not reference.audio.is_file():
            sources.append("")
            continue
        size = reference.audio.stat().st_size
        if size <= room and reference.end_seconds is None:
            room -= size
            kind = mimetypes.guess_type(reference.audio.name)[0] or "audio/ogg"
            sources.append(f"data:{kind};base64,{base64.b64encode(reference.audio.read_bytes()).decode()}")
        else:
            link = Path(os.path.relpath(reference.audio, folder.absolute())).as_posix()
            part = (
                f"#t={reference.start_seconds:g},{reference.end_seconds:g}" if reference.end_seconds else ""
            )
            sources.append(link + part)
    return sources
