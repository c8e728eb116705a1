"""Channel groups: what of each went, what stayed and why, as values and as text."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from prunec.inspection.layer_tree import left_of


@dataclass(frozen=True)
class GroupSummary:
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


def added_up(reasons: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Add up numbers of channels by reason, whatever node or kernel it names, largest first."""
    counts: Counter[str] = Counter()
    for reason, count in reasons:
        counts[re.sub(r" at \w+|\S+\.weight", _anywhere, reason)] += count
    return dict(counts.most_common())


def _anywhere(place: re.Match[str]) -> str:
    return "a kernel" if place[0].endswith(".weight") else ""


def groups_text(groups: Iterable[GroupSummary]) -> Group:
    """Return the channel groups: what is left of each and why, and under it what is cut with it."""
    lines: list[RenderableType] = [Text("Channel groups", style="italic")]
    for group in groups:
        why = ", ".join(f"{count:,} {reason}" for reason, count in group.because.items())
        head = Text.assemble((group.name, "bold"), f"  {left_of((group.kept, group.size))}")
        head.append(f"  {why}" if why else "")
        lines += [
            head,
            Padding(Text(owners(group.members), overflow="fold"), (0, 0, 0, 4), expand=False),
        ]
    return Group(*lines)


def owners(members: Iterable[str]) -> str:
    """Return the modules that own parameters, each once; those beside each other in braces.

    Parameters that no module owns stand by their own names.
    """
    names = dict.fromkeys(name.rpartition(".")[0] or name for name in members)
    found = []
    for parent, run in itertools.groupby(names, key=lambda name: name.rpartition(".")[0]):
        last = [name.rpartition(".")[2] for name in run]
        inside = f"{{{', '.join(last)}}}" if len(last) > 1 else last[0]
        found += last if not parent else [f"{parent}.{inside}"]
    return ", ".join(found)
