"""The layers of a network as functions of how many channels each channel group keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prunec.graph.channels.operators.kernel import Kernel
from prunec.graph.channels.structure import Structure


@dataclass(frozen=True)
class LayerShape:
    """All that the time of a layer depends on besides the machine.

    Attributes:
        kind: ``conv`` or ``linear``.
        inner: channels that it reads.
        outer: channels that it makes.
        groups: of a convolution.
        size: positions that a sample has along each axis before it; of a linear layer, rows.
        taps: of a convolution, along each axis.
        stride: of a convolution, along each axis.
        padding: of a convolution, at the beginning and at the end of each axis.
        dilation: of a convolution, along each axis.
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
"""What layers take, in milliseconds each; those that are asked for together are compared."""


@dataclass(frozen=True)
class CountedLayer:
    """A layer whose channels may go.

    Attributes:
        whole: as it is, uncut.
        inner: group of channels → how many of its inputs one channel of the group is.
        outer: the same of its outputs.
        fixed: inputs and outputs that are in no group.
    """

    whole: LayerShape
    inner: dict[int, float]
    outer: dict[int, float]
    fixed: tuple[int, int]

    def at(self, counts: Sequence[int]) -> LayerShape | None:
        """Return what is left of it where the groups keep so many; None: nothing, or no layer."""
        inner, outer = (
            fixed + round(sum(share * counts[group] for group, share in side.items()))
            for fixed, side in zip(self.fixed, (self.inner, self.outer), strict=True)
        )
        groups = inner if self.whole.groups == self.whole.inner > 1 else self.whole.groups
        if not inner or not outer or inner % groups or outer % groups:
            return None
        return replace(self.whole, inner=inner, outer=outer, groups=groups)


def counted_layers(structure: Structure, groups: Sequence[Tensor]) -> list[CountedLayer]:
    """Return the convolutions and linear layers of a network; no other is counted.

    Args:
        structure: of the captured network.
        groups: the classes of each group of channels.
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
    found: list[int] = torch.bincount(side[side >= 0], minlength=groups).tolist()
    return found


def _shape(structure: Structure, kernel: Kernel) -> LayerShape | None:
    """A layer as it stands; None where it is another operator than the two that are timed."""
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
    """Padding at the beginnings, then at the ends; None where it is a word."""
    if isinstance(value, str):
        return None
    return _each(0 if value is None else value, rank) * 2
