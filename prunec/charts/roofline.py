"""Roofline figure: speed of layers over multiply-adds per byte, both axes logarithmic.

Williams, Waterman and Patterson, 2009, doi:10.1145/1498765.1498785.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prunec.charts import svg
from prunec.charts.scales import short

WIDTH, HEIGHT = 640.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 60.0, 24.0, 26.0, 46.0


@dataclass(frozen=True)
class Roof:
    """Bounds of the speed of any layer on a machine.

    Attributes:
        peak: 10⁹ multiply-adds per second, operands in registers.
        bandwidth: 10⁹ bytes per second from memory.
    """

    peak: float
    bandwidth: float


@dataclass(frozen=True)
class Spot:
    """Layer as a point of the figure.

    Attributes:
        name: name of the layer.
        kind: shipped or dense; sets the colour.
        intensity: multiply-adds per byte.
        speed: 10⁹ multiply-adds per second.
    """

    name: str
    kind: str
    intensity: float
    speed: float


@dataclass(frozen=True)
class _Plane:
    """Axes: exponents of ten at both ends of each."""

    across: tuple[int, int]
    up: tuple[int, int]

    def place(self, intensity: float, speed: float) -> svg.Point:
        """Return the position of a layer in the figure, clipped to its edges."""
        x = _share(intensity, self.across) * (WIDTH - LEFT - RIGHT)
        y = _share(speed, self.up) * (HEIGHT - TOP - BOTTOM)
        return LEFT + x, HEIGHT - BOTTOM - y


def _share(value: float, ends: tuple[int, int]) -> float:
    """Return a value's place between the ends of a logarithmic axis, 0 to 1."""
    low, high = ends
    return min(max((math.log10(max(value, 1e-12)) - low) / (high - low), 0.0), 1.0)


def roofline(roof: Roof, spots: Sequence[Spot]) -> list[Markup]:
    """Return the elements of a ``WIDTH`` × ``HEIGHT`` figure: the roof, and a disc per layer.

    A tooltip shows the name and the numbers of each layer.
    """
    # Williams et al. 2009 (Commun. ACM 52): left of the ridge memory bounds a layer, right of it
    # arithmetic.
    ridge = roof.peak / roof.bandwidth
    plane = _Plane(
        _ends([*(spot.intensity for spot in spots), ridge]),
        _ends([*(spot.speed for spot in spots), roof.peak]),
    )
    first, last = (10.0**end for end in plane.across)
    corners = [(first, roof.bandwidth * first), (ridge, roof.peak), (last, roof.peak)]
    lowest = 10.0 ** plane.up[0]
    if corners[0][1] < lowest:  # the slope enters from below
        corners[0] = (lowest / roof.bandwidth, lowest)
    parts = [*_grid(plane), svg.path("roof", [plane.place(*corner) for corner in corners])]
    x, y = plane.place(last, roof.peak)
    bounds = f"{short(roof.peak)} GMAC/s in registers, {short(roof.bandwidth)} GB/s from memory"
    parts.append(svg.text("mark", (x, y - 6), "end", bounds))
    parts += [
        svg.dot(
            f"spot {spot.kind}", plane.place(spot.intensity, spot.speed), 4,
            f"{spot.name}, {spot.kind}: {short(spot.speed)} GMAC/s, "
            f"{short(spot.intensity)} multiply-adds per byte",
        )
        for spot in sorted(spots, key=lambda spot: spot.kind)
    ]  # fmt: skip
    return parts


def _ends(values: Sequence[float]) -> tuple[int, int]:
    """Return the exponents of ten that enclose all positive values; at least one decade."""
    known = [math.log10(value) for value in values if value > 0] or [0.0]
    low, high = math.floor(min(known)), math.ceil(max(known))
    return low, max(high, low + 1)


def _grid(plane: _Plane) -> Iterator[Markup]:
    bottom = HEIGHT - BOTTOM
    for power in range(plane.across[0], plane.across[1] + 1):
        x, _ = plane.place(10.0**power, 1.0)
        yield svg.line("grid", (x, TOP), (x, bottom))
        yield svg.text("mark", (x, bottom + 16), "middle", f"{10.0**power:g}")
    for power in range(plane.up[0], plane.up[1] + 1):
        _, y = plane.place(1.0, 10.0**power)
        yield svg.line("grid", (LEFT, y), (WIDTH - RIGHT, y))
        yield svg.text("mark", (LEFT - 6, y + 4), "end", f"{10.0**power:g}")
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield svg.text("unit", (middle, HEIGHT - 8), "middle", "multiply-adds per byte")
    yield svg.text("unit", (LEFT, TOP - 10), "start", "GMAC/s of nonzero weights")
