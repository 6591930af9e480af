"""What a run says: progress on a terminal, and the summary on standard output."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import track

from training.scoring.measures import tally
from training.scoring.report import interval_text, p_text, percent, rate_text


def progress(title: str) -> Callable[[Sequence], Iterable]:
    """Wraps a sequence in a progress bar on standard error, if that is a terminal."""
    console = Console(stderr=True)
    return partial(track, description=title, console=console, disable=not console.is_terminal, transient=True)


def summary(results: dict[str, Any], speed: Sequence[dict[str, Any]]) -> str:
    """Error rates with intervals and counts, how systems differ, speed, and what was not scored."""
    refs = results["references"]
    detail = results["pairing"][0]["condition"]
    lines = [
        f"{refs['scored']} of {refs['given']} utterances scored, {refs['speakers']} speakers",
        *(
            f"normaliser {one['name']}: {one['what']}; {one['words']} words, {one['empty']} empty references"
            for one in results["normalizers"]
        ),
    ]
    if refs["not_scored"]:
        lines.append(f"not scored: {len(refs['not_scored'])}, such as {refs['not_scored'][0]['reason']}")
    for row in results["pairing"]:
        kinds = {
            "missing": "missing hypotheses (all their words count as deleted)",
            "extra": "that no reference asks for",
            "duplicates": "ids given again (the first counts)",
        }
        faults = [f"{len(row[kind])} {what}" for kind, what in kinds.items() if row[kind]]
        if faults:
            lines.append(f"{row['system']}, {row['condition']}: {', '.join(faults)}")
    lines += table(
        ["set", "normaliser", "system", "condition", "WER %", "95 % interval", "", "CER %", "SER %"],
        [
            [
                *(
                    row["set"],
                    row["normalizer"],
                    row["system"],
                    row["condition"],
                    percent(row["wer"]["value"]),
                ),
                *(interval_text(row["wer"]["interval"]), tally(row["counts"])),
                *(percent(row["cer"]["value"]), percent(row["ser"]["value"], 1)),
            ]
            for row in results["scores"]
        ],
    )
    lines += table(
        ["set", "normaliser", "systems", "ΔWER", "95 % interval", "p bootstrap", "p MAPSSWE"],
        [
            [
                *(row["set"], row["normalizer"], " − ".join(row["systems"]), percent(row["difference"])),
                *(interval_text(row["interval"]), p_text(row["bootstrap_p"]), p_text(row["mapsswe"]["p"])),
            ]
            for row in results["comparisons"]
            if row["condition"] == detail
        ],
    )
    if results["cased"]:
        lines += _cased(results["cased"])
    speeds = ("real_time_factor", "{:.4f}"), ("cold_start_seconds", "{:.2f}"), ("peak_memory_mb", "{:.0f}")
    lines += table(
        ["system", "real-time factor", "cold start, s", "peak memory, MB"],
        [[row["system"], *(form.format(row[name]) for name, form in speeds)] for row in speed],
    )
    return "\n".join(lines)


def _cased(cased: dict[str, Any]) -> list[str]:
    scored = f"{cased['utterances']} utterances; {cased['left_out']} without text_cased are left out"
    lines = ["", f"capitals and punctuation: {scored}"]
    lines += table(
        ["set", "system", "condition", "WER %, as written", "95 % interval", ""],
        [
            [
                *(row["set"], row["system"], row["condition"], percent(row["wer"]["value"])),
                *(interval_text(row["wer"]["interval"]), tally(row["counts"])),
            ]
            for row in cased["scores"]
        ],
    )
    head = ["set", "system", "condition", "mark", "precision %", "recall %", "F1 %"]
    lines += table(
        [*head, "in both", "recognised", "written"],
        [
            [
                *(row["set"], row["system"], row["condition"], row["mark"]),
                *(rate_text(row[rate]) for rate in ("precision", "recall", "f1")),
                *(str(row[name]) for name in ("both", "recognised", "written")),
            ]
            for row in cased["marks"]
        ],
    )
    return lines


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines with aligned columns, after an empty one; none without rows."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]
    return ["", *lines] if rows else []
