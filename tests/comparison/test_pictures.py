"""The front, the plot and its names."""

from __future__ import annotations

import itertools
import random
import re
import statistics
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from prunec.comparison.names import apart
from prunec.comparison.page import left_out, notices
from prunec.comparison.pareto import pareto_front
from prunec.comparison.plot import inline_panels, plot_file
from prunec.comparison.results import Result, Row
from prunec.comparison.tables import share_text
from prunec.comparison.ticks import accuracy_ticks, mac_ticks, sparsity_ticks


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
            found = pareto_front(points)
            assert set(found) == wanted
            assert len(found) == len(wanted)
            assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


def row(method: str, sparsity: float, accuracy: float) -> Row:
    return Row(method, sparsity, 3, 3, 3, 0, accuracy, 0.5, sparsity, 1e6, 1e6 * (1 - sparsity),
               1e3, 1e3, 1e3, 60.0)  # fmt: skip


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
    for picture in (*inline_panels(rows), plot_file(rows)):
        places = re.findall(r'<text [^>]*y="([\d.]+)"[^>]*>m\d</text>', picture)
        assert len(places) % 6 == 0
        heights = sorted({float(place) for place in places})
        assert len(heights) == 6
        assert min(b - a for a, b in itertools.pairwise(heights)) > 1.1 * 12


def test_marks_are_round_and_apart() -> None:
    assert [text for _, text in sparsity_ticks(-0.1, 4.1)] == ["0", "90", "99", "99.9", "99.99"]
    assert "1 M" in [text for _, text in mac_ticks(-7.2, -4.0)]
    marks = [text for _, text in accuracy_ticks(88.2, 92.9, lambda value: value)]
    assert "90" in marks


def test_a_reader_is_told_what_lies_nowhere_among_the_macs() -> None:
    rows = [row("gmp", 0.9, 80), row("gmp", 1.0, 10)]
    assert left_out(rows[:1]) == ""
    assert left_out(rows) == "Not in the second plot: gmp at 100.000 %, of which no MAC is left."


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
        assert told[1] in (
            "m0: sparsity 90.0 %, accuracy 85.50 ± 0.50 %",
            "m0: 100 k non-zero MACs, accuracy 85.50 ± 0.50 %",
        )
        assert sum("marker" in kind for _, kind in kinds) == len(told)
        assert sum("bar" in kind for _, kind in kinds) == 3 * len(told)
        assert sum("curve" in kind for _, kind in kinds) == 7
        assert sum("dashed" in kind for _, kind in kinds) == 1  # the seventh has the first's tone
        texts = {node.text for node in drawn.iter() if node.tag.endswith("}text")}
        assert {"m0", "m6", "Pareto front", "accuracy on the test images, %"} <= texts
        (front,) = (node.get("d", "") for node, kind in kinds if "front" in kind and node.get("d"))
        places = {
            (node.get("cx"), node.get("cy"))
            for node, kind in kinds
            if "touch" in kind and (node[0].text or "").startswith("m0")
        }
        assert all(f"{x},{y}" in front for x, y in places)
        counts.append(len(told))
    assert counts == [15, 14]  # without MACs there is no place among them


def test_a_comparison_without_results_has_empty_axes() -> None:
    assert all("no results yet" in picture for picture in (*inline_panels([]), plot_file([])))
