"""Writes the report folder: report.html, report.md, results.json, utterances.jsonl and hypotheses."""

import base64
import itertools
import json
import mimetypes
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from asr.files import write_whole
from training.scoring import plots
from training.scoring.alignment import SUBSTITUTIONS, Operation, side_by_side
from training.scoring.measures import RATES, tally
from training.scoring.results import EVERYTHING, Scores, plain
from training.scoring.transcripts import Reference

_EMBEDDED_AUDIO_BYTES = 2_000_000  # sound inside the page, worst utterances first; the rest is linked
_MOST_ROWS = 5_000  # utterances in the page, worst first; utterances.jsonl has all
_KINDS = {"substitute": "s", "delete": "d", "insert": "i"}


def write_report(
    folder: Path,
    scores: Scores,
    header: Mapping[str, Any],
    measured: Mapping[str, Any],
    finetuning: Mapping[str, Any] | None = None,
) -> None:
    """Writes the report into `folder`, which is made where it is missing.

    The folder `hypotheses` has the texts of each system in the form that `read_hypotheses` reads, so that a
    recogniser need not run again to be compared with the next one.

    Args:
      folder: where to.
      scores: of all systems and conditions.
      header: what names the run and is the same when it is run again: command, commit, versions, hardware.
      measured: what differs from run to run: date and speed.
      finetuning: of a report of `hark finetune`, which the templates finetune.* lay out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    view = _view(scores, header, measured, finetuning)
    write_whole(folder / "results.json", json.dumps(view["results"], ensure_ascii=False, indent=1) + "\n")
    write_whole(folder / "utterances.jsonl", _json_lines(utterance_rows(scores)))
    (folder / "hypotheses").mkdir(exist_ok=True)
    for system, rows in hypothesis_rows(scores).items():
        write_whole(folder / "hypotheses" / f"{system}.jsonl", _json_lines(rows))
    write_whole(folder / "report.md", _templates().get_template("report.md.j2").render(view))
    write_whole(folder / "report.html", _page(view, scores, folder))


def report_page(scores: Scores, header: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """The report.html of `write_report` alone, for a reader who has no other file of it.

    The sound is inside it while there is room; what is larger is left out.
    """
    return _page(_view(scores, header, measured), scores, None)


def _view(
    scores: Scores,
    header: Mapping[str, Any],
    measured: Mapping[str, Any],
    finetuning: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the templates lay out."""
    results = plain(
        {"header": dict(header), **scores.document, "measured": dict(measured), "finetuning": finetuning}
    )
    return {"results": results, "rates": RATES, "everything": EVERYTHING, **_tables(results)}


def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=lambda name: bool(name and ".html" in name),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"percent": percent, "interval": interval_text, "rate": rate_text, "p": p_text, "tally": tally}
    templates.filters |= filters | {"worst_first": worst_first}
    return templates


def _page(view: dict[str, Any], scores: Scores, folder: Path | None) -> str:
    rows = _page_rows(scores, folder)
    view = view | {
        "plots": _plots(view),
        "colour": plots.colour,
        "data": json.dumps(rows, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        "rows": len(rows),
    }
    return _templates().get_template("report.html.j2").render(view)


def _json_lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


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


def rate_text(rate: Mapping[str, Any]) -> str:
    """A rate with its interval as percent, "12.3 (10.1–15.2)"; an en dash where it is undefined."""
    value = percent(rate["value"], 1)
    return value if rate["value"] is None else f"{value} ({interval_text(rate['interval'], 1)})"


def p_text(p: float | None) -> str:
    """A probability with four decimals; an en dash where it is undefined."""
    if p is None:
        return "–"
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"


def worst_first(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups of each normaliser by falling WER, those without words last."""
    order = list(dict.fromkeys(row["normalizer"] for row in groups))

    def place(row: dict[str, Any]) -> tuple[int, float]:
        wer = row["wer"]["value"]
        return order.index(row["normalizer"]), 1.0 if wer is None else -wer

    return sorted(groups, key=place)


def hypothesis_rows(scores: Scores) -> dict[str, list[dict[str, Any]]]:
    """By system, one row an utterance and condition: what was recognised, before any normalisation."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for one in scores.outputs:
        for id, recognised in one.recognised.items():
            row = {"id": id, "condition": one.condition, "text": recognised.text}
            if recognised.words:
                row["words"] = [
                    {"word": word.text, "start": word.start, "end": word.end, "confidence": word.confidence}
                    for word in recognised.words
                ]
            rows.setdefault(one.system, []).append(plain(row))
    return rows


def utterance_rows(scores: Scores) -> Iterator[dict[str, Any]]:
    """One row an utterance and condition, for utterances.jsonl."""
    for condition in dict.fromkeys(one.condition for one in scores.outputs):
        outputs = [one for one in scores.outputs if one.condition == condition]
        for row, reference in enumerate(scores.references):
            yield {
                "id": reference.id,
                "set": reference.set,
                "condition": condition,
                "speaker": reference.speaker,
                "duration": reference.duration_seconds,
                "reference": scores.texts[row],
                "systems": {
                    one.system: {
                        "hypothesis": one.texts[row],
                        "missing": reference.id not in one.recognised,
                        "hits_substitutions_deletions_insertions": one.alignments.words[row].tolist(),
                    }
                    for one in outputs
                },
            }


def _tables(results: dict[str, Any]) -> dict[str, Any]:
    """What both templates lay out: names, and scores by (set, normaliser, system, condition)."""
    scores = results["scores"]
    names = {
        key: list(dict.fromkeys(row[key] for row in scores))
        for key in ("set", "normalizer", "system", "condition")
    }
    return {
        "sets": names["set"],
        "systems": names["system"],
        "conditions": names["condition"],
        "normalizers": names["normalizer"],
        "score": {(row["set"], row["normalizer"], row["system"], row["condition"]): row for row in scores},
        "detail": names["condition"][0],
        "unpaired": [
            row for row in results["pairing"] if row["missing"] or row["extra"] or row["duplicates"]
        ],
    }


def _point(x: float, wer: dict[str, Any]) -> plots.Point:
    low, high = (None if end is None else 100 * end for end in wer["interval"])
    return plots.Point(x, 100 * wer["value"], low, high)


def _plots(view: dict[str, Any]) -> dict[str, str]:
    """WER is drawn under the first normaliser."""
    sets, systems, detail, normalizer = view["sets"], view["systems"], view["detail"], view["normalizers"][0]
    score = {(key[0], *key[2:]): row for key, row in view["score"].items() if key[1] == normalizer}
    axis = f"WER %, normaliser {normalizer}"
    whole = EVERYTHING if EVERYTHING in sets else sets[0]
    places = [(name, name, detail) for name in sets]
    places += [(f"{whole}, {other}", whole, other) for other in view["conditions"] if other != detail]
    rows = []
    for label, name, condition in places:
        keys = [(name, system, condition) for system in systems if (name, system, condition) in score]
        values = [score[key]["wer"] for key in keys]
        rows.append((label, [_point(0, wer) for wer in values if wer["value"] is not None]))
    drawn = {"wer": plots.interval_plot(rows, axis)}
    levels = {c: float(c.partition(":")[2]) for c in view["conditions"] if c.startswith("noise:")}
    if len(levels) > 1:
        lines: dict[str, list[plots.Point]] = {}
        for system, (condition, level) in itertools.product(systems, levels.items()):
            row = score.get((whole, system, condition))
            if row and row["wer"]["value"] is not None:
                lines.setdefault(system, []).append(_point(level, row["wer"]))
        if lines:
            drawn["noise"] = plots.line_plot(lines, "signal over noise, dB", axis)
    if calibration := view["results"]["calibration"]:
        bins = {
            system: [(bin["confidence"], bin["accuracy"], bin["words"]) for bin in row["bins"]]
            for system, row in calibration.items()
        }
        drawn["reliability"] = plots.reliability_plot(bins)
    return drawn


def _page_rows(scores: Scores, folder: Path | None) -> list[list[Any]]:
    """Rows of the page's table: id, set, speaker, seconds, audio, words, and each system's alignment, errors
    and whether its text is missing.
    """
    detail = scores.outputs[0].condition
    outputs = [one for one in scores.outputs if one.condition == detail]
    errors = sum(one.alignments.words[:, SUBSTITUTIONS:].sum(axis=1) for one in outputs)
    worst = sorted(range(len(scores.references)), key=lambda row: (-int(errors[row]), row))[:_MOST_ROWS]
    sources = _audio_sources([scores.references[row] for row in worst], folder)
    rows = []
    for row, source in zip(worst, sources, strict=True):
        reference = scores.references[row]
        words = scores.texts[row].split()
        systems = [
            [
                _tokens(one.alignments.operations[row], words, one.texts[row].split()),
                int(one.alignments.words[row, SUBSTITUTIONS:].sum()),
                int(reference.id not in one.recognised),
            ]
            for one in outputs
        ]
        about = [reference.id, reference.set, reference.speaker, reference.duration_seconds]
        rows.append([*about, source, len(words), systems])
    return rows


def _tokens(operations: Sequence[Operation], words: list[str], recognised: list[str]) -> list[list[str]]:
    """[kind, said, recognised] of wrong words, and [kind, said] of each run of right ones."""
    tokens = []
    for operation in operations:
        if operation.kind == "equal":
            tokens.append(["=", " ".join(words[operation.reference_start : operation.reference_end])])
            continue
        for kind, said, instead in side_by_side([operation], words, recognised):
            tokens.append([_KINDS[kind], said or "", instead or ""])
    return tokens


def _audio_sources(references: list[Reference], folder: Path | None) -> list[str]:
    """For a player: the sound itself while there is room, then a link relative to the page's folder; ""
    without sound, and without a folder.
    """
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
        elif folder is None:
            sources.append("")
        else:
            link = Path(os.path.relpath(reference.audio, folder.absolute())).as_posix()
            if reference.end_seconds:
                link += f"#t={reference.start_seconds:g},{reference.end_seconds:g}"
            sources.append(link)
    return sources
