"""Report of a compilation: channel groups, removed layers, cost before and after, and the
reasons.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from prunec.cost import Cost
from prunec.graph.rewriting.compile import Compiled
from prunec.inspection.groups import GroupSummary, added_up, groups_text
from prunec.tables import as_text, counts_table, table
from prunec.wording import percent_of


@dataclass(frozen=True)
class CompileReport:
    """Report of :func:`prunec.compile`; ``print(report)`` shows it.

    ``after`` is counted at first access, for the network as it is then.

    Attributes:
        groups: every channel group, in the order of computation.
        round_to: multiple to which kept counts were rounded up.
        layers: layers with kernels in the original network.
        gone: layers with kernels that are removed entirely.
        constants: modules (or graph nodes) that a stored constant replaces.
        computed: weights that the network computed from parameters alone, and that are stored now.
        before: cost of one sample of the original network, masks as zeros.
        count_after: function that counts the compact network.
    """

    groups: tuple[GroupSummary, ...]
    round_to: int
    layers: tuple[str, ...]
    gone: tuple[str, ...]
    constants: tuple[str, ...]
    computed: tuple[str, ...]
    before: Cost = field(repr=False)
    count_after: Callable[[], Cost] = field(repr=False, compare=False)

    @cached_property
    def after(self) -> Cost:
        """Cost of one sample of the compact network."""
        return self.count_after()

    @property
    def channels(self) -> tuple[int, int]:
        """Channels of all groups, before and after."""
        return sum(g.size for g in self.groups), sum(g.kept for g in self.groups)

    @property
    def because(self) -> dict[str, int]:
        """Reason for keeping channels → their number in the whole network, the largest first."""
        return added_up(item for group in self.groups for item in group.because.items())

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Operators with unknown MACs, with the reasons; costs leave them out."""
        return tuple(map(str, self.before.uncounted))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        # Counts the compact network at first access.
        before, after = self.before, self.after
        return {
            "channels": _pair(*self.channels),
            "macs": _pair(before.macs, after.macs),
            "nonzero_macs": _pair(before.nonzero_macs, after.nonzero_macs),
            "params": _pair(before.params, after.params),
            "nonzero_params": _pair(before.nonzero_params, after.nonzero_params),
            "layers": _pair(len(self.layers), len(self.layers) - len(self.gone)),
            "gone": list(self.gone),
            "constants": list(self.constants),
            "computed": list(self.computed),
            "uncounted": list(self.uncounted),
            "round_to": self.round_to,
            "because": self.because,
            "groups": [group.to_dict() for group in self.groups],
            "cost": {"before": asdict(before), "after": asdict(after)},
        }

    def to_json(self) -> str:
        """Return the report as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        return as_text(*compile_tables(self))


def compile_report(
    compiled: Compiled,
    round_to: int,
    before: Cost,
    count_after: Callable[[], Cost],
) -> CompileReport:
    """Return the report of a compilation.

    Args:
        compiled: result of the compilation.
        round_to: multiple to which kept counts were rounded up.
        before: cost of the original network, masks as zeros.
        count_after: function that counts the compact network.
    """
    groups = tuple(
        GroupSummary(
            name=group.name,
            size=group.size,
            kept=group.size - compiled.removed.get(group.name, 0),
            members=group.members,
            pinned=group.pinned,
            because=compiled.because[group.name],
        )
        for group in compiled.groups
    )
    return CompileReport(
        groups,
        round_to,
        compiled.kernels,
        compiled.gone,
        compiled.constants,
        compiled.plan.computed,
        before,
        count_after,
    )


def _pair(before: int, after: int) -> dict[str, int]:
    return {"before": before, "after": after}


def compile_tables(report: CompileReport) -> tuple[RenderableType, ...]:
    """Return a compilation as tables: sizes, kept channels by reason, channel groups."""
    before, after = report.before, report.after
    numbers = ["before", "after", "left"]
    cost = table("Before and after", "", *numbers, numbers=numbers)
    layers = len(report.layers)
    for name, pair in {
        "channels": report.channels,
        "layers": (layers, layers - len(report.gone)),
        "parameters": (before.params, after.params),
        "non-zero parameters": (before.nonzero_params, after.nonzero_params),
        "MACs": (before.macs, after.macs),
        "non-zero MACs": (before.nonzero_macs, after.nonzero_macs),
    }.items():
        cost.add_row(name, *(f"{count:,}" for count in pair), percent_of(pair[1], pair[0]))
    lines = [
        _listed("Removed layers", report.gone),
        _listed("Now constant", report.constants),
        _listed("Weights computed once", report.computed),
        _listed("Not counted", report.uncounted),
    ]
    return (
        cost,
        *(line for line in lines if line),
        counts_table("Kept channels by reason", report.because),
        groups_text(report.groups),
    )


def _listed(title: str, names: Sequence[str]) -> Text | None:
    return Text(f"{title}: {', '.join(names)}") if names else None
