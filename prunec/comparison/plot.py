"""Plot of a comparison: accuracy against sparsity and against every cost, one line per recipe.

Costs are non-zero MACs, which unstructured zeros lower, and those that a device pays today: all
MACs, bytes, latency. The axis of sparsity is the logarithm of the density, so that 90, 99 and
99.9 % are evenly spaced; that of accuracy is the logarithm of the error, so that a collapsed
network does not squeeze the others. The dense network is a horizontal line. The step line is the
Pareto front of the means.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import pairwise

from markupsafe import Markup

from prunec.charts import svg
from prunec.comparison.frame import BOTTOM, LEFT, TOP, Frame, Mean, axes, frame_of, grid
from prunec.comparison.names import name_lines
from prunec.comparison.panels import Panel, panels_of
from prunec.comparison.pareto import pareto_front
from prunec.comparison.results import Row, is_whole, quality_of, quality_title
from prunec.comparison.tables import accuracy_text

PAPER = {
    "--ink": "#171a21", "--soft": "#566072", "--grid": "#e8ebf0", "--card": "#ffffff",
    "--rule": "#dde1e8", "--line-0": "#0072b2", "--line-1": "#d55e00", "--line-2": "#009e73",
    "--line-3": "#cc79a7", "--line-4": "#e69f00", "--line-5": "#56b4e9",
}  # fmt: skip
"""Colours of a stand-alone file; a page defines its own as CSS variables.

Those of lines are distinguishable by the colour-blind (Okabe & Ito 2008, without yellow and black).
"""
TONES = 6  # colours of lines in that palette
SHAPES: tuple[tuple[svg.Point, ...], ...] = (
    (),  # a disc
    ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    ((-1.2, 1), (0, -1.2), (1.2, 1)),
    ((-1.3, 0), (0, -1.3), (1.3, 0), (0, 1.3)),
    ((-1.2, -1), (0, 1.2), (1.2, -1)),
    ((-0.4, -1.3), (0.4, -1.3), (0.4, -0.4), (1.3, -0.4), (1.3, 0.4), (0.4, 0.4), (0.4, 1.3),
     (-0.4, 1.3), (-0.4, 0.4), (-1.3, 0.4), (-1.3, -0.4), (-0.4, -0.4)),
)  # fmt: skip
"""Markers of lines, in units of their radius; shifted by one with every round of the colours."""
RADIUS, CAP = 3.6, 3.0  # of markers; half width of the ends of error bars
LARGE, SMALL = (380.0, 330.0), (285.0, 230.0)  # size of a panel's axes, in a file and in a page
RIGHT = 14.0  # right margin of a panel in a page
Names = Callable[[Frame, Mapping[str, svg.Point], Mapping[str, str]], Iterator[Markup]]
"""Function that draws the labels of lines, given their ends and colours."""
LETTER = 7.6  # approximate width of a letter of a label: SVG cannot measure text


BESIDE = 3  # panels per row of a file


def plot_file(rows: Sequence[Row]) -> str:
    """Return all panels as a stand-alone SVG file, three per row."""
    style = re.sub(r"var\((--[\w-]+)\)", lambda variable: PAPER[variable[1]], plot_css())
    panels = panels_of(rows)
    # 24: the leader and gaps on both sides
    names = LETTER * max(map(len, _methods(rows)), default=0) + 24
    width, height = LEFT + LARGE[0] + names, TOP + LARGE[1] + BOTTOM
    parts = [
        svg.moved(
            (i % BESIDE * width, i // BESIDE * height), _panel(rows, panel, LARGE, name_lines)
        )
        for i, panel in enumerate(panels)
    ]
    about = "; ".join(panel.about.format(quality_title(rows)) for panel in panels)
    columns, lines = min(len(panels), BESIDE), -(-len(panels) // BESIDE)
    return str(svg.document(columns * width, lines * height, about, style, parts, "plot"))


def inline_panels(rows: Sequence[Row]) -> tuple[Markup, ...]:
    """Return each panel as an SVG element for a page, in the page's colours, without labels."""
    title, size = quality_title(rows), (LEFT + SMALL[0] + RIGHT, TOP + SMALL[1] + BOTTOM)
    return tuple(
        svg.drawing(*size, panel.about.format(title), _panel(rows, panel, SMALL, no_names), "plot")
        for panel in panels_of(rows)
    )


def legend(rows: Sequence[Row]) -> tuple[tuple[Markup, str], ...]:
    """Return marker and name of each recipe, as the common legend of a page's panels."""
    whole = _levels(rows)
    return tuple(
        (svg.drawing(26, 12, "", _sample(index, whole=name in whole), "plot key-mark"), name)
        for index, name in enumerate(_methods(rows))
    )


def _sample(index: int, *, whole: bool) -> Iterator[Markup]:
    """Yield a sample of a recipe's line."""
    kind = "whole" if whole else f"curve{_dashes(index)}"
    yield svg.line(f"{kind} {_tone(index)}", (0, 6), (26, 6))
    if not whole:
        yield _mark(index, (13, 6))


def no_names(
    _frame: Frame, _ends: Mapping[str, svg.Point], _tones: Mapping[str, str]
) -> Iterator[Markup]:
    """Yield nothing: a page has one legend for all panels."""
    return iter(())


def plot_css() -> str:
    """Return the style sheet of panels, with colours as CSS variables."""
    return files("prunec.comparison").joinpath("plot.css").read_text("utf-8")


def _panel(
    rows: Sequence[Row], panel: Panel, inner: tuple[float, float], names: Names
) -> Iterator[Markup]:
    methods, levels = _methods(rows), _levels(rows)
    lines = {name: means for name in methods if (means := _means(rows, name, panel))}
    every = [mean for means in lines.values() for mean in means]
    up = f"{quality_of(rows)} on the test images, %"
    if not every and not levels:
        yield from axes(*inner, panel.label, up)
        middle = (LEFT + inner[0] / 2, TOP + inner[1] / 2)
        yield svg.text("unit", middle, "middle", "no results yet")
        return
    frame = frame_of(every, [level.accuracy for level in levels.values()], *inner)
    yield from grid(frame, panel.ticks if every else lambda low, high: [])
    yield from _front(frame, every)
    yield from axes(*inner, panel.label, up)
    for name, level in levels.items():
        y = frame.point(0, level.accuracy)[1]
        yield svg.line(f"whole {_tone(methods.index(name))}", (LEFT, y), (LEFT + inner[0], y))
    for name, means in lines.items():
        yield from _line(frame, means, methods.index(name))
    ends = {name: frame.share(means[-1]) for name, means in lines.items()}
    ends |= {name: (1.0, frame.share(level)[1]) for name, level in levels.items()}
    yield from names(frame, ends, {name: _tone(methods.index(name)) for name in ends})
    for mean in every:
        # Last, so that tooltips lie above everything else.
        yield svg.dot("touch", frame.point(mean.x, mean.accuracy), 8, mean.tooltip)
    for level in levels.values():
        end = LEFT + inner[0], frame.point(0, level.accuracy)[1]
        yield svg.dot("touch", end, 8, level.tooltip)


def _levels(rows: Sequence[Row]) -> dict[str, Mean]:
    """Return method → mean of the dense networks, which have no position on a horizontal axis."""
    return {
        row.method: Mean(
            0.0,
            row.accuracy,
            0.0,
            f"{row.method}: dense, {quality_of(rows)} {accuracy_text(row)}",
        )
        for row in rows
        if row.accuracy is not None and is_whole(row)
    }


def _methods(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.method for row in rows))


def _means(rows: Sequence[Row], name: str, panel: Panel) -> list[Mean]:
    """Return a recipe's points from left to right."""
    means = [
        Mean(
            x,
            row.accuracy,
            row.deviation or 0.0,
            f"{name}: {panel.tooltip(row)}, {quality_of(rows)} {accuracy_text(row)}",
        )
        for row in rows
        if row.method == name and row.accuracy is not None and not is_whole(row)
        if (x := panel.x(row)) is not None
    ]
    return sorted(means, key=lambda mean: (mean.x, mean.accuracy))


def _tone(index: int) -> str:
    return f"tone-{index % TONES}"


def _line(frame: Frame, means: Sequence[Mean], index: int) -> Iterator[Markup]:
    """Yield a line through means, with error bars of their deviations and markers."""
    tone = _tone(index)
    points = [frame.point(mean.x, mean.accuracy) for mean in means]
    if len(points) > 1:
        yield svg.path(f"curve{_dashes(index)} {tone}", points)
    for (x, _), mean in zip(points, means, strict=True):
        if mean.deviation:
            ends = (mean.accuracy - mean.deviation, mean.accuracy + mean.deviation)
            low, high = (frame.point(mean.x, accuracy)[1] for accuracy in ends)
            yield svg.line(f"bar {tone}", (x, low), (x, high))
            for y in (low, high):
                yield svg.line(f"bar {tone}", (x - CAP, y), (x + CAP, y))
    for point in points:
        yield _mark(index, point)


def _dashes(index: int) -> str:
    """Return the CSS class that distinguishes lines of the same colour."""
    return " dashed" if index // TONES % 2 else ""


def _mark(index: int, at: svg.Point) -> Markup:
    tone, shape = _tone(index), SHAPES[(index // TONES + index) % len(SHAPES)]
    if not shape:
        return svg.dot(f"marker {tone}", at, RADIUS)
    corners = [(at[0] + RADIUS * a, at[1] + RADIUS * b) for a, b in shape]
    return svg.path(f"marker {tone}", corners, closed=True)


def _front(frame: Frame, means: Sequence[Mean]) -> Iterator[Markup]:
    """Yield the step line of the Pareto front, and its legend above the axes."""
    if not means:
        return
    front = [means[i] for i in pareto_front([(-mean.x, mean.accuracy) for mean in means])]
    points = sorted(frame.point(mean.x, mean.accuracy) for mean in front)
    # Steps, not slopes: no network lies between two points of the front.
    stairs = [(x, y) for (x, _), (_, y) in pairwise(points)]
    path = [point for pair in zip(points, [*stairs, points[-1]], strict=True) for point in pair]
    yield svg.path("front", path)
    right = LEFT + frame.width
    yield svg.line("front", (right - 96, 12), (right - 82, 12))
    yield svg.text("unit", (right, 16), "end", "Pareto front")
