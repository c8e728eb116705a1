"""Constants that a border makes uneven: a·P + b·Q, P and Q maps over positions, not over channels.

What pads a channel that is constant makes it *a* inside and *b* along the border. All channels of a
value share P and Q, so that what reads several of them can take most of them from the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.layouts import NAN, fit


@dataclass(frozen=True)
class Bordered:
    """The constants of one value, channel by channel.

    Attributes:
        pattern: what made P and Q: two values of equal patterns have them in common.
        inside: a, in the layout's shape; NaN where unknown.
        border: b.
        sharp: whether each position is inside or border, and nothing between.
        whole: whether P + Q = 1, so that a = b is one constant.
        widths: axis → how wide the border is before and after; None where that is not known.
    """

    pattern: tuple[object, ...]
    inside: Tensor
    border: Tensor
    sharp: bool = True
    whole: bool = True
    widths: Mapping[int, tuple[int, int]] | None = None

    @property
    def uniform(self) -> Tensor:
        """The constants that are one number everywhere, zeros always; NaN for the others."""
        even = torch.tensor(self.whole) | (self.inside == 0)
        same = (self.inside == self.border) & even
        return torch.where(same, self.inside, NAN)

    @property
    def is_uneven(self) -> bool:
        """Whether any channel's constant is not one number everywhere."""
        known = ~(self.inside.isnan() | self.border.isnan())
        return bool((known & self.uniform.isnan()).any())

    def fitted(self, shape: tuple[int, ...]) -> Bordered:
        """Return it in a layout's shape."""
        return replace(self, inside=fit(self.inside, shape), border=fit(self.border, shape))

    def moved(self, how: object, **changes: Any) -> Bordered:
        """Return it behind an operator that moves or mixes positions, of all channels alike."""
        return replace(self, pattern=(*self.pattern, how), widths=None, **changes)


Borders = Mapping[Node, Bordered]
"""Node → its constants, where some of them are uneven."""


def settings(node: Node) -> tuple[object, ...]:
    """Return what a call does to positions: its name, its arguments, the sizes of its operand."""
    source = node.operands[0]
    named = [(key, repr(value)) for key, value in node.arguments.items() if value is not source]
    return (node.operator, tuple(named), source.shape[2:])
