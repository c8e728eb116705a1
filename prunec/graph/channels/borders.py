"""Constants that a border makes uneven: a·P + b·Q, where P and Q are maps over positions.

Padding a constant channel makes it *a* inside and *b* along the border. All channels of a value
share P and Q, so a reader of several such channels can replace most of them by the others.
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
    """Constants of one value, per channel.

    Attributes:
        pattern: operators that made P and Q; values of equal patterns share P and Q.
        inside: a, in the layout's shape; NaN where unknown.
        border: b.
        sharp: whether each position is either inside or border, so that P and Q are 0 or 1.
        whole: whether P + Q = 1, so that a = b is one constant.
        widths: axis → (before, after) widths of the border; None if unknown.
    """

    pattern: tuple[object, ...]
    inside: Tensor
    border: Tensor
    sharp: bool = True
    whole: bool = True
    widths: Mapping[int, tuple[int, int]] | None = None

    @property
    def uniform(self) -> Tensor:
        """Constants with one value at all positions, zeros included; NaN for the others."""
        # a·P + a·Q is a constant only if P + Q = 1, or a = 0.
        even = torch.tensor(self.whole) | (self.inside == 0)
        same = (self.inside == self.border) & even
        return torch.where(same, self.inside, NAN)

    @property
    def is_uneven(self) -> bool:
        """Whether any known constant differs between inside and border."""
        known = ~(self.inside.isnan() | self.border.isnan())
        return bool((known & self.uniform.isnan()).any())

    def fitted(self, shape: tuple[int, ...]) -> Bordered:
        """Return the constants in the shape of a layout."""
        return replace(self, inside=fit(self.inside, shape), border=fit(self.border, shape))

    def moved(self, how: object, **changes: Any) -> Bordered:
        """Return the constants after an operator that treats the positions of all channels
        alike.
        """
        return replace(self, pattern=(*self.pattern, how), widths=None, **changes)


Borders = Mapping[Node, Bordered]
"""Node → its constants, where some of them are uneven."""


def settings(node: Node) -> tuple[object, ...]:
    """Return the effect of a call on positions: operator, arguments, size of its operand."""
    source = node.operands[0]
    named = [(key, repr(value)) for key, value in node.arguments.items() if value is not source]
    return (node.operator, tuple(named), source.shape[2:])
