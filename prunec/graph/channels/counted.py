"""Layers of a network as functions of the kept number of channels per group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prunec.graph.channels.operators.kernel import Kernel
from prunec.graph.channels.structure import Structure


@dataclass(frozen=True)
class LayerShape:
    """Shape of a layer: all its time depends on besides the machine.

    Attributes:
        kind: ``conv`` or ``linear``.
        inner: input channels.
        outer: output channels.
        groups: groups of a convolution.
        size: input size per spatial axis; of a linear layer, (rows per sample,).
        taps: kernel size per axis.
        stride: stride per axis.
        padding: padding at the beginnings of all axes, then at the ends.
        dilation: dilation per axis.
    """

    kind: str
    inner: int
    outer: int
    groups: int = 1
    size: tuple[int, ...] = ()
    taps: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()


Times = Callable[[Sequence[LayerShape]], Sequence[float]]
"""Times of layers, in milliseconds each; layers of one call are measured to be compared."""


@dataclass(frozen=True)
class CountedLayer:
    """A layer with channels in groups that may be cut.

    Attributes:
        whole: shape before any cut.
        inner: channel group → inputs of the layer per channel of the group.
        outer: channel group → outputs of the layer per channel of the group.
        fixed: numbers of inputs and outputs in no group.
    """

    whole: LayerShape
    inner: dict[int, float]
    outer: dict[int, float]
    fixed: tuple[int, int]

    def at(self, counts: Sequence[int]) -> LayerShape | None:
        """Return the shape for these kept counts per group; None if no such layer can exist."""
        inner, outer = (
            fixed + round(sum(share * counts[group] for group, share in side.items()))
            for fixed, side in zip(self.fixed, (self.inner, self.outer), strict=True)
        )
        # A depthwise layer loses a group per channel; other groups lose channels evenly.
        groups = inner if self.whole.groups == self.whole.inner > 1 else self.whole.groups
        if not inner or not outer or inner % groups or outer % groups:
            return None
        return replace(self.whole, inner=inner, outer=outer, groups=groups)


def counted_layers(structure: Structure, groups: Sequence[Tensor]) -> list[CountedLayer]:
    """Return the convolutions and linear layers of a network; other operators are not counted.

    Args:
        structure: structure of the captured network.
        groups: class numbers of each channel group.
    """
    group_of = torch.full((len(structure.classes),), -1)
    for number, classes in enumerate(groups):
        group_of[classes] = number
    sizes = [len(classes) for classes in groups]
    return list(_counted(structure, group_of, sizes))


def _counted(
    structure: Structure, group_of: Tensor, sizes: Sequence[int]
) -> Iterator[CountedLayer]:
    for kernel in structure.of(Kernel).values():
        whole = _shape(structure, kernel)
        if whole is None:
            continue
        sides = [group_of[structure.class_of(atoms)] for atoms in (kernel.inputs, kernel.outputs)]
        shares = [
            {g: n / sizes[g] for g, n in enumerate(_counts(side, len(sizes))) if n}
            for side in sides
        ]
        fixed = int((sides[0] < 0).sum()), int((sides[1] < 0).sum())
        yield CountedLayer(whole, shares[0], shares[1], fixed)


def _counts(side: Tensor, groups: int) -> list[int]:
    counts: list[int] = torch.bincount(side[side >= 0], minlength=groups).tolist()
    return counts


def _shape(structure: Structure, kernel: Kernel) -> LayerShape | None:
    """Return the shape of a layer; None for operators that are not timed."""
    weight = structure.captured.stored[kernel.weight]
    inner, outer, shape = len(kernel.inputs), len(kernel.outputs), kernel.source.shape
    named, rank = kernel.node.arguments, weight.dim() - 2
    if kernel.transposed or not all(isinstance(size, int) for size in shape[1:]):
        return None
    if "stride" in named and rank and len(shape) == rank + 2:
        border = _padding(named.get("padding"), rank)
        if border is None:
            return None
        return LayerShape(
            "conv",
            inner,
            outer,
            kernel.groups,
            tuple(shape[2:]),
            tuple(weight.shape[2:]),
            _each(named["stride"], rank),
            border,
            _each(named["dilation"], rank),
        )
    if not rank and kernel.axis == len(shape) - 1:
        rows = 1
        for size in shape[1:-1]:
            rows *= size
        return LayerShape("linear", inner, outer, size=(rows,))
    return None


def _each(value: object, rank: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * rank
    assert isinstance(value, (list, tuple))
    return tuple(int(v) for v in value) * (rank if len(value) == 1 else 1)


def _padding(value: object, rank: int) -> tuple[int, ...] | None:
    """Return padding at the beginnings, then at the ends; None for a named padding."""
    if isinstance(value, str):
        return None
    return _each(0 if value is None else value, rank) * 2
