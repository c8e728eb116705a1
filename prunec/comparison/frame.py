"""Axes of a panel: positions of means, ticks, grid and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prunec.charts import svg
from prunec.charts.scales import Scale
from prunec.comparison.error_scale import accuracy_at, error_place
from prunec.comparison.ticks import Mark, accuracy_ticks

LEFT, TOP, BOTTOM = 46.0, 30.0, 44.0  # margins of the axes, for ticks and labels
NARROW = (
    0.1  # least margin left and right of the means, lest rounding of one sparsity fills the axis
)


@dataclass(frozen=True)
class Mean:
    """A point of a panel: the mean over seeds.

    Attributes:
        x: position on the horizontal axis.
        accuracy: accuracy in percent.
        deviation: standard deviation of the accuracy in percentage points.
        tooltip: text of its tooltip.
    """

    x: float
    accuracy: float
    deviation: float
    tooltip: str


@dataclass(frozen=True)
class Frame:
    """Axes; ``across`` maps x, ``up`` positions of accuracies, to 0 … 1."""

    width: float
    height: float
    across: Scale
    up: Scale

    def share(self, mean: Mean) -> svg.Point:
        """Return the position of a mean in shares of width and height, from the lower left."""
        return self.across(mean.x), self.up(error_place(mean.accuracy))

    def at(self, share: svg.Point) -> svg.Point:
        """Return the point of the drawing at these shares of width and height."""
        return LEFT + share[0] * self.width, TOP + (1 - share[1]) * self.height

    def point(self, x: float, accuracy: float) -> svg.Point:
        """Return the point of the drawing for a value of x and an accuracy."""
        return self.at((self.across(x), self.up(error_place(accuracy))))


def frame_of(means: Sequence[Mean], levels: Sequence[float], width: float, height: float) -> Frame:
    """Return axes that contain all means with their deviations, and some margin.

    Args:
        means: points; may be empty.
        levels: accuracies of horizontal lines; not empty without means.
        width: width of the axes.
        height: height of the axes.
    """
    heights = [error_place(m.accuracy + sign * m.deviation) for m in means for sign in (-1, 1)]
    heights += map(error_place, levels)
    low, high = _widened([mean.x for mean in means] or [0.0], 0.05, NARROW)
    return Frame(width, height, Scale(low, high), Scale(*_widened(heights, 0.07)))


def grid(frame: Frame, ticks: Callable[[float, float], Sequence[Mark]]) -> Iterator[Markup]:
    """Yield grid lines and labels of both axes; ``ticks`` returns those of the horizontal axis."""
    for x, text in ticks(frame.across.low, frame.across.high):
        share = frame.across(x)
        yield svg.line("grid", frame.at((share, 0)), frame.at((share, 1)))
        left, bottom = frame.at((share, 0))
        yield svg.line("axis", (left, bottom), (left, bottom + 4))
        yield svg.text("mark", (left, bottom + 18), "middle", text)
    bottom, top = accuracy_at(frame.up.low), accuracy_at(frame.up.high)
    for accuracy, text in accuracy_ticks(bottom, top, error_place):
        share = frame.up(error_place(accuracy))
        yield svg.line("grid", frame.at((0, share)), frame.at((1, share)))
        left, middle = frame.at((0, share))
        yield svg.line("axis", (left - 4, middle), (left, middle))
        yield svg.text("mark", (left - 8, middle + 4), "end", text)


def axes(width: float, height: float, across: str, up: str) -> Iterator[Markup]:
    """Yield the lines and titles of both axes."""
    corner = (LEFT, TOP + height)
    yield svg.line("axis", corner, (LEFT + width, TOP + height))
    yield svg.line("axis", corner, (LEFT, TOP))
    yield svg.text("unit", (LEFT + width / 2, TOP + height + 37), "middle", across)
    yield svg.text("unit", (8, 16), "start", up)


def _widened(values: Sequence[float], share: float, least: float = 0.0) -> tuple[float, float]:
    low, high = min(values), max(values)
    # or 0.1: a single point still needs an axis of some length.
    margin = max(share * (high - low), least) or 0.1
    return low - margin, high + margin
