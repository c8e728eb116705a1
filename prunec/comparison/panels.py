"""What the panels of a plot show: accuracy against sparsity, and against each cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from prunec.charts.scales import short, size
from prunec.comparison.results import Row
from prunec.comparison.tables import share_text
from prunec.comparison.ticks import Mark, cost_ticks, sparsity_ticks

DENSEST, SPARSEST = 1.0, 1e-9
ALWAYS = 2  # panels that a comparison without results has

Write = Callable[[float], str]
"""Writes a cost for a person."""


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


def _cost(label: str, told: str, of: Callable[[Row], float | None], write: Write) -> Panel:
    """Return the panel of a cost, on its logarithm."""

    def place(row: Row) -> float | None:
        cost = of(row)
        return -math.log10(cost) if cost else None

    return Panel(
        f"{label}, less to the right",
        f"{{}} against {label}, one line per recipe",
        place,
        partial(cost_ticks, text=write),
        lambda row: f"{write(of(row) or 0)} {told}",
    )


PANELS = (
    Panel(
        "sparsity, % of the weights that are gone or zero",
        "{} against sparsity, one line per recipe",
        _sparsity_place,
        sparsity_ticks,
        lambda row: f"sparsity {share_text(row.sparsity or 0)}",
    ),
    _cost("non-zero MACs", "non-zero MACs", lambda row: row.nonzero_macs, short),
    _cost("MACs, zeros counted", "MACs", lambda row: row.macs, short),
    _cost("bytes of the file", "in the file", lambda row: row.bytes, lambda b: size(round(b))),
    _cost("latency / dense", "of the dense latency", lambda row: row.latency, lambda x: f"{x:.3g}"),
)


def panels_of(rows: Sequence[Row]) -> tuple[Panel, ...]:
    """Return the panels on which a row has a place."""
    return tuple(
        panel
        for number, panel in enumerate(PANELS)
        if number < ALWAYS or any(panel.x(row) is not None for row in rows)
    )
