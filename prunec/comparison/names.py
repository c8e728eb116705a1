"""The names of lines, each at the line's end: nobody has to look back and forth to a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prunec.comparison.error_scale import error_place

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEADER = {"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}  # from name to line
SIZE = 8.5  # points, of a name's letters
GAP = 1.2 * SIZE  # points between two names
FAR = 0.6  # of an axis's width: a line that ends before it is named where it ends

Point = tuple[float, float, float]
"""Where a mean lies: x, accuracy in percent, its deviation."""


def name_lines(
    axes: Axes, lines: Mapping[str, Sequence[Point]], colours: Mapping[str, str]
) -> None:
    """Write every line's name at its right end; names beside the axes are moved apart."""
    ends = {name: _share(axes, points[-1]) for name, points in lines.items()}
    gap = GAP / _height(axes)
    beside = apart({name: y for name, (x, y) in ends.items() if x >= FAR}, gap)
    side = -1
    for name, (x, y) in ends.items():
        far = name in beside
        side = side if far else -side  # those within the axes above and below by turns
        axes.annotate(
            name,
            xy=(x, y),
            xycoords="axes fraction",
            xytext=(1.03, beside[name]) if far else (x + 0.02, y + gap * side),
            color=colours[name],
            va="center",
            fontsize=SIZE,
            arrowprops={**LEADER, "color": colours[name]} if far else None,
            annotation_clip=False,
            zorder=4,
        )


def apart(heights: dict[str, float], gap: float) -> dict[str, float]:
    """Return heights at least ``gap`` apart, in the same order and near those given.

    Names that would touch form a block, centred on the mean of their own heights.
    """
    blocks: list[list[str]] = []

    def bottom(block: Sequence[str]) -> float:
        return sum(heights[name] for name in block) / len(block) - gap * (len(block) - 1) / 2

    for name in sorted(heights, key=lambda name: heights[name]):
        blocks.append([name])
        while len(blocks) > 1:
            lower, upper = blocks[-2:]
            if bottom(upper) - bottom(lower) >= gap * len(lower):
                break
            blocks[-2:] = [lower + upper]
    return {name: bottom(block) + gap * i for block in blocks for i, name in enumerate(block)}


def _height(axes: Axes) -> float:
    """How high the axes are, in points."""
    assert axes.figure is not None
    return float(axes.bbox.height / axes.figure.dpi * 72)


def _share(axes: Axes, point: Point) -> tuple[float, float]:
    """Where a point lies in the axes, in shares of their width and height."""
    low, high = axes.get_xlim()
    bottom, top = map(error_place, axes.get_ylim())
    return (point[0] - low) / (high - low), (error_place(point[1]) - bottom) / (top - bottom)
