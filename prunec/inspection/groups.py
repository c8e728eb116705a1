"""Summaries of channel groups, as values and as text: removed and kept channels, and the
reasons.

See docs/glossary.md: channel group, pinned.
"""

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
    """Channel group with its numbers of channels and the reasons for keeping them.

    Attributes:
        name: name of the first kernel that makes the channels.
        size: number of channels before.
        kept: number of kept channels.
        members: parameters and buffers that the channels are cut from.
        pinned: reason why no channel may be removed, with the operator's name; empty if they may.
        because: reason for keeping channels → their number. ``live``: an output depends on them;
            ``pinned: …``; any other reason: kept although dead.
    """

    name: str
    size: int
    kept: int
    members: tuple[str, ...]
    pinned: str
    because: Mapping[str, int]

    @property
    def removed(self) -> int:
        """Number of removed channels."""
        return self.size - self.kept

    def to_dict(self) -> dict[str, Any]:
        """Return the group as JSON values."""
        return {**asdict(self), "removed": self.removed}


def added_up(reasons: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Sum numbers of channels by reason, places left out, the largest first."""
    counts: Counter[str] = Counter()
    for reason, count in reasons:
        # Reasons name a node or a kernel; without it, equal reasons add up.
        counts[re.sub(r" at \w+|\S+\.weight", _anywhere, reason)] += count
    return dict(counts.most_common())


def _anywhere(place: re.Match[str]) -> str:
    return "a kernel" if place[0].endswith(".weight") else ""


def groups_text(groups: Iterable[GroupSummary]) -> Group:
    """Return the channel groups as text: kept channels, reasons, and the modules cut together."""
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
    """Return the modules that own parameters, each once; siblings in braces.

    Parameters without a module stand by their own names.
    """
    names = dict.fromkeys(name.rpartition(".")[0] or name for name in members)
    paths = []
    # groupby joins neighbours only, so the order of computation stays.
    for parent, run in itertools.groupby(names, key=lambda name: name.rpartition(".")[0]):
        last = [name.rpartition(".")[2] for name in run]
        inside = f"{{{', '.join(last)}}}" if len(last) > 1 else last[0]
        paths += last if not parent else [f"{parent}.{inside}"]
    return ", ".join(paths)
