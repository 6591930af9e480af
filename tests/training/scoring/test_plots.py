"""training/scoring/plots.py: where the values of a figure are drawn, read back from its SVG."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from training.scoring.plots import Point, attention_plot, panels_plot, standalone

SVG = "{http://www.w3.org/2000/svg}"


def polylines(svg: str) -> list[np.ndarray]:
    """The points of each line, [points, 2]."""
    found = ElementTree.fromstring(standalone(svg)).iter(f"{SVG}polyline")
    return [np.array([point.split(",") for point in line.get("points").split()], float) for line in found]


def test_panels_share_their_axes():
    rising = [Point(1, 10), Point(2, 20), Point(4, 40)]
    [first], [second] = (
        polylines(panels_plot({"": {"a": line}}, "x", "y")) for line in (rising, rising[::2])
    )
    steps = np.diff(first, axis=0)
    assert steps[1] == pytest.approx(2 * steps[0], abs=0.2)  # coordinates have one digit
    assert steps[0, 0] > 0 > steps[0, 1]  # upwards, since y grows downwards
    np.testing.assert_array_equal(second, first[::2])
    left, right = polylines(panels_plot({"left": {"a": rising}, "right": {"a": rising}}, "x", "y"))
    np.testing.assert_array_equal(left[:, 1], right[:, 1])
    assert left[-1, 0] < right[0, 0]


def test_equal_ratios_are_equal_distances_on_a_logarithmic_axis():
    points = [Point(0, 1.0), Point(1, 0.1), Point(2, 0.01), Point(3, 0.0)]
    [line] = polylines(panels_plot({"": {"a": points}}, "x", "y", logarithmic=True))
    assert len(line) == 3  # 0 is nowhere
    assert np.diff(line[:, 1]) == pytest.approx(np.diff(line[:2, 1])[[0, 0]], abs=0.2)


def test_a_name_has_one_colour_in_all_panels():
    line = [Point(0, 1), Point(1, 2)]
    svg = panels_plot({"left": {"a": line, "b": line}, "right": {"b": line}}, "x", "y")
    assert re.findall(r'<g class="(s\d)"><polyline', svg) == ["s0", "s1", "s1"]


def test_attention_has_a_cell_for_every_weight():
    weights = np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
    svg = attention_plot(np.eye(3).tolist(), weights.tolist(), ["one", "<two>"], 4.0)
    root = ElementTree.fromstring(standalone(svg))
    _, picture = (group for group in root.iter(f"{SVG}g") if "cells" in group.get("class", ""))
    shades = {path.get("stroke-opacity"): path.get("d") for path in picture}
    assert shades == {"0.50": "M2 1.5h2", "1.00": "M1 0.5h1"}
    assert "<two>" in [text.text for text in root.iter(f"{SVG}text")]


def test_a_figure_brings_its_colours():
    [style] = ElementTree.fromstring(standalone(attention_plot([[0.0, 1.0]], [[1.0]], ["a"], 1.0))).iter(
        f"{SVG}style"
    )
    assert style.text.count("{") == style.text.count("}")
    assert "prefers-color-scheme: dark" in style.text and "--s5" in style.text
    assert "svg polyline" in style.text and "body" not in style.text
