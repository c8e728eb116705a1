"""Dead spatial taps: a kernel with a zero border is a smaller kernel with less padding.

As many taps go at both ends of an axis as the padding of that axis allows, so the result is again
an ordinary convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prunec.graph.capture.node import Node, per_axis
from prunec.graph.channels.operators.convolution import Convolution
from prunec.graph.channels.operators.kernel import Kernel
from prunec.graph.channels.structure import Structure
from prunec.graph.removal.cut import cut_tensor
from prunec.graph.removal.liveness import Liveness

Taps = Mapping[str, tuple[int, ...]]
"""Weight → number of taps cut at each end of each spatial axis."""


def dead_taps(
    structure: Structure, keep: Tensor, weights: Mapping[str, Tensor], alive: Liveness
) -> Taps:
    """Return the taps that are zero in all read filters and may be cut.

    Args:
        structure: structure of the captured network.
        keep: class → whether it stays; unread filters may stay.
        weights: every parameter and buffer, uncut.
        alive: liveness.
    """
    taps: dict[str, tuple[int, ...]] = {}
    for weight, nodes in _uses(structure).items():
        kernels = _kernels(structure, weight)
        if any(k.transposed or k.node not in nodes for k in kernels):
            continue
        sizes = weights[weight].shape[2:]
        allowed = [_allowed(node, len(sizes), sizes) for node in nodes]
        # All calls of a shared kernel must allow the cut.
        least = [min(size // 2, *counts) for size, *counts in zip(sizes, *allowed, strict=True)]
        if not any(least):
            continue
        read = alive.filters(kernels).reshape([-1] + [1] * (weights[weight].dim() - 1))
        value = cut_tensor(structure, keep, weight, (weights[weight] != 0) & read)
        trimmed = tuple(min(_zero_border(value, a), n) for a, n in enumerate(least, start=2))
        if any(trimmed) and value.numel():
            taps[weight] = trimmed
    return taps


def trim(tensor: Tensor, taps: tuple[int, ...]) -> Tensor:
    """Return a kernel, or its mask, without its outer taps."""
    for axis, count in enumerate(taps, start=2):
        tensor = tensor.narrow(axis, count, tensor.shape[axis] - 2 * count)
    return tensor


def padding_after(node: Node, taps: tuple[int, ...]) -> Any:
    """Return the padding of a convolution after its taps are cut."""
    named = node.arguments
    padding = named["padding"]
    if isinstance(padding, str):
        return padding  # "same" stays the same: both ends lose as much as the kernel
    dilation = per_axis(named["dilation"], len(taps))
    return [p - t * d for p, t, d in zip(per_axis(padding, len(taps)), taps, dilation, strict=True)]


def _kernels(structure: Structure, weight: str) -> list[Kernel]:
    return [kernel for kernel in structure.of(Kernel).values() if kernel.weight == weight]


def _uses(structure: Structure) -> dict[str, list[Node]]:
    """Return convolution weights → their calls, for weights without other readers."""
    uses: dict[str, list[Node]] = {}
    convolutions = structure.of(Convolution)
    for node in structure.captured.nodes:
        if node.kind != "stored" or not node.users:
            continue
        if all(u in convolutions and u.arguments["weight"] is node for u in node.users):
            uses.setdefault(node.stored, []).extend(node.users)
    return uses


def _zero_border(reads: Tensor, axis: int) -> int:
    """Return the number of zero taps at both ends of an axis; one tap stays."""
    taps = reads.movedim(axis, 0).flatten(1).any(1)
    alive = torch.nonzero(taps).flatten()
    size = len(taps)
    if not len(alive):
        return (size - 1) // 2
    return min(int(alive[0]), size - 1 - int(alive[-1]))


def _allowed(node: Node, rank: int, kernel: tuple[int, ...]) -> list[int]:
    """Return the number of taps that the padding of a call lets go at each end of each axis."""
    named = node.arguments
    padding = named["padding"]
    if isinstance(padding, str):
        return [(size - 1) // 2 if padding == "same" else 0 for size in kernel]
    dilation = per_axis(named["dilation"], rank)
    return [p // d for p, d in zip(per_axis(padding, rank), dilation, strict=True)]
