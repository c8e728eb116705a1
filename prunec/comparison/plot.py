"""Two panels: accuracy against sparsity and against non-zero MACs, a line a recipe.

Sparsity runs on the logarithm of the density, so that 90, 99 and 99.9 % lie equally far apart;
accuracy on the logarithm of the error, so that a network that collapsed leaves room for those that
did not. The stairs are the Pareto front of the means.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise

from markupsafe import Markup

from prunec.charts import svg
from prunec.charts.scales import short
from prunec.comparison.frame import BOTTOM, LEFT, TOP, Frame, Mean, axes, frame_of, grid
from prunec.comparison.names import name_lines
from prunec.comparison.pareto import pareto_front
from prunec.comparison.results import Row, quality_of, quality_title
from prunec.comparison.tables import accuracy_text, share_text
from prunec.comparison.ticks import Mark, mac_ticks, sparsity_ticks

PAPER = {
    "--ink": "#171a21", "--soft": "#566072", "--grid": "#e8ebf0", "--card": "#ffffff",
    "--rule": "#dde1e8", "--line-0": "#0072b2", "--line-1": "#d55e00", "--line-2": "#009e73",
    "--line-3": "#cc79a7", "--line-4": "#e69f00", "--line-5": "#56b4e9",
}  # fmt: skip
"""The colours of a file of its own, white; a page has its variables.

Those of lines are told apart by the colour-blind (Okabe & Ito 2008, yellow and black left out).
"""
TONES = 6
SHAPES: tuple[tuple[svg.Point, ...], ...] = (
    (),  # a disc
    ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    ((-1.2, 1), (0, -1.2), (1.2, 1)),
    ((-1.3, 0), (0, -1.3), (1.3, 0), (0, 1.3)),
    ((-1.2, -1), (0, 1.2), (1.2, -1)),
    ((-0.4, -1.3), (0.4, -1.3), (0.4, -0.4), (1.3, -0.4), (1.3, 0.4), (0.4, 0.4), (0.4, 1.3),
     (-0.4, 1.3), (-0.4, 0.4), (-1.3, 0.4), (-1.3, -0.4), (-0.4, -0.4)),
)  # fmt: skip
"""The marks of lines, in units of their radius; one further with every round of the tones."""
RADIUS, CAP = 3.6, 3.0
DENSEST, SPARSEST = 1.0, 1e-9
LARGE, SMALL = (380.0, 330.0), (285.0, 245.0)  # of a panel's axes, in a file and in a page
LETTER = 7.6  # about, of a letter of a name


@dataclass(frozen=True)
class Panel:
    """What one panel shows; costs fall to the right.

    Attributes:
        label: of the horizontal axis.
        about: what it shows, for who does not see it; ``{}`` is the quality.
        x: where a row lies on it; None where it has no place.
        ticks: marks between two ends, with their texts.
        told: a row's value on this axis.
    """

    label: str
    about: str
    x: Callable[[Row], float | None]
    ticks: Callable[[float, float], list[Mark]]
    told: Callable[[Row], str]


def _sparsity_place(row: Row) -> float | None:
    if row.sparsity is None:
        return None
    return -math.log10(min(max(1 - row.sparsity, SPARSEST), DENSEST))


def _mac_place(row: Row) -> float | None:
    return -math.log10(row.nonzero_macs) if row.nonzero_macs else None


PANELS = (
    Panel(
        "sparsity, % of the weights that are gone or zero",
        "{} against sparsity, a line a recipe",
        _sparsity_place,
        sparsity_ticks,
        lambda row: f"sparsity {share_text(row.sparsity or 0)}",
    ),
    Panel(
        "non-zero MACs of one image, fewer to the right",
        "{} against non-zero MACs, a line a recipe",
        _mac_place,
        mac_ticks,
        lambda row: f"{short(row.nonzero_macs or 0)} non-zero MACs",
    ),
)


def plot_file(rows: Sequence[Row]) -> str:
    """Return both panels beside each other as an SVG file that needs no other."""
    style = re.sub(r"var\((--[\w-]+)\)", lambda variable: PAPER[variable[1]], plot_css())
    width, height = _size(rows, LARGE)
    parts = [svg.moved(i * width, _panel(rows, panel, LARGE)) for i, panel in enumerate(PANELS)]
    about = "; ".join(panel.about.format(quality_title(rows)) for panel in PANELS)
    return str(svg.document(len(PANELS) * width, height, about, style, parts, "plot"))


def inline_panels(rows: Sequence[Row]) -> tuple[Markup, ...]:
    """Return each panel as an SVG element for a page, in the page's colours."""
    title = quality_title(rows)
    return tuple(
        svg.drawing(
            *_size(rows, SMALL), panel.about.format(title), _panel(rows, panel, SMALL), "plot"
        )
        for panel in PANELS
    )


def plot_css() -> str:
    """Return the style sheet of panels, in a page's variables."""
    return files("prunec.comparison").joinpath("plot.css").read_text("utf-8")


def _size(rows: Sequence[Row], inner: tuple[float, float]) -> tuple[float, float]:
    """Width and height of a panel with its names."""
    names = LETTER * max(map(len, _methods(rows)), default=0) + 24
    return LEFT + inner[0] + names, TOP + inner[1] + BOTTOM


def _panel(rows: Sequence[Row], panel: Panel, inner: tuple[float, float]) -> Iterator[Markup]:
    methods = _methods(rows)
    lines = {name: means for name in methods if (means := _means(rows, name, panel))}
    every = [mean for means in lines.values() for mean in means]
    up = f"{quality_of(rows)} on the test images, %"
    if not every:
        yield from axes(*inner, panel.label, up)
        middle = (LEFT + inner[0] / 2, TOP + inner[1] / 2)
        yield svg.text("unit", middle, "middle", "no results yet")
        return
    frame = frame_of(every, *inner)
    yield from grid(frame, panel.ticks)
    yield from _front(frame, every)
    yield from axes(*inner, panel.label, up)
    for name, means in lines.items():
        yield from _line(frame, means, methods.index(name))
    tones = {name: _tone(methods.index(name)) for name in lines}
    yield from name_lines(frame, {name: means[-1] for name, means in lines.items()}, tones)
    for mean in every:
        yield svg.dot("touch", frame.point(mean.x, mean.accuracy), 8, mean.told)


def _methods(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.method for row in rows))


def _means(rows: Sequence[Row], name: str, panel: Panel) -> list[Mean]:
    """A recipe's rows, from left to right."""
    means = [
        Mean(
            x,
            row.accuracy,
            row.deviation or 0.0,
            f"{name}: {panel.told(row)}, {quality_of(rows)} {accuracy_text(row)}",
        )
        for row in rows
        if row.method == name and row.accuracy is not None and (x := panel.x(row)) is not None
    ]
    return sorted(means, key=lambda mean: (mean.x, mean.accuracy))


def _tone(index: int) -> str:
    return f"tone-{index % TONES}"


def _line(frame: Frame, means: Sequence[Mean], index: int) -> Iterator[Markup]:
    """A line through means, bars of their deviations, and a mark each."""
    tone, turn = _tone(index), index // TONES
    points = [frame.point(mean.x, mean.accuracy) for mean in means]
    if len(points) > 1:
        yield svg.path(f"curve {tone}{' dashed' if turn % 2 else ''}", points)
    for (x, _), mean in zip(points, means, strict=True):
        if mean.deviation:
            ends = (mean.accuracy - mean.deviation, mean.accuracy + mean.deviation)
            low, high = (frame.point(mean.x, accuracy)[1] for accuracy in ends)
            yield svg.line(f"bar {tone}", (x, low), (x, high))
            for y in (low, high):
                yield svg.line(f"bar {tone}", (x - CAP, y), (x + CAP, y))
    shape = SHAPES[(turn + index) % len(SHAPES)]
    for x, y in points:
        if not shape:
            yield svg.dot(f"marker {tone}", (x, y), RADIUS)
            continue
        corners = [(x + RADIUS * a, y + RADIUS * b) for a, b in shape]
        yield svg.path(f"marker {tone}", corners, closed=True)


def _front(frame: Frame, means: Sequence[Mean]) -> Iterator[Markup]:
    """The stairs below and left of which all means lie, and what they are."""
    front = [means[i] for i in pareto_front([(-mean.x, mean.accuracy) for mean in means])]
    points = sorted(frame.point(mean.x, mean.accuracy) for mean in front)
    stairs = [(x, y) for (x, _), (_, y) in pairwise(points)]
    path = [point for pair in zip(points, [*stairs, points[-1]], strict=True) for point in pair]
    yield svg.path("front", path)
    left, y = frame.at((0.03, 0.04))
    yield svg.line("front", (left, y), (left + 14, y))
    yield svg.text("unit", (left + 24, y + 4), "start", "Pareto front")
