"""What a compile did and why: channel groups, layers that went, cost before and after."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from prunec.cost import Cost

if TYPE_CHECKING:
    from prunec.graph.compile import Compiled


@dataclass(frozen=True)
class GroupReport:
    """A channel group: what of it went, what stayed and why.

    Attributes:
        name: of the first kernel that makes the channels.
        size: how many there were.
        kept: how many stayed.
        members: the parameters and buffers that they are cut from.
        pinned: why none may go, with the operator's name; empty where they may.
        because: why channels stayed → how many. ``live``: an output depends on them; ``pinned: …``;
            anything else: kept though dead.
    """

    name: str
    size: int
    kept: int
    members: tuple[str, ...]
    pinned: str
    because: Mapping[str, int]

    @property
    def removed(self) -> int:
        """How many channels went."""
        return self.size - self.kept

    def to_dict(self) -> dict[str, Any]:
        """The group as JSON's kinds of values."""
        return {**asdict(self), "removed": self.removed}


@dataclass(frozen=True)
class CompileReport:
    """What :func:`prunec.compile` did; ``print(report)`` shows it.

    The cost after is counted when it is first asked for, of the network as it is then.

    Attributes:
        groups: every channel group, in the order of computation.
        round_to: the multiple that kept counts were rounded up to.
        layers: the layers with kernels of the network before.
        gone: those of them that nothing is left of.
        constants: modules (or nodes of the graph) of which nothing but a stored constant is left.
        before: cost of one sample of the network before, masks as zeros.
    """

    groups: tuple[GroupReport, ...]
    round_to: int
    layers: tuple[str, ...]
    gone: tuple[str, ...]
    constants: tuple[str, ...]
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
        """Why channels stayed → how many, wherever in the network, the most frequent first."""
        return added_up(item for group in self.groups for item in group.because.items())

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON's kinds of values."""
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
            "round_to": self.round_to,
            "because": self.because,
            "groups": [group.to_dict() for group in self.groups],
            "cost": {"before": asdict(before), "after": asdict(after)},
        }

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        from prunec.tables import as_text, compile_tables

        return as_text(*compile_tables(self))


def compile_report(
    compiled: Compiled,
    round_to: int,
    before: Cost,
    count_after: Callable[[], Cost],
) -> CompileReport:
    """Return the report of a compile.

    Args:
        compiled: what it made.
        round_to: the multiple that kept counts were rounded up to.
        before: cost of the network before, masks as zeros.
        count_after: counts the compact network.
    """
    groups = tuple(
        GroupReport(
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
        before,
        count_after,
    )


def added_up(reasons: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Add up numbers of channels by reason, whatever node or kernel it names, largest first."""
    counts: Counter[str] = Counter()
    for reason, count in reasons:
        counts[re.sub(r" at \w+|\S+\.weight", _anywhere, reason)] += count
    return dict(counts.most_common())


def _anywhere(place: re.Match[str]) -> str:
    return "a kernel" if place[0].endswith(".weight") else ""


def _pair(before: int, after: int) -> dict[str, int]:
    return {"before": before, "after": after}
