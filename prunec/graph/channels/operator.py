"""Channel semantics of one call of an operator, and the protocol of a writer of networks.

The analyses ask each node's operator; they name no operators themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.borders import Bordered, Borders
from prunec.graph.channels.layouts import NAN
from prunec.graph.channels.weights import Weights

Mark = Callable[[Node, Tensor], None]
"""Marks positions of a node's layout as live; the bool tensor broadcasts against it."""

Known = Mapping[Node, Tensor]
"""Node → its value at every position of its layout, float64, NaN where unknown."""

Written = Any
"""A value in the graph that a writer writes: of the writer's own kind."""


class Writer(Protocol):
    """Writer of the compiled network; operators ask it for the parts of each call.

    Every ``node`` argument is a node of the captured network; every result is a value of the new
    one.
    """

    def new(self, node: Node) -> Written:
        """Return the written value of a node."""

    def copy(self, node: Node) -> Written:
        """Write a call as it was, on written values."""

    def call(self, node: Node, **changes: Any) -> Written:
        """Write a call with other arguments, by their names."""

    def layer(self, node: Node, source: Node, layer: WrittenLayer) -> Written:
        """Write a call that owns tensors: as a module, if the network had a module for this call
        alone.
        """

    def recurrent(self, node: Node, from_zero: bool, first_states: Sequence[Tensor]) -> Written:
        """Write a stack of recurrent layers; states of zeros get the kept size of these atoms."""

    def item(self, node: Node) -> Written:
        """Write one item of the tuple that a recurrent stack returns."""

    def dropout(self, node: Node, source: Node) -> Written:
        """Write a dropout that stays active when the written network is trained."""

    def pick(self, node: Node, source: Node, axis: int, positions: Tensor) -> Written:
        """Write the selection of positions along an axis of the kept part of a value."""

    def pick_one(self, source: Node, axis: int, position: int) -> Written:
        """Write the selection of one position along an axis; the axis is dropped."""

    def scaled(self, value: Written, factor: float) -> Written:
        """Write a value times a number."""

    def bounded(self, value: Written, bound: float, *, above: bool) -> Written:
        """Write a clamp by one bound: an upper bound where ``above``, else a lower bound."""

    def resize(self, node: Node, axis: int) -> Written:
        """Write a call with its literal size of a channel axis set to the kept count."""

    def tensor(self, name: str) -> Tensor:
        """Return a stored tensor, cut to the kept channels."""

    def has(self, name: str | None) -> bool:
        """Return whether a tensor of this name is stored or was added."""

    def is_folded(self, node: Node) -> bool:
        """Return whether a batch norm was folded into the kernel before it."""

    def frozen_to_zero(self, node: Node) -> bool:
        """Return whether a value is replaced by a constant that is zero everywhere."""

    def padding(self, node: Node, weight: str) -> Any:
        """Return the padding of a convolution, reduced by the border taps that are cut."""

    def stays(self, node: Node) -> bool:
        """Return whether at least one channel of a value is kept."""

    def is_whole(self, node: Node) -> bool:
        """Return whether all channels of a value are kept."""

    def channel_axis(self, node: Node) -> int | None:
        """Return the axis along which a value's channels lie; None if there is not exactly one."""

    def kept(self, node: Node, axis: int) -> Tensor:
        """Return the kept positions along an axis of a node's layout."""

    def count_kept(self, node: Node, axis: int) -> int:
        """Return the number of kept positions along an axis."""

    def kept_atoms(self, atoms: Tensor) -> Tensor:
        """Return whether each atom is kept, a bool tensor in the shape of ``atoms``."""

    def atoms(self, node: Node) -> Tensor:
        """Return a node's layout."""


@dataclass(frozen=True)
class WrittenLayer:
    """Tensors and changed arguments of a call that is written as a layer.

    Attributes:
        names: role of a tensor in the operator (``weight``, ``bias``) → its name, or None.
        tensors: role → the cut tensor, or None.
        changes: argument name → its new value.
    """

    names: Mapping[str, str | None]
    tensors: Mapping[str, Tensor | None]
    changes: Mapping[str, Any]


class Operator:
    """Channel semantics of one call. By default nothing is constant and everything is read.

    Attributes:
        node: the call.
    """

    node: Node
    takes_constants: bool = False
    """Whether an operand may be replaced by a constant."""

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return the constants that the call computes, NaN where unknown.

        ``layouts.fit`` expands or shrinks the result to the layout of the call.
        """
        return torch.tensor(NAN, dtype=torch.float64)

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Return the computed constants that a border makes uneven, or None if there are none."""
        return None

    def at_each_position(
        self,
        sources: Sequence[Node],
        known: Known,
        borders: Borders,
        weights: Weights,
        *,
        linear: bool = False,
    ) -> Bordered | None:
        """Return the uneven constants of an operator that works position by position.

        Args:
            sources: operands.
            known: constants that are the same at all positions.
            borders: constants that are not.
            weights: weights of the network.
            linear: whether the operator is affine in its operands.
        """
        uneven = {n: borders[n] for n in sources if n in borders}
        if not uneven:
            return None
        first, *others = uneven.values()
        alike = all(other.pattern == first.pattern for other in others)
        # A nonlinear f(a·P + b·Q) is f(a)·P + f(b)·Q only if P and Q are 0 or 1; an affine one also
        # if P + Q = 1.
        if not alike or not (first.sharp or (linear and first.whole)):
            return None
        even = {n: known[n] for n in sources if n in known}
        inside = self.value({**even, **{n: b.inside for n, b in uneven.items()}}, weights)
        border = self.value({**even, **{n: b.border for n, b in uneven.items()}}, weights)
        return replace(first, inside=inside, border=border)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark the operand positions that are read, given the ``live`` positions of the result."""
        for operand in self.node.operands:
            mark(operand, torch.ones((), dtype=torch.bool))

    def fold(self, known: Known, weights: Weights) -> bool:
        """Fold constants into the weights of their reader; return whether anything changed."""
        return False

    @property
    def cuts(self) -> tuple[str, ...]:
        """Names of the weight tables that are cut along with the operator's channels."""
        return ()

    def only_cuts(self, name: str) -> bool:
        """Return whether the only use of a stored tensor here is as a table that is cut."""
        return name in self.cuts

    @property
    def owned(self) -> tuple[str, ...]:
        """Parameters that :meth:`fold` may change if no other call reads them."""
        return ()

    @property
    def required(self) -> tuple[Node, ...]:
        """Operands that must keep at least one channel."""
        return self.node.operands

    def passed(self) -> Node | None:
        """Return the single operand whose positions are moved one to one; None otherwise."""
        return None

    def move(self, values: Tensor) -> Tensor:
        """Return the result of the call with ``values`` in place of :meth:`passed`."""
        return values

    def sources(self, writer: Writer) -> Sequence[Node]:
        """Return the nodes that must be written before this one."""
        return self.node.operands

    def emit(self, writer: Writer) -> Written:
        """Write the call for the kept channels."""
        return writer.copy(self.node)


@dataclass(frozen=True, eq=False)
class Unknown(Operator):
    """A call whose channel semantics are unknown: its operands are pinned."""

    node: Node
