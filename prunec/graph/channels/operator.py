"""What one call of an operator means for channels, and what it may ask of a writer.

The analyses walk over nodes and ask each one's operator; none of them knows which operators exist.
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
    """What writes a network anew; the operators say how each call is to be written.

    ``node`` is always a node of the captured network, what is returned a value of the new one.
    """

    def new(self, node: Node) -> Written:
        """Return the written value of a node."""

    def copy(self, node: Node) -> Written:
        """Write a call as it was, on written values."""

    def call(self, node: Node, **changes: Any) -> Written:
        """Write a call with other arguments, by their names."""

    def layer(self, node: Node, source: Node, layer: Layer) -> Written:
        """Write a call that owns tensors; as a module where the network had one for it alone."""

    def recurrent(self, node: Node, from_zero: bool, first_states: Sequence[Tensor]) -> Written:
        """Write a stack of recurrent layers; a state of zeros holds the kept of these atoms."""

    def item(self, node: Node) -> Written:
        """Write an item of what a recurrent stack returns."""

    def dropout(self, node: Node, source: Node) -> Written:
        """Write a dropout: it trains on."""

    def pick(self, node: Node, source: Node, axis: int, positions: Tensor) -> Written:
        """Write positions along an axis of what is left of a value."""

    def pick_one(self, source: Node, axis: int, position: int) -> Written:
        """Write one position along an axis, the axis gone."""

    def scaled(self, value: Written, factor: float) -> Written:
        """Write a value times a number."""

    def bounded(self, value: Written, bound: float, *, above: bool) -> Written:
        """Write a value that does not pass a bound: below it where ``above``, else above it."""

    def resize(self, node: Node, axis: int) -> Written:
        """Write a call whose literal for the size of a channel axis is the number that stays."""

    def tensor(self, name: str) -> Tensor:
        """Return a stored tensor, cut."""

    def has(self, name: str | None) -> bool:
        """Say whether there is a stored tensor of this name, or one was added."""

    def is_folded(self, node: Node) -> bool:
        """Say whether a norm went into the kernel before it."""

    def frozen_to_zero(self, node: Node) -> bool:
        """Say whether a value is replaced by a constant that is zero throughout."""

    def padding(self, node: Node, weight: str) -> Any:
        """Return the padding of a convolution, less that of taps that go."""

    def stays(self, node: Node) -> bool:
        """Say whether any channel of a value stays."""

    def is_whole(self, node: Node) -> bool:
        """Say whether all channels of a value stay."""

    def channel_axis(self, node: Node) -> int | None:
        """Return the axis along which a value's channels differ, if it is one."""

    def kept(self, node: Node, axis: int) -> Tensor:
        """Return the positions that stay along an axis of a node's layout."""

    def count_kept(self, node: Node, axis: int) -> int:
        """Return how many positions stay along an axis."""

    def kept_atoms(self, atoms: Tensor) -> Tensor:
        """Return for each atom whether it stays."""

    def atoms(self, node: Node) -> Tensor:
        """Return a node's layout."""


@dataclass(frozen=True)
class Layer:
    """How a call that owns tensors is written.

    Attributes:
        names: what a tensor is to the operator, ``weight`` or ``bias``, → its name, or None.
        tensors: the same → the tensor, cut; None where there is none.
        changes: arguments that change, by their names.
    """

    names: Mapping[str, str | None]
    tensors: Mapping[str, Tensor | None]
    changes: Mapping[str, Any]


class Operator:
    """What one call does with channels. By default: nothing is known, everything is read.

    Attributes:
        node: the call.
    """

    node: Node
    takes_constants: bool = False
    """Whether a constant may take the place of an operand."""

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return the constants that it makes, NaN where unknown; ``fit`` fits it to its layout."""
        return torch.tensor(NAN, dtype=torch.float64)

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Return the constants that it makes which a border makes uneven; None for none."""
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
        """Return the uneven constants of an operator that sees one position at a time.

        Args:
            sources: what it reads.
            known: the constants that are even.
            borders: those that are not.
            weights: of the network.
            linear: whether it is linear in what it reads, apart from a shift.
        """
        uneven = {n: borders[n] for n in sources if n in borders}
        if not uneven:
            return None
        first, *others = uneven.values()
        alike = all(other.pattern == first.pattern for other in others)
        if not alike or not (first.sharp or (linear and first.whole)):
            return None
        even = {n: known[n] for n in sources if n in known}
        inside = self.value({**even, **{n: b.inside for n, b in uneven.items()}}, weights)
        border = self.value({**even, **{n: b.border for n, b in uneven.items()}}, weights)
        return replace(first, inside=inside, border=border)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark what it reads of its operands, where ``live`` of what it returns is read."""
        for operand in self.node.operands:
            mark(operand, torch.ones((), dtype=torch.bool))

    def fold(self, known: Known, weights: Weights) -> bool:
        """Take constants out of what reads them; say whether anything changed."""
        return False

    @property
    def cuts(self) -> tuple[str, ...]:
        """Names of the tables of weights that are cut with the channels of the operator."""
        return ()

    def only_cuts(self, name: str) -> bool:
        """Say whether it reads a stored tensor in no other way than one that is cut."""
        return name in self.cuts

    @property
    def owned(self) -> tuple[str, ...]:
        """Parameters that :meth:`fold` may change, if no one else reads them."""
        return ()

    @property
    def required(self) -> tuple[Node, ...]:
        """Operands that may not be left without a channel."""
        return self.node.operands

    def passed(self) -> Node | None:
        """Return the one operand whose positions it moves, each to one place; None otherwise."""
        return None

    def move(self, values: Tensor) -> Tensor:
        """Return what it makes of other values in place of :meth:`passed`."""
        return values

    def sources(self, writer: Writer) -> Sequence[Node]:
        """Return the nodes that must be written before it."""
        return self.node.operands

    def emit(self, writer: Writer) -> Written:
        """Write the call for the channels that stay."""
        return writer.copy(self.node)


@dataclass(frozen=True, eq=False)
class Unknown(Operator):
    """An operator that is not understood, or a case of one: its operands are pinned."""

    node: Node
