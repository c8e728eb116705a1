"""Panels of a plot: accuracy against sparsity, and against each cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from prunec.charts.scales import short, size
from prunec.comparison.results import Row
from prunec.comparison.tables import share_text
from prunec.comparison.ticks import Mark, cost_ticks, sparsity_ticks

DENSEST, SPARSEST = 1.0, 1e-9  # bounds of the density: the logarithm of zero has no place
ALWAYS = 2  # panels that are drawn even without results

Write = Callable[[float], str]
"""Formatter of a cost."""


@dataclass(frozen=True)
class Panel:
    """A panel; costs decrease to the right.

    Attributes:
        label: title of the horizontal axis.
        about: description for screen readers; ``{}`` is the measure of quality.
        x: returns the position of a row on the horizontal axis; None where it has none.
        ticks: returns (position, label) of ticks between two ends.
        tooltip: returns a row's value on this axis in words.
    """

    label: str
    about: str
    x: Callable[[Row], float | None]
    ticks: Callable[[float, float], list[Mark]]
    tooltip: Callable[[Row], str]


def _sparsity_place(row: Row) -> float | None:
    if row.sparsity is None:
        return None
    return -math.log10(min(max(1 - row.sparsity, SPARSEST), DENSEST))


def _cost(label: str, unit: str, of: Callable[[Row], float | None], write: Write) -> Panel:
    """Return the panel of a cost, on a logarithmic axis."""

    def place(row: Row) -> float | None:
        cost = of(row)
        return -math.log10(cost) if cost else None

    return Panel(
        f"{label}, less to the right",
        f"{{}} against {label}, one line per recipe",
        place,
        partial(cost_ticks, text=write),
        lambda row: f"{write(of(row) or 0)} {unit}",
    )


PANELS = (
    Panel(
        "sparsity, % of weights removed or zero",
        "{} against sparsity, one line per recipe",
        _sparsity_place,
        sparsity_ticks,
        lambda row: f"sparsity {share_text(row.sparsity or 0)}",
    ),
    _cost("non-zero MACs", "non-zero MACs", lambda row: row.nonzero_macs, short),
    _cost("MACs, zeros included", "MACs", lambda row: row.macs, short),
    _cost("bytes of the file", "in the file", lambda row: row.bytes, lambda b: size(round(b))),
    _cost("latency / dense", "of the dense latency", lambda row: row.latency, lambda x: f"{x:.3g}"),
)


def panels_of(rows: Sequence[Row]) -> tuple[Panel, ...]:
    """Return the panels on which at least one row has a position."""
    return tuple(
        panel
        for number, panel in enumerate(PANELS)
        if number < ALWAYS or any(panel.x(row) is not None for row in rows)
    )
