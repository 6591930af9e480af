"""The numbers of `hark benchmark sequence-models` as JSON, tables and figures, and into the docs."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asr.files import write_whole
from training.benchmarks.attention import Gaze
from training.scoring.plots import Point, attention_plot, panels_plot, standalone
from training.scoring.report import interval_text, percent, rate_text

NAME = "sequence-models"  # of the page, its numbers and its figures
BOTH, FREE = ", two directions", ", not clipped"
BASELINE = "LSTM" + BOTH
ATTENTION = "LSTM with attention"
DECODER = ATTENTION + ": decoder"
CELLS = ("simple RNN", "LSTM", "GRU")
BIN = 20  # training steps that a point of a figure stands for
TABLED_SECONDS = (0.2, 0.5, 1.0, 2.0)  # distances of the table of gradients
SMALLEST = 1e-10  # of the figure of gradients
FRAME_STEP = 2  # every second frame of the spectrogram is drawn: 20 ms


def write_report(results: dict[str, Any], looked: Gaze | None, output: Path, docs: Path | None) -> None:
    """Writes the JSON, the page's tables and the figures into `output`, and into the docs if they are given.

    Args:
      results: plain data.
      looked: what the decoder looked at in one utterance.
      docs: folder of the page; its tables are replaced, its figures and its numbers in results/ written.

    Raises ValueError where the page has no place for a table.
    """
    drawn = {name: standalone(svg) for name, svg in figures(results, looked).items()}
    text = as_json(results)
    write_whole(output / "results.json", text)
    write_whole(output / "tables.md", "\n\n".join(tables(results).values()) + "\n")
    for name, svg in drawn.items():
        write_whole(output / f"{NAME}-{name}.svg", svg)
    if docs is None:
        return
    page = docs / f"{NAME}.md"
    write_whole(page, filled(page.read_text(encoding="utf-8"), results))
    write_whole(docs / "results" / f"{NAME}.json", text)
    for name, svg in drawn.items():
        write_whole(docs / f"{NAME}-{name}.svg", svg)


def as_json(results: dict[str, Any]) -> str:
    """One value a line, lists of numbers on one."""
    text = json.dumps(results, ensure_ascii=False, indent=1)
    return re.sub(r"\[[^][{}\"]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def filled(page: str, results: dict[str, Any]) -> str:
    """The page with each table between its marks, <!-- NAME --> and <!-- /NAME -->."""
    for name, content in tables(results).items():
        marks = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, found, rest = page.partition(marks[0])
        _, closed, after = rest.partition(marks[1])
        if not found or not closed:
            raise ValueError(f"{NAME}.md: has no place for a table: {marks[0]} and {marks[1]}")
        page = f"{before}{marks[0]}\n{content}\n{marks[1]}{after}"
    return page


def tables(results: dict[str, Any]) -> dict[str, str]:
    """By name, Markdown of the tables."""
    return {
        "run": _run(results),
        "models": "\n".join(_models(results)),
        "reach": "\n".join(_reach(results)),
        "clipping": "\n".join(_clipping(results)),
        "words": "\n".join(_words(results["language_models"])),
    }


def _run(results: dict[str, Any]) -> str:
    training, tested, header = results["training"], results["references"], results["header"]
    unit, words = results["scores"][0]["resampled_by"], results["scores"][0]["counts"]["words"]
    return (
        f"{training['set']}: {training['utterances']} utterances, {training['epochs']} epochs. "
        f"{tested['set']}: {tested['scored']} utterances, {words} words, {tested['speakers']} speakers; "
        f"nothing was chosen by it. Normaliser `basic`; intervals are of 95 % and resample {unit}s. "
        f"{header['hardware']}; {header['versions']}; commit {header['commit']}; {header['date']}.\n\n"
        f"    {header['command']}"
    )


def _scores(results: dict[str, Any]) -> dict[str, Any]:
    return {one["system"]: one for one in results["scores"]}


def _difference(results: dict[str, Any], first: str, second: str) -> str:
    """WER of the first minus that of the second in points, with its interval."""
    for one in results["comparisons"]:
        if set(one["systems"]) == {first, second}:
            sign = 1 if one["systems"] == [first, second] else -1
            interval = sorted(sign * end for end in one["interval"])
            return f"{percent(sign * one['difference'], 1)} ({interval_text(interval, 1)})"
    return "–"


def _models(results: dict[str, Any]) -> Iterator[str]:
    scores, rows = _scores(results), []
    for model in results["models"]:
        name = model["name"]
        if name.endswith(FREE):
            continue
        size = f"{model['parameters'] / 1e6:.2f} M" if "parameters" in model else "–"
        cells = [size, f"{model['step_milliseconds']:.0f}"]
        for system in [name, DECODER] if name == ATTENTION else [name]:
            if system in scores:
                counts = scores[system]["counts"]
                wer = [rate_text(scores[system]["wer"]), f"{counts['errors']} / {counts['words']}"]
                rows.append([system, *cells, *wer, _difference(results, system, BASELINE)])
            else:
                rows.append([system, *cells, "did not converge", "", ""])
    head = [
        "",
        "parameters",
        "ms a step",
        "WER %",
        "errors / words",
        f"points more than {BASELINE}",
    ]
    return markdown(head, rows)


def _reach(results: dict[str, Any]) -> Iterator[str]:
    rows = []
    for model in results["models"]:
        for when, norms in model.get("reach", {}).items():
            places = [round(seconds / model["step_seconds"]) for seconds in TABLED_SECONDS]
            when = "at the start" if when == "start" else "after training"
            rows.append([model["name"], when, *(_small(norms[at] / norms[0]) for at in places)])
    return markdown(["", "", *(f"{seconds:g} s" for seconds in TABLED_SECONDS)], rows)


def _small(value: float) -> str:
    return f"{value:.2f}" if value >= 0.01 else f"{value:.0e}"


def _clipping(results: dict[str, Any]) -> Iterator[str]:
    scores, models = _scores(results), _models_by_name(results)
    rows = []
    for name in _clipped_and_free(models):
        for system in (name, name + FREE):
            model = models[system]
            wer = rate_text(scores[system]["wer"]) if system in scores else "did not converge"
            norm = f"{model['largest_norm']:.0f}" if model["largest_norm"] is not None else "infinite"
            difference = _difference(results, name, name + FREE) if system == name else ""
            rows.append([system, percent(model["above_limit"], 0), norm, wer, difference])
    head = ["", "steps above the limit %", "largest norm", "WER %", "points more than not clipped"]
    return markdown(head, rows)


def _models_by_name(results: dict[str, Any]) -> dict[str, Any]:
    return {model["name"]: model for model in results["models"]}


def _clipped_and_free(models: Mapping[str, Any]) -> list[str]:
    """The cells that were trained with and without clipping."""
    return [name for name in CELLS if name in models and name + FREE in models]


def _words(words: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{words['training_words']:,} words of text, of which the models know the {words['vocabulary']:,} "
        f"that occur often enough. Measured on {words['held_out_sentences']:,} sentences with "
        f"{words['held_out_words']:,} words, {words['held_out_unknown']:,} of them unknown.\n"
    )
    rows = []
    for model in words["models"]:
        size = f"{model['parameters'] / 1e6:.2f} M" if model["parameters"] else ""
        time = f"{model['step_milliseconds']:.0f}" if "step_milliseconds" in model else ""
        low, high = model["interval"]
        rows.append([model["name"], size, time, f"{model['perplexity']:.0f} ({low:.0f}–{high:.0f})"])
    yield from markdown(["", "parameters", "ms a step", "perplexity"], rows)


def figures(results: dict[str, Any], looked: Gaze | None) -> dict[str, str]:
    """By name, SVG of the figures, each of those models that there are."""
    models = _models_by_name(results)
    learning = {
        "one direction": {name: name for name in CELLS},
        "two directions": {name: name + BOTH for name in CELLS},
        "with attention": {name: name for name in (ATTENTION, "Transformer", "Conformer")},
    }
    curves = {
        title: {name: _curve(models[model]["epochs"]) for name, model in lines.items() if model in models}
        for title, lines in learning.items()
    }
    states = {
        "at the start": ("start", ""),
        "after training": ("after", ""),
        "after training, not clipped": ("after", FREE),
    }
    reached = {
        title: {
            name: _reached(models[name + suffix], when)
            for name in (*CELLS, "Transformer", "Conformer")
            if when in models.get(name + suffix, {}).get("reach", {})
        }
        for title, (when, suffix) in states.items()
    }
    distance, relative = "d, seconds before the loss", "gradient, relative to d = 0"
    drawn = {
        "wer": panels_plot(curves, "epoch", "WER in %"),
        "gradients": panels_plot(reached, distance, relative, logarithmic=True),
        "words": panels_plot({"": _word_curves(results["language_models"])}, "epoch", "perplexity"),
    }
    for name, key, title in (("norms", "gradient_norms", "norm of the gradient"), ("loss", "losses", "loss")):
        lines = {
            cell: {
                "clipped": _summary(models[cell][key]),
                "not clipped": _summary(models[cell + FREE][key]),
            }
            for cell in _clipped_and_free(models)
        }
        drawn[name] = panels_plot(lines, "training step", title, logarithmic=True)
    if looked is not None:
        features, weights = looked.features[::FRAME_STEP].tolist(), looked.weights.tolist()
        drawn["attention"] = attention_plot(features, weights, looked.tokens, looked.seconds)
    return drawn


def _curve(values: list[float]) -> list[Point]:
    return [Point(epoch, value) for epoch, value in enumerate(values, start=1)]


def _reached(model: Mapping[str, Any], when: str) -> list[Point]:
    norms, step = model["reach"][when], model["step_seconds"]
    relative = [(step * distance, norm / norms[0]) for distance, norm in enumerate(norms)]
    return [Point(seconds, value) for seconds, value in relative if value >= SMALLEST]


def _summary(parts: list[list[float | None]]) -> list[Point]:
    return [
        Point(BIN * (number + 0.5), median, low, high)
        for number, (low, median, high) in enumerate(parts)
        if None not in (low, median, high)
    ]


def _word_curves(words: dict[str, Any]) -> dict[str, list[Point]]:
    """Perplexity after each epoch; of a model that is not trained by epochs a level line."""
    epochs = max(len(model.get("epochs", ())) for model in words["models"])
    return {
        model["name"]: _curve(model.get("epochs") or [model["perplexity"]] * epochs)
        for model in words["models"]
    }


def markdown(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Lines of a table."""
    yield from (f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])
