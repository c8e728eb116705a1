"""What the analysis of a captured network finds: layouts, kernels, norms, moves, pins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx import Node

from prunec.graph.capture import Captured

Mark = Callable[[Node, Tensor], None]
"""Marks positions of a node's layout as live; the bool tensor broadcasts against it."""


@dataclass(frozen=True)
class Kernel:
    """One use of a weight that mixes channels: a convolution or a linear map.

    Attributes:
        node: the call.
        weight: name of the weight: (O, I/groups, k…), transposed (I, O/groups, k…), linear (O, I).
        bias: name of the bias, or None.
        room: name of the bias that it may be given where it has none, or None.
        source: the node it reads.
        axis: channel axis of what it reads and of what it returns.
        inputs: atom of each input channel, shape (I,).
        outputs: atom of each output channel, shape (O,).
        groups: number of groups.
        transposed: whether it is a transposed convolution.
        border: taps that read beyond the input somewhere, shape (taps,), or None where none does.
        positions: multiply–accumulates of one sample for one input–output pair of channels.
    """

    node: Node
    weight: str
    bias: str | None
    source: Node
    axis: int
    inputs: Tensor
    outputs: Tensor
    groups: int
    transposed: bool
    border: Tensor | None
    positions: int
    room: str | None = None

    @property
    def depthwise(self) -> bool:
        """Whether every input channel has output channels of its own."""
        return self.groups == len(self.inputs) > 1


@dataclass(frozen=True)
class Norm:
    """One use of a batch norm: names of its tensors (or None) and its epsilon."""

    node: Node
    source: Node
    weight: str | None
    bias: str | None
    mean: str
    variance: str
    epsilon: float


@dataclass(frozen=True)
class Link:
    """Where each position of a moved tensor's layout comes from.

    ``index`` counts through the flattened layouts of ``operands``, one after the other; −1 stands
    for a position that padding made, of value ``fill``.
    """

    operands: tuple[Node, ...]
    index: Tensor
    fill: float = 0.0


class Rule:
    """What an operator of no large family does with channels: one small class for each."""

    def value(self, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor]) -> Tensor:
        """The constants it returns, NaN where unknown; broadcasts against its layout."""
        return torch.tensor(float("nan"), dtype=torch.float64)

    def read(
        self, live: Tensor, known: Mapping[Node, Tensor], weights: Mapping[str, Tensor], mark: Mark
    ) -> None:
        """Mark what it reads of its operands, where ``live`` of what it returns is read."""
        raise NotImplementedError

    def fold(self, known: Mapping[Node, Tensor], weights: MutableMapping[str, Tensor]) -> bool:
        """Take constants out of what reads them; whether anything changed."""
        return False

    @property
    def cuts(self) -> tuple[str, ...]:
        """Tables of weights that are cut with the channels of the operator."""
        return ()

    @property
    def owned(self) -> tuple[str, ...]:
        """Parameters that :meth:`fold` may change, if no one else reads them."""
        return ()

    def changes(self, kept: Callable[[Node, int], int]) -> dict[str, object]:
        """Arguments that change where ``kept(node, axis)`` channels are kept, by schema name."""
        return {}


@dataclass(frozen=True)
class Shuffle:
    """A run of moves that, seen from its ends, permutes the channels of ``entry`` on ``axis``."""

    entry: Node
    axis: int
    index: Tensor


@dataclass
class Structure:
    """What :func:`analyse` found; see the module's text for the words.

    Attributes:
        captured: the network.
        layouts: node → atoms.
        kernels, norms: the operators that own weights, by node.
        slices: (parameter or buffer, axis) → atom of each index along that axis.
        links: moved tensor → origin of its positions.
        shuffles: node → the permutation it ends; the nodes inside are in ``virtual``.
        rules: node → what its operator does, where that is of kind "rule".
        even: sets of atoms, one tensor a set, of which equally many must stay, and one at least.
        kinds: node → family of its operator, for the analyses that follow.
        pins: atom → why it must stay.
        classes: atom → representative of the atoms joined with it.
    """

    captured: Captured
    layouts: dict[Node, Tensor] = field(default_factory=dict)
    kernels: dict[Node, Kernel] = field(default_factory=dict)
    norms: dict[Node, Norm] = field(default_factory=dict)
    slices: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    links: dict[Node, Link] = field(default_factory=dict)
    shuffles: dict[Node, Shuffle] = field(default_factory=dict)
    virtual: set[Node] = field(default_factory=set)
    rules: dict[Node, Rule] = field(default_factory=dict)
    even: list[tuple[Tensor, ...]] = field(default_factory=list)
    kinds: dict[Node, str] = field(default_factory=dict)
    pins: dict[int, str] = field(default_factory=dict)
    classes: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.long))

    def class_of(self, atoms: Tensor) -> Tensor:
        """Class of each atom."""
        return self.classes[atoms]

    def pinned(self) -> dict[int, str]:
        """Class → the first reason why it must stay."""
        reasons: dict[int, str] = {}
        for atom in sorted(self.pins):
            reasons.setdefault(int(self.classes[atom]), self.pins[atom])
        return reasons


def varying(layout: Tensor) -> list[int]:
    """Axes along which the atoms of a layout differ."""
    return [
        axis
        for axis in range(layout.dim())
        if layout.shape[axis] > 1 and not bool((layout == layout.narrow(axis, 0, 1)).all())
    ]


def shrink(tensor: Tensor) -> Tensor:
    """The tensor with every axis along which it does not differ cut to size 1."""
    for axis in range(tensor.dim()):
        if tensor.shape[axis] > 1:
            first = tensor.narrow(axis, 0, 1)
            if bool((tensor == first).all()):
                tensor = first
    return tensor.contiguous()
