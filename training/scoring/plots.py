"""Plots as SVG text, coloured by the page's style sheet, so that they follow light and dark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 720
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 14, 42
_HEIGHT = 300
_COLOURS = 6  # classes s0 to s5 of the style sheet


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
    plot_width = WIDTH - label_width - _RIGHT

    def x(value: float) -> float:
        return label_width + plot_width * value / highest

    parts = _grid_x(highest, x, height - _BOTTOM, unit)
    y = 0.0
    for label, points in rows:
        y += gap
        middle = y + len(points) * row_height / 2
        parts.append(f'<text class="label" x="{label_width - 14}" y="{middle:.1f}">{escape(label)}</text>')
        for number, point in enumerate(points):
            at = y + row_height * (number + 0.5)
            parts.append(f'<g class="{colour(number)}">')
            if point.low is not None and point.high is not None:
                low, high = x(point.low), x(point.high)
                parts.append(
                    f'<line class="range" x1="{low:.1f}" x2="{high:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>'
                )
            parts.append(f'<circle cx="{x(point.value):.1f}" cy="{at:.1f}" r="4.5"/></g>')
        y += len(points) * row_height
    return _svg(height, parts, f"{unit} with 95 % intervals")


def line_plot(lines: Mapping[str, Sequence[Point]], x_title: str, y_title: str) -> str:
    """A line with an interval band for each name; x runs from high to low, as noise grows."""
    points = [point for line in lines.values() for point in line]
    highest = _round_up(max(max(point.value, point.high or 0) for point in points))
    right, left = min(p.x for p in points), max(p.x for p in points)

    def x(value: float) -> float:
        return _LEFT + 30 + (WIDTH - _LEFT - _RIGHT - 60) * (left - value) / ((left - right) or 1)

    y = _y_scale(highest)
    parts = _grid_y(highest, y)
    for at in sorted({point.x for point in points}):
        parts.append(f'<text class="tick middle" x="{x(at):.1f}" y="{_HEIGHT - _BOTTOM + 18}">{at:g}</text>')
    for number, line in enumerate(lines.values()):
        line = sorted(line, key=lambda point: -point.x)
        tops = [f"{x(p.x):.1f},{y(p.value if p.high is None else p.high):.1f}" for p in line]
        bottoms = [f"{x(p.x):.1f},{y(p.value if p.low is None else p.low):.1f}" for p in reversed(line)]
        path = " ".join(f"{x(p.x):.1f},{y(p.value):.1f}" for p in line)
        parts.append(f'<g class="{colour(number)}"><polygon points="{" ".join(tops + bottoms)}"/>')
        parts.append(f'<polyline points="{path}"/>')
        parts += [f'<circle cx="{x(p.x):.1f}" cy="{y(p.value):.1f}" r="4"/>' for p in line]
        parts.append("</g>")
    return _svg(_HEIGHT, parts + _titles(x_title, y_title), f"{y_title} against {x_title}")


def reliability_plot(lines: Mapping[str, Sequence[tuple[float, float, int]]]) -> str:
    """For each name (confidence, accuracy, words) of its bins, against the diagonal; dots grow with their
    words.
    """

    def x(value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * value

    y = _y_scale(1.0)
    parts = _grid_y(1.0, y, percent=True)
    for at in (0, 0.2, 0.4, 0.6, 0.8, 1):
        parts.append(
            f'<text class="tick middle" x="{x(at):.1f}" y="{_HEIGHT - _BOTTOM + 18}">{at:.0%}</text>'
        )
    parts.append(f'<line class="ideal" x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}"/>')
    most = max((words for bins in lines.values() for _, _, words in bins), default=1)
    for number, bins in enumerate(lines.values()):
        path = " ".join(f"{x(confidence):.1f},{y(accuracy):.1f}" for confidence, accuracy, _ in bins)
        parts.append(f'<g class="{colour(number)}"><polyline points="{path}"/>')
        for confidence, accuracy, words in bins:
            radius = 3 + 7 * (words / most) ** 0.5
            parts.append(f'<circle cx="{x(confidence):.1f}" cy="{y(accuracy):.1f}" r="{radius:.1f}"/>')
        parts.append("</g>")
    return _svg(_HEIGHT, parts + _titles("confidence", "share of words right"), "Reliability of confidence")


def _round_up(value: float) -> float:
    """The next number with which an axis ends well."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 < value:
        power *= 10
    while power >= value:
        power /= 10
    return next(power * step for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if power * step >= value)


def _y_scale(highest: float):
    return lambda value: _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - value / highest)


def _grid_y(highest: float, y, percent: bool = False) -> list[str]:
    parts = []
    for fifth in range(6):
        value = highest * fifth / 5
        text = f"{value:.0%}" if percent else f"{value:g}"
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        )
        parts.append(f'<text class="tick end" x="{_LEFT - 8}" y="{y(value) + 4:.1f}">{text}</text>')
    return parts


def _grid_x(highest: float, x, bottom: float, unit: str) -> list[str]:
    parts = []
    for fifth in range(6):
        value = highest * fifth / 5
        parts.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="4" y2="{bottom:.1f}"/>')
        parts.append(f'<text class="tick middle" x="{x(value):.1f}" y="{bottom + 18:.1f}">{value:g}</text>')
    middle = (x(0) + x(highest)) / 2
    return [
        *parts,
        f'<text class="title middle" x="{middle:.1f}" y="{bottom + 37:.1f}">{escape(unit)}</text>',
    ]


def _titles(x_title: str, y_title: str) -> list[str]:
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    return [
        f'<text class="title middle" x="{middle}" y="{_HEIGHT - 4}">{escape(x_title)}</text>',
        f'<text class="title middle" transform="translate(13 {(_HEIGHT - _BOTTOM) / 2}) rotate(-90)">'
        f"{escape(y_title)}</text>",
    ]


def _svg(height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )
