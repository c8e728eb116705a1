"""Charts of the report: curves, heat maps, ridge plots, paired bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from markupsafe import Markup

from prunec.charts import svg
from prunec.charts.scales import Scale, digits_apart, short, ticks, whole_ticks

WIDTH, HEIGHT = 360.0, 200.0  # units of the view box: three charts side by side on a wide page
LEFT, RIGHT, TOP, BOTTOM = 40.0, 82.0, 10.0, 36.0  # margins, for marks and labels of curves
LABEL = 15.0  # smallest distance of two labels at the ends of curves
LEVELS = 25  # levels of a heat map: adjacent cells of one level are merged, for a smaller page
RIDGE, FULL = 30.0, 25.0  # distance of two ridges; height of a ridge with all values in one bin


@dataclass(frozen=True)
class Series:
    """A curve.

    Attributes:
        name: label; empty for a single curve.
        kind: meaning, by which it is coloured: ``test``, ``train``, ``left``, ``plain``.
        points: (epoch, value).
    """

    name: str
    kind: str
    points: tuple[svg.Point, ...]


@dataclass(frozen=True)
class Axis:
    """The vertical axis of curves.

    Attributes:
        low: lower end; None to choose it by the values.
        high: upper end; None to choose it by the values.
        digits: significant digits of the labels at the ends of curves.
    """

    low: float | None = None
    high: float | None = None
    digits: int = 3


def curves(about: str, axis: Axis, series: Sequence[Series]) -> Markup:
    """Draw curves over epochs, each labelled at its end with its last value."""
    xs = [x for s in series for x, _ in s.points]
    ys = [y for s in series for _, y in s.points]
    low = min(ys) if axis.low is None else min(axis.low, *ys)
    high = max(ys) if axis.high is None else max(axis.high, *ys)
    marks, epochs = ticks(low, high, 4), whole_ticks(int(min(xs)), int(max(xs)), 5)
    few = 0.5 if min(xs) == max(xs) else 0.0  # a single epoch is drawn in the middle
    across, up = Scale(min(xs) - few, max(xs) + few), Scale(marks[0], marks[-1])

    def place(x: float, y: float) -> svg.Point:
        left = LEFT + across(x) * (WIDTH - LEFT - RIGHT)
        return left, HEIGHT - BOTTOM - up(y) * (HEIGHT - TOP - BOTTOM)

    placed = [Series(s.name, s.kind, tuple(place(*p) for p in s.points)) for s in series]
    parts = [*_grid([(place(xs[0], m)[1], m) for m in marks])]
    parts += _epochs([(place(e, 0)[0], e) for e in epochs])
    for drawn, given in zip(placed, series, strict=True):
        parts += _curve(drawn, given)
    digits = digits_apart(marks, axis.digits)
    return svg.drawing(WIDTH, HEIGHT, about, [*parts, *_labels(placed, series, digits)], "curves")


def _grid(marks: Sequence[tuple[float, float]]) -> Iterator[Markup]:
    digits = digits_apart(value for _, value in marks)
    for y, value in marks:
        yield svg.line("grid", (LEFT, y), (WIDTH - RIGHT, y))
        yield svg.text("mark", (LEFT - 6, y + 4), "end", short(value, digits))


def _epochs(marks: Sequence[tuple[float, int]]) -> Iterator[Markup]:
    bottom = HEIGHT - BOTTOM
    for x, epoch in marks:
        yield svg.line("axis", (x, bottom), (x, bottom + 4))
        yield svg.text("mark", (x, bottom + 16), "middle", str(epoch))
    yield svg.line("axis", (LEFT, bottom), (WIDTH - RIGHT, bottom))
    yield svg.text("unit", ((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4), "middle", "epoch")


def _curve(drawn: Series, given: Series) -> Iterator[Markup]:
    if len(drawn.points) > 1:
        yield svg.path(f"curve {drawn.kind}", drawn.points)
    yield svg.dot(f"end {drawn.kind}", drawn.points[-1], 3)
    for at, (epoch, value) in zip(drawn.points, given.points, strict=True):
        # 7: an invisible disc larger than the mark, so that the tooltip is easy to reach.
        yield svg.dot("touch", at, 7, f"epoch {epoch:g}: {short(value)}")


def _labels(placed: Sequence[Series], series: Sequence[Series], digits: int) -> Iterator[Markup]:
    """Yield labels right of the curves' ends, moved apart where they would overlap."""
    # From the top: y grows downwards in SVG.
    by_height = sorted(zip(placed, series, strict=True), key=lambda p: p[0].points[-1][1])
    lowest = HEIGHT - BOTTOM - (len(by_height) - 1) * LABEL
    y = -math.inf
    for index, (drawn, given) in enumerate(by_height):
        y = max(min(drawn.points[-1][1] + 4, lowest + index * LABEL), y + LABEL)
        words = f"{given.name} {short(given.points[-1][1], digits)}".strip()
        yield svg.text(f"label {drawn.kind}", (drawn.points[-1][0] + 8, y), "start", words)


def heat(about: str, epochs: Sequence[int], values: Sequence[float | None], scale: Scale) -> Markup:
    """Draw a row of a heat map, one cell per value; a larger value is stronger, None is empty.

    Args:
        about: description of the row, for screen readers.
        epochs: epochs of the values.
        values: one value per epoch.
        scale: common scale of all rows.
    """
    levels = [None if v is None else round(scale(v) * LEVELS) for v in values]
    cells, start = [], 0
    for level, run in groupby(levels):
        count = len(list(run))
        last = start + count - 1
        if level is not None:
            when = f"{epochs[start]}" + (f"–{epochs[last]}" if count > 1 else "")
            cells.append(
                svg.cell(
                    "heat",
                    start / len(values),
                    count / len(values),
                    height=14,
                    # the least level is still visible: it differs from an empty cell
                    strength=0.04 + 0.96 * level / LEVELS,
                    title=f"epoch {when}: {short(values[last] or 0)}",
                )
            )
        start += count
    return svg.strip(14, about, cells)


def ridges(
    about: str, quantity: str, edges: Sequence[float], rows: Sequence[tuple[int, Sequence[float]]]
) -> Markup:
    """Draw a ridge plot: one histogram per epoch, one under the other.

    Heights are square roots of shares, so that a few values between two large peaks are visible.
    """
    left, right, top, bottom = 56.0, 16.0, FULL + 4, 38.0
    base = top + RIDGE * (len(rows) - 1)
    height = base + bottom
    across = Scale(edges[0], edges[-1])

    def x(value: float) -> float:
        return left + across(value) * (WIDTH - left - right)

    parts = []
    for value in ticks(edges[0], edges[-1], 4):
        if edges[0] <= value <= edges[-1]:
            parts.append(svg.line("grid", (x(value), 0), (x(value), base + 4)))
            parts.append(svg.text("mark", (x(value), base + 18), "middle", short(value)))
    for index, (epoch, counts) in enumerate(rows):
        y = top + RIDGE * index
        parts.append(svg.path("ridge", _outline(x, y, edges, counts), closed=True))
        name = f"epoch {epoch}" if index == 0 else str(epoch)
        parts.append(svg.text("mark", (left - 8, y - 1), "end", name))
    parts.append(svg.text("unit", ((left + WIDTH - right) / 2, height - 3), "middle", quantity))
    return svg.drawing(WIDTH, height, about, parts, "ridges")


def _outline(
    x: Callable[[float], float], base: float, edges: Sequence[float], counts: Sequence[float]
) -> list[svg.Point]:
    total = sum(counts) or 1
    points = [(x(edges[0]), base)]
    for (low, high), count in zip(pairwise(edges), counts, strict=True):
        # The root: gates gather in two bins, beside which all others would vanish.
        y = base - FULL * math.sqrt(max(count, 0) / total)
        points += [(x(low), y), (x(high), y)]
    return [*points, (x(edges[-1]), base)]


def bars(about: str, before: int, after: int, most: int, nonzero: float = 1.0) -> Markup:
    """Draw two bars, one under the other: before and after.

    Args:
        about: description of the pair, for screen readers.
        before: value in the dense network.
        after: value in the exported network.
        most: largest ``before`` of all pairs, which fills the width.
        nonzero: share of ``after`` by non-zero weights, drawn stronger.
    """
    most = max(most, 1)
    # Paler where zeros are computed too; the full bar over it is the part of the non-zero weights.
    own = 1.0 if nonzero == 1 else 0.35
    cells = [
        svg.cell("before", 0, before / most, height=6, title=f"dense: {before:,}"),
        svg.cell("after", 0, after / most, 8, height=8, strength=own, title=f"shipped: {after:,}"),
    ]
    if nonzero < 1:
        works = nonzero * after
        title = f"by non-zero weights: {works:,.0f}"
        cells.append(svg.cell("after", 0, works / most, 8, height=8, title=title))
    return svg.strip(16, about, cells)
