"""Two panels: accuracy against sparsity and against non-zero MACs, a line a recipe.

Sparsity runs on the logarithm of the density, so that 90, 99 and 99.9 % lie equally far apart;
accuracy on the logarithm of the error, so that a network that collapsed leaves room for those that
did not. The stairs are the Pareto front of the means.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from prunec.comparison.error_scale import accuracy_at, backward, error_place, forward
from prunec.comparison.names import Point, name_lines
from prunec.comparison.pareto import pareto_front
from prunec.comparison.results import Row, quality_of
from prunec.comparison.ticks import accuracy_ticks, mac_ticks, sparsity_ticks

if TYPE_CHECKING:  # matplotlib takes a second to import: only who draws pays
    from matplotlib.axes import Axes

# The colours of prunec/page/report.css, which a page replaces by its variables.
INK, SOFT, GRID, PAPER, RULE = "#171a21", "#566072", "#e8ebf0", "#ffffff", "#dde1e8"
# Told apart by the colour-blind (Okabe & Ito 2008, yellow and black left out), on light and dark.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
VARIABLES = {
    INK: "--ink", SOFT: "--soft", GRID: "--grid", PAPER: "--card", RULE: "--rule",
    **{colour: f"--line-{index}" for index, colour in enumerate(COLOURS)},
}  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P")  # one further with every round of the colours
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "prunec",  # the same results, the same bytes
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
DENSEST, SPARSEST = 1.0, 1e-9
WIDTH, HEIGHT = 3.9, 3.4  # inches of a panel's axes
SMALL = 0.72  # of these, in a page: text is as large, and stays readable on a phone
LEFT, BOTTOM, TOP = 0.6, 0.6, 0.2  # inches beside, below and above the axes
LETTER = 0.075  # inches, about, of a letter of a name
NARROW = 0.1  # left and right of the points at least: roundings of one sparsity are no distance


@dataclass(frozen=True)
class Panel:
    """What one panel shows; costs fall to the right.

    Attributes:
        label: of the horizontal axis.
        x: where a row lies on it; None where it has no place.
        ticks: marks between two ends, with their texts.
    """

    label: str
    x: Callable[[Row], float | None]
    ticks: Callable[[float, float], list[tuple[float, str]]]


def _sparsity_place(row: Row) -> float | None:
    if row.sparsity is None:
        return None
    return -math.log10(min(max(1 - row.sparsity, SPARSEST), DENSEST))


def _mac_place(row: Row) -> float | None:
    return -math.log10(row.nonzero_macs) if row.nonzero_macs else None


PANELS = (
    Panel("sparsity, % of the weights that are gone or zero", _sparsity_place, sparsity_ticks),
    Panel("non-zero MACs of one image, fewer to the right", _mac_place, mac_ticks),
)


def plot_files(rows: Sequence[Row]) -> tuple[bytes, bytes]:
    """Return the plot of both panels as PNG and as SVG."""
    return _drawn(rows, PANELS, "png"), _drawn(rows, PANELS, "svg")


def inline_panels(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return each panel as an SVG element for a page, in the page's colours."""
    return tuple(_inline(_drawn(rows, (panel,), "svg", SMALL).decode()) for panel in PANELS)


def _drawn(rows: Sequence[Row], panels: Sequence[Panel], kind: str, size: float = 1) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    names = LETTER * max(map(len, _methods(rows)), default=0) + 0.3
    inner, share = WIDTH * size, LEFT + WIDTH * size + names  # inches of the axes, of a panel
    width, height = share * len(panels), BOTTOM + HEIGHT * size + TOP
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=200)
        for index, panel in enumerate(panels):
            left, bottom = (index * share + LEFT) / width, BOTTOM / height
            axes = figure.add_axes((left, bottom, inner / width, HEIGHT * size / height))
            _draw(axes, rows, panel)
        found = BytesIO()
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(found, format=kind, metadata=metadata, facecolor=PAPER)
    return found.getvalue()


def _draw(axes: Axes, rows: Sequence[Row], panel: Panel) -> None:
    methods = _methods(rows)
    lines = {name: points for name in methods if (points := _points(rows, name, panel))}
    every = [point for points in lines.values() for point in points]
    axes.set_xlabel(panel.label)
    axes.set_ylabel(f"{quality_of(rows)} on the test images, %")
    if not every:
        _say_empty(axes)
        return
    _set_axes(axes, every, panel)
    _draw_front(axes, every)
    for name, points in lines.items():
        _draw_line(axes, points, methods.index(name))
    name_lines(axes, lines, {name: _colour(methods.index(name)) for name in lines})


def _methods(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.method for row in rows))


def _points(rows: Sequence[Row], name: str, panel: Panel) -> list[Point]:
    """x, mean and deviation of a recipe's rows, from left to right."""
    found = [
        (x, row.accuracy, row.deviation or 0.0)
        for row in rows
        if row.method == name and row.accuracy is not None and (x := panel.x(row)) is not None
    ]
    return sorted(found)


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _draw_line(axes: Axes, points: Sequence[Point], index: int) -> None:
    x, y, deviation = zip(*points, strict=True)
    turn = index // len(COLOURS)
    axes.errorbar(
        x,
        y,
        yerr=deviation,
        color=_colour(index),
        marker=MARKERS[(turn + index) % len(MARKERS)],
        linestyle="--" if turn % 2 else "-",
        markersize=5,
        markeredgecolor=PAPER,
        markeredgewidth=0.6,
        linewidth=1.5,
        elinewidth=1,
        capsize=2.5,
        zorder=3,
    )


def _draw_front(axes: Axes, points: Sequence[Point]) -> None:
    front = sorted(points[i] for i in pareto_front([(-x, y) for x, y, _ in points]))
    line: dict[str, Any] = {"color": RULE, "linewidth": 7, "solid_capstyle": "round", "zorder": 1}
    axes.plot([x for x, _, _ in front], [y for _, y, _ in front], drawstyle="steps-pre", **line)
    axes.plot([0.03, 0.07], [0.04, 0.04], transform=axes.transAxes, **line)
    axes.text(0.1, 0.04, "Pareto front", transform=axes.transAxes, color=SOFT, va="center")


def _say_empty(axes: Axes) -> None:
    axes.text(0.5, 0.5, "no results yet", transform=axes.transAxes, ha="center", color=SOFT)
    axes.set_xticks([])
    axes.set_yticks([])


def _set_axes(axes: Axes, points: Sequence[Point], panel: Panel) -> None:
    axes.set_yscale("function", functions=(forward, backward))
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    low, high = _widened([x for x, _, _ in points], 0.05, NARROW)
    axes.set_xlim(low, high)
    _mark(axes.set_xticks, panel.ticks(low, high))
    heights = [error_place(y + sign * d) for _, y, d in points for sign in (-1, 1)]
    bottom, top = (accuracy_at(place) for place in _widened(heights, 0.07))
    axes.set_ylim(bottom, top)
    _mark(axes.set_yticks, accuracy_ticks(bottom, top, error_place))


def _mark(set_ticks: Callable[..., object], marks: Sequence[tuple[float, str]]) -> None:
    set_ticks([place for place, _ in marks], labels=[text for _, text in marks])
    set_ticks([], minor=True)


def _widened(values: Sequence[float], share: float, least: float = 0.0) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = max(share * (high - low), least) or 0.1
    return low - margin, high + margin


def _inline(svg: str) -> str:
    """An SVG file as an element: as wide as there is room, no names that another one has too."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.strip()
