"""Plots as SVG text, coloured by the page's style sheet, so that they follow light and dark.

`standalone` makes a file of one, with a style sheet of its own.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path

WIDTH = 720
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 14, 42
_HEIGHT = 300
_FLOOR = _HEIGHT - _BOTTOM  # y of the horizontal axis
_COLOURS = 6  # classes s0 to s5 of the style sheet
_FIFTHS = (0, 0.2, 0.4, 0.6, 0.8, 1)
_SHADES = 9  # of a picture, white included
_STYLE = Path(__file__).parent / "templates" / "report.css"


@dataclass(frozen=True)
class Point:
    """A value at x with its interval."""

    x: float
    value: float
    low: float | None = None
    high: float | None = None


def colour(number: int) -> str:
    """Class of the style sheet for the system of that number."""
    return f"s{number % _COLOURS}"


def interval_plot(rows: Sequence[tuple[str, Sequence[Point]]], unit: str) -> str:
    """Dots with intervals along one axis: for each labelled row one point a system, in the systems' order."""
    label_width, row_height, gap = 150, 18, 14
    highest = _round_up(max((max(p.value, p.high or 0) for _, points in rows for p in points), default=1))
    height = sum(len(points) * row_height + gap for _, points in rows) + _BOTTOM
    floor = height - _BOTTOM

    def x(value: float) -> float:
        return label_width + (WIDTH - label_width - _RIGHT) * value / highest

    ticks = [highest * fifth for fifth in _FIFTHS]
    parts = [_line("grid", x(value), 4, x(value), floor) for value in ticks]
    parts += [_text("tick middle", x(value), floor + 18, f"{value:g}") for value in ticks]
    parts.append(_text("title middle", x(highest / 2), floor + 37, unit))
    y = 0.0
    for label, points in rows:
        y += gap
        parts.append(_text("label", label_width - 14, y + len(points) * row_height / 2, label))
        for number, point in enumerate(points):
            at = y + row_height * (number + 0.5)
            parts.append(f'<g class="{colour(number)}">')
            if point.low is not None and point.high is not None:
                parts.append(_line("range", x(point.low), at, x(point.high), at))
            parts.append(_circle(x(point.value), at, 4.5) + "</g>")
        y += len(points) * row_height
    return _svg(height, parts, f"{unit} with 95 % intervals")


def line_plot(lines: Mapping[str, Sequence[Point]], x_title: str, y_title: str) -> str:
    """A line with an interval band for each name; x runs from high to low, as noise grows."""
    points = [point for line in lines.values() for point in line]
    highest = _round_up(max(max(point.value, point.high or 0) for point in points))
    right, left = min(p.x for p in points), max(p.x for p in points)

    def x(value: float) -> float:
        return _LEFT + 30 + (WIDTH - _LEFT - _RIGHT - 60) * (left - value) / ((left - right) or 1)

    parts, y = _axes(highest, {at: f"{at:g}" for at in {point.x for point in points}}, x, x_title, y_title)
    for number, line in enumerate(lines.values()):
        line = sorted(line, key=lambda point: -point.x)
        tops = [(x(p.x), y(p.value if p.high is None else p.high)) for p in line]
        bottoms = [(x(p.x), y(p.value if p.low is None else p.low)) for p in reversed(line)]
        values = [(x(p.x), y(p.value)) for p in line]
        parts.append(f'<g class="{colour(number)}"><polygon points="{_path(tops + bottoms)}"/>')
        parts.append(f'<polyline points="{_path(values)}"/>')
        parts += [*(_circle(*at, 4) for at in values), "</g>"]
    return _svg(_HEIGHT, parts, f"{y_title} against {x_title}")


def reliability_plot(lines: Mapping[str, Sequence[tuple[float, float, int]]]) -> str:
    """For each name (confidence, accuracy, words) of its bins; the size of a dot shows how many words."""

    def x(value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * value

    ticks = {fifth: f"{fifth:.0%}" for fifth in _FIFTHS}
    parts, y = _axes(1.0, ticks, x, "confidence", "fraction of words right", "{:.0%}")
    parts.append(_line("ideal", x(0), y(0), x(1), y(1)))
    most = max((words for bins in lines.values() for _, _, words in bins), default=1)
    for number, bins in enumerate(lines.values()):
        path = _path((x(confidence), y(accuracy)) for confidence, accuracy, _ in bins)
        parts.append(f'<g class="{colour(number)}"><polyline points="{path}"/>')
        parts += [_circle(x(c), y(accuracy), 3 + 7 * (words / most) ** 0.5) for c, accuracy, words in bins]
        parts.append("</g>")
    return _svg(_HEIGHT, parts, "Reliability of confidence")


def panels_plot(
    panels: Mapping[str, Mapping[str, Sequence[Point]]], x_title: str, y_title: str, logarithmic: bool = False
) -> str:
    """Panels side by side with the same axes, in each a line with its band for each name; x begins at 0.

    A name has one colour in all panels. On a logarithmic axis values of 0 are left out.
    """
    gap, top = 18, 58
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    points = [point for lines in panels.values() for line in lines.values() for point in line]
    values = [v for p in points for v in (p.low, p.value, p.high) if v and math.isfinite(v)]
    if logarithmic:
        lowest, highest = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        powers = range(lowest, highest + 1, max(1, (highest - lowest) // 6))
        ticks = {10.0**power: f"1e{power}" if abs(power) > 2 else f"{10.0**power:g}" for power in powers}
    else:
        lowest, highest = 0.0, _round_up(max(values))
        ticks = {highest * fifth: f"{highest * fifth:g}" for fifth in _FIFTHS}
    right = _round_up(max(point.x for point in points))
    width = (WIDTH - _LEFT - _RIGHT - gap * (len(panels) - 1)) / len(panels)

    def y(value: float) -> float:
        place = math.log10(max(value, 10.0**lowest)) if logarithmic else value
        return top + (_FLOOR - top) * (highest - place) / ((highest - lowest) or 1)

    parts = [_text("tick end", _LEFT - 8, y(at) + 4, name) for at, name in ticks.items()]
    at = _LEFT
    for name in names:
        parts.append(f'<g class="{colour(names.index(name))}">{_circle(at + 5, 12, 4.5)}</g>')
        parts.append(_text("key", at + 14, 16, name))
        at += 34 + 6.6 * len(name)
    for number, (title, lines) in enumerate(panels.items()):
        left = _LEFT + number * (width + gap)

        def x(value: float, left: float = left) -> float:
            return left + width * value / right

        parts += [_line("grid", left, y(at), left + width, y(at)) for at in ticks]
        parts.append(_text("middle", left + width / 2, top - 14, title))
        parts += [
            _text("tick middle", x(right * half), _FLOOR + 18, f"{right * half:g}") for half in (0, 0.5)
        ]
        parts.append(_text("tick end", x(right), _FLOOR + 18, f"{right:g}"))
        for name, line in lines.items():
            line = [p for p in line if math.isfinite(p.value) and (p.value > 0 or not logarithmic)]
            tops = [(x(p.x), y(p.high)) for p in line if p.high is not None]
            bottoms = [(x(p.x), y(p.low)) for p in reversed(line) if p.low is not None]
            parts.append(f'<g class="{colour(names.index(name))}">')
            parts += [f'<polygon points="{_path(tops + bottoms)}"/>'] if tops else []
            parts.append(f'<polyline points="{_path((x(p.x), y(p.value)) for p in line)}"/></g>')
    parts.append(_text("title middle", (_LEFT + WIDTH - _RIGHT) / 2, _HEIGHT - 4, x_title))
    turned = f'class="title middle" transform="translate(9 {(_FLOOR + top) / 2:.0f}) rotate(-90)"'
    return _svg(_HEIGHT, [*parts, f"<text {turned}>{escape(y_title)}</text>"], f"{y_title} against {x_title}")


def attention_plot(
    features: Sequence[Sequence[float]],
    weights: Sequence[Sequence[float]],
    tokens: Sequence[str],
    seconds: float,
) -> str:
    """A spectrogram, and below it how much each token looks at each step of the same time.

    Args:
      features: [frames, mels], from low to high.
      weights: [tokens, steps].
      tokens: the text of each.
      seconds: of the whole width.
    """
    top, sound, row = 6, 120, 17
    left, width = _LEFT + 20, WIDTH - _LEFT - 20 - _RIGHT
    floor = top + sound + 10 + row * len(tokens)
    bands = [list(band) for band in zip(*features, strict=True)][::-1]
    parts = [_picture("s5", bands, left, top, width, sound)]
    parts.append(_picture("s0", weights, left, top + sound + 10, width, row * len(tokens)))
    parts.append(_text("title end", left - 8, top + sound / 2, "mel"))
    for number, token in enumerate(tokens):
        parts.append(_text("end", left - 8, top + sound + 22 + row * number, token))
    for number in range(len(tokens) + 1):
        at = top + sound + 10 + row * number
        parts.append(_line("grid", left, at, left + width, at))
    for at in range(int(seconds) + 1):
        parts.append(_text("tick middle", left + width * at / seconds, floor + 18, f"{at}"))
    parts.append(_text("title middle", left + width / 2, floor + 36, "seconds"))
    return _svg(floor + 42, parts, "What each token looks at")


def _picture(
    kind: str, rows: Sequence[Sequence[float]], left: float, top: float, width: float, height: float
) -> str:
    """Rows of values in shades between the least and the greatest, as runs of cells of one shade."""
    least, most = min(map(min, rows)), max(map(max, rows))
    runs: dict[int, list[str]] = {}
    for y, row in enumerate(rows):
        shades = [round((value - least) / ((most - least) or 1) * (_SHADES - 1)) for value in row]
        x = 0
        for shade, run in groupby(shades):
            count = len(list(run))
            runs.setdefault(shade, []).append(f"M{x} {y}.5h{count}")
            x += count
    runs.pop(0, None)
    paths = "".join(
        f'<path stroke-opacity="{shade / (_SHADES - 1):.2f}" d="{"".join(path)}"/>'
        for shade, path in sorted(runs.items())
    )
    scale = f"{width / len(rows[0]):.4f} {height / len(rows):.4f}"
    return f'<g class="cells {kind}" transform="translate({left} {top}) scale({scale})">{paths}</g>'


def standalone(svg: str) -> str:
    """One of the plots as a file of its own, with the colours of the page and its rules for plots."""
    colours, _, rules = _STYLE.read_text(encoding="utf-8").partition("\n}\n* {")
    rules = [line for line in rules.splitlines() if line.startswith((".s0 ", ".s3 ", "svg"))]
    start, rest = svg.split(">", 1)
    style = "\n".join([colours, "}", *rules])
    return f'{start} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{rest}\n'


def _round_up(value: float) -> float:
    """The next round number, for the end of an axis."""
    if value <= 0:
        return 1.0
    power = 10.0 ** (math.ceil(math.log10(value)) - 1)
    return next(power * step for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if power * step >= value)


def _axes(
    highest: float,
    x_ticks: Mapping[float, str],
    x: Callable[[float], float],
    x_title: str,
    y_title: str,
    y_format: str = "{:g}",
) -> tuple[list[str], Callable[[float], float]]:
    """Grid, ticks and titles, and the function from a value to its y."""

    def y(value: float) -> float:
        return _TOP + (_FLOOR - _TOP) * (1 - value / highest)

    parts = []
    for value in (highest * fifth for fifth in _FIFTHS):
        parts.append(_line("grid", _LEFT, y(value), WIDTH - _RIGHT, y(value)))
        parts.append(_text("tick end", _LEFT - 8, y(value) + 4, y_format.format(value)))
    parts += [_text("tick middle", x(at), _FLOOR + 18, name) for at, name in sorted(x_ticks.items())]
    parts.append(_text("title middle", (_LEFT + WIDTH - _RIGHT) / 2, _HEIGHT - 4, x_title))
    turned = f'class="title middle" transform="translate(13 {_FLOOR / 2}) rotate(-90)"'
    return [*parts, f"<text {turned}>{escape(y_title)}</text>"], y


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _circle(x: float, y: float, radius: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _svg(height: float, parts: Sequence[str], title: str) -> str:
    start = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
    return start + "".join(parts) + "</svg>"
