"""The front, the plot and its names."""

from __future__ import annotations

import itertools
import random
import re
import statistics
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from prunec.comparison.frame import BOTTOM, TOP
from prunec.comparison.names import apart
from prunec.comparison.page import left_out, notices
from prunec.comparison.pareto import pareto_front
from prunec.comparison.plot import RADIUS, SMALL, inline_panels, legend, plot_file
from prunec.comparison.results import Result, Row
from prunec.comparison.tables import share_text
from prunec.comparison.ticks import accuracy_ticks, cost_ticks, sparsity_ticks


def test_the_front_is_what_brute_force_finds() -> None:
    generator = random.Random(0)
    for count in (0, 1, 2, 5, 30):
        for _ in range(40):
            points = [(generator.randrange(9) + 0.0, generator.randrange(9) + 0.0)
                      for _ in range(count)]  # fmt: skip
            wanted = {
                i for i, (cost, gain) in enumerate(points)
                if not any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)
            }  # fmt: skip
            actual = pareto_front(points)
            assert set(actual) == wanted
            assert len(actual) == len(wanted)
            assert [points[i][0] for i in actual] == sorted(points[i][0] for i in actual)


def row(method: str, sparsity: float, accuracy: float) -> Row:
    left = 1 - sparsity / 2  # of what a device pays
    return Row(method, sparsity, 3, 3, 3, 0, accuracy, 0.5, sparsity, 1e6 * left,
               1e6 * (1 - sparsity), 1e3, 1e3, 1e3 * left, left, 60.0)  # fmt: skip


@pytest.mark.slow
def test_the_same_results_give_the_same_picture() -> None:
    rows = [row(f"m{i}", s, 90 - i - 5 * s) for i in range(14) for s in (0.0, 0.9, 1.0)]
    assert plot_file(rows) == plot_file(rows)
    for panel in inline_panels(rows):
        ET.fromstring(panel)
        assert not re.search("#[0-9a-f]{6}|style=", panel)  # the page's colours, by its classes
    assert "var(" not in plot_file(rows)  # what is no browser may not know variables


def test_roundings_of_one_sparsity_lie_above_each_other() -> None:
    """One is 0.90014, the other 0.9: a spread's counts are whole numbers."""
    picture = plot_file([row("gmp", 0.90014, 66.0), row("rigl", 0.9, 77.0)])
    marks = [
        float(re.findall(rf'cx="([\d.]+)"[^>]*><title>{name}: sparsity', picture)[0])
        for name in ("gmp", "rigl")
    ]
    width = float(re.findall(r'width="([\d.]+)"', picture)[0])
    assert abs(marks[0] - marks[1]) < 0.01 * width


def test_names_are_moved_apart_and_keep_their_order() -> None:
    generator = random.Random(0)
    for _ in range(100):
        heights = {str(i): generator.random() for i in range(generator.randrange(1, 14))}
        moved = apart(heights, 0.05)
        order = sorted(heights, key=lambda name: heights[name])
        for lower, upper in itertools.pairwise(order):
            assert moved[upper] - moved[lower] >= 0.05 - 1e-9
        assert statistics.fmean(moved.values()) == pytest.approx(statistics.fmean(heights.values()))
    assert apart({"a": 0.1, "b": 0.9}, 0.05) == pytest.approx({"a": 0.1, "b": 0.9})


def test_names_do_not_touch_in_panels_of_any_height() -> None:
    rows = [row(f"m{i}", s, 90 - i / 100 - 5 * s) for i in range(6) for s in (0.0, 0.9)]
    for panel in re.split("<g ", plot_file(rows))[1:]:
        places = re.findall(r'<text [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*>m\d</text>', panel)
        heights = sorted(float(y) for _, y in places)
        assert len(heights) == 6
        assert min(b - a for a, b in itertools.pairwise(heights)) > 1.1 * 12
        beside = min(float(x) for x, _ in places)  # no point lies under a name
        marks = re.findall(r'<circle class="touch" cx="([\d.]+)"', panel)
        assert marks
        assert max(map(float, marks)) + RADIUS < beside


def test_every_mark_lies_within_the_picture() -> None:
    extremes = [(s, a) for s in (0.0, 0.5, 0.999, 1.0) for a in (0.0, 50.0, 99.999, 100.0)]
    for rows in (*([row("m", *one)] for one in extremes), [row("m", *one) for one in extremes]):
        for panel in inline_panels(rows):
            drawn = ET.fromstring(panel)
            width, height = map(float, (drawn.get("viewBox") or "").split()[2:])
            for node in drawn.iter():
                if "touch" in node.get("class", ""):
                    x, y = float(node.get("cx", "nan")), float(node.get("cy", "nan"))
                    assert RADIUS < x < width - RADIUS
                    assert TOP + RADIUS < y < height - BOTTOM - RADIUS


def test_the_dense_network_is_a_line_across() -> None:
    dense = replace(row("dense", 0.0, 92.0), asked=None)
    for panel in inline_panels([dense, row("gmp", 0.9, 90.0)]):
        drawn = ET.fromstring(panel)
        (line,) = (n for n in drawn.iter() if n.get("class", "").startswith("whole"))
        assert line.get("y1") == line.get("y2")
        assert float(line.get("x2", 0)) - float(line.get("x1", 0)) == SMALL[0]
    assert [name for _, name in legend([dense, row("gmp", 0.9, 90.0)])] == ["dense", "gmp"]


def test_costs_are_axes_where_they_are_known() -> None:
    """Zeros lower one of four costs: who looks at that alone takes a large file for a small one."""
    known = row("gdp", 0.5, 90.0)
    assert len(inline_panels([known])) == 5
    assert len(inline_panels([replace(known, latency=None, bytes=None)])) == 3


def test_marks_are_round_and_apart() -> None:
    assert [text for _, text in sparsity_ticks(-0.1, 4.1)] == ["0", "90", "99", "99.9", "99.99"]
    assert "1 M" in [text for _, text in cost_ticks(-7.2, -4.0)]
    marks = [text for _, text in accuracy_ticks(88.2, 92.9, lambda value: value)]
    assert "90" in marks


def test_a_reader_is_told_what_lies_nowhere_among_the_macs() -> None:
    rows = [row("gmp", 0.9, 80), row("gmp", 1.0, 10)]
    assert left_out(rows[:1]) == ""
    assert left_out(rows) == "Not among the non-zero MACs: gmp at 100.000 %, which have none."


def test_a_reader_is_told_of_different_precisions() -> None:
    cells = [Result("a", 0.5, seed, "done", True, precision="fp32") for seed in range(3)]
    assert notices(cells) == []
    (told,) = notices([*cells, Result("b", 0.5, 0, "done", True, precision="bf16")])
    assert "--set train.precision=fp32" in told


def test_shares_are_told_from_each_other() -> None:
    texts = [share_text(s) for s in (0.0, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 0.99999)]
    assert len(set(texts)) == len(texts)


def test_every_mean_its_deviation_and_the_front_are_drawn() -> None:
    rows = [row(f"m{i}", s, 90 - i - 5 * s) for i in range(7) for s in (0.0, 0.9)]
    rows.append(replace(row("empty", 1.0, 10), nonzero_macs=0.0))
    counts = []
    for panel in inline_panels(rows):
        drawn = ET.fromstring(panel)
        kinds = [(node, node.get("class", "").split()) for node in drawn.iter()]
        told = [node[0].text for node, kind in kinds if "touch" in kind]
        assert {told[0], told[1]} & {
            "m0: sparsity 90.0 %, accuracy 85.50 ± 0.50 %",
            "m0: 100 k non-zero MACs, accuracy 85.50 ± 0.50 %",
            "m0: 550 k MACs, accuracy 85.50 ± 0.50 %",
            "m0: 550 B in the file, accuracy 85.50 ± 0.50 %",
            "m0: 0.55 of the dense latency, accuracy 85.50 ± 0.50 %",
        }
        assert sum("marker" in kind for _, kind in kinds) == len(told)
        assert sum("bar" in kind for _, kind in kinds) == 3 * len(told)
        assert sum("curve" in kind for _, kind in kinds) == 7
        assert sum("dashed" in kind for _, kind in kinds) == 1  # the seventh has the first's tone
        texts = {node.text for node in drawn.iter() if node.tag.endswith("}text")}
        assert {"Pareto front", "accuracy on the test images, %"} <= texts
        (front,) = (node.get("d", "") for node, kind in kinds if "front" in kind and node.get("d"))
        places = {
            (node.get("cx"), node.get("cy"))
            for node, kind in kinds
            if "touch" in kind and (node[0].text or "").startswith("m0")
        }
        assert all(f"{x},{y}" in front for x, y in places)
        counts.append(len(told))
    assert counts == [15, 14, 15, 15, 15]  # without MACs there is no place among them


def test_a_comparison_without_results_has_empty_axes() -> None:
    assert all("no results yet" in picture for picture in (*inline_panels([]), plot_file([])))
