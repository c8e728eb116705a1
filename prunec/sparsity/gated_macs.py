"""MACs as a function of the kept number of channels per group.

A regular kernel costs p·n_in·n_out/groups, a depthwise one p·n_out, with p the MACs per sample for
one pair of channels and n the kept channels on either side: bilinear in the counts of the gated
groups (GDP, arXiv 2109.02220); channels without gates are constants.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from prunec.graph.channels.groups import class_bundles
from prunec.graph.channels.operators.kernel import Kernel
from prunec.graph.channels.structure import Structure
from prunec.graph.channels.unions import Unions


@dataclass(frozen=True)
class Gated:
    """Channels of a network that a gate can stand before, and their MACs.

    G gates in B groups, L kernels.

    Attributes:
        group_of: gate → its group, shape (G,).
        sizes: number of gates in each group, shape (B,).
        widths: channels per gate of each group, shape (B,): 1, unless a grouped kernel needs the
            same positions in all its groups.
        readers: weight name of a gated kernel → gate of each input channel, shape (I,), G for no
            gate; for a grouped kernel per filter in turn, shape (O·I/groups,).
        shapes: weight name of a gated kernel → shape in which its gates broadcast against it.
        positions: MACs of a kernel for one pair of channels divided by its groups, shape (L,).
        fixed_in, fixed_out: channels without gates on either side, shape (L,).
        gated_in, gated_out: channels on either side per gate of a group, shape (L, B).
        gate_of: class of channels → its gate, −1 for none.
    """

    group_of: Tensor
    sizes: Tensor
    widths: Tensor
    readers: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    positions: Tensor
    fixed_in: Tensor
    fixed_out: Tensor
    gated_in: Tensor
    gated_out: Tensor
    gate_of: Tensor

    def to(self, device: torch.device) -> Self:
        """Return the same on another device."""
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        readers = {name: index.to(device) for name, index in self.readers.items()}
        return type(self)(**{**vars(self), **moved, "readers": readers})

    def counts(self, open_gates: Tensor) -> Tensor:
        """Return the number of open gates per group, (…, B), of a bool tensor (…, G)."""
        each = open_gates.reshape(-1, open_gates.shape[-1]).T.to(self.positions.dtype)
        counts = each.new_zeros(len(self.sizes), each.shape[1]).index_add_(0, self.group_of, each)
        return counts.T.reshape(*open_gates.shape[:-1], len(self.sizes))

    def macs(self, counts: Tensor) -> Tensor:
        """Return the MACs of one sample for kept ``counts`` per group, (B,) or (…, B)."""
        inner = self.fixed_in + counts @ self.gated_in.T
        outer = self.fixed_out + counts @ self.gated_out.T
        return (self.positions * inner * outer).sum(-1)

    def marginal(self, counts: Tensor) -> Tensor:
        """Return the MACs of one more channel in each group, ∂F/∂n, shape (B,)."""
        inner = self.fixed_in + self.gated_in @ counts
        outer = self.fixed_out + self.gated_out @ counts
        return (self.positions * outer) @ self.gated_in + (self.positions * inner) @ self.gated_out

    def shipped(self, counts: Tensor, round_to: int) -> Tensor:
        """Return counts (…, B) as they ship: whole blocks, at least one in a group that is not
        empty.

        A group that keeps all its channels keeps them whatever its size.
        """
        return self.shipping(round_to, counts.dtype)(counts)

    def shipping(self, round_to: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """Return :meth:`shipped` for counts of one type, which a search asks for many times."""
        sizes, block = self.sizes.to(dtype), self.blocks(round_to).to(dtype)
        first = torch.minimum(sizes, block)

        def shipped(counts: Tensor) -> Tensor:
            whole = torch.div(counts, block, rounding_mode="floor") * block
            whole = torch.maximum(whole, torch.where(counts > 0, first, 0))
            return torch.where(counts >= sizes, sizes, whole)

        return shipped

    def blocks(self, round_to: int) -> Tensor:
        """Return the number of gates per group whose channels fill blocks of ``round_to``, (B,)."""
        # lcm(width, round_to)/width gates are the fewest whose channels fill blocks.
        return round_to // torch.gcd(self.widths, torch.full_like(self.widths, round_to))


def gated_channels(structure: Structure) -> Gated:
    """Return the gates of a network: before every regular kernel, on each channel that may be cut.

    A depthwise kernel mixes no channels, so it gets no gates; a channel read by several kernels has
    one gate before all of them.
    """
    regular = [k for k in structure.of(Kernel).values() if not k.depthwise]
    read = {int(c) for k in regular for c in structure.class_of(k.inputs).tolist()}
    bundles = _gates(structure, read)
    gates = [classes for bundle in bundles for classes in bundle]
    gate_of = torch.full((len(structure.classes),), -1)
    for number, classes in enumerate(gates):
        gate_of[torch.tensor(classes)] = number
    sizes = torch.tensor([len(bundle) for bundle in bundles], dtype=torch.long)
    widths = torch.tensor([len(bundle[0]) for bundle in bundles], dtype=torch.long)
    group_of = torch.repeat_interleave(torch.arange(len(bundles)), sizes)
    readers = {k.weight: _columns(k, gate_of[structure.class_of(k.inputs)]) for k in regular}
    readers = {
        w: torch.where(g < 0, len(gates), g) for w, g in readers.items() if bool((g >= 0).any())
    }
    shapes = {k.weight: _shape(structure, k) for k in regular if k.weight in readers}
    kernels = list(structure.of(Kernel).values())
    inner = [_side(structure, k.inputs, gate_of, group_of, sizes) for k in kernels]
    outer = [_side(structure, k.outputs, gate_of, group_of, sizes) for k in kernels]
    none = torch.zeros(len(bundles), dtype=torch.float64)
    return Gated(
        group_of,
        sizes,
        widths,
        readers,
        shapes,
        torch.tensor(
            [k.positions / (1 if k.depthwise else k.groups) for k in kernels], dtype=torch.float64
        ),
        torch.tensor(
            [1.0 if k.depthwise else s[0] for k, s in zip(kernels, inner, strict=True)],
            dtype=torch.float64,
        ),
        torch.tensor([s[0] for s in outer], dtype=torch.float64),
        torch.stack([none if k.depthwise else s[1] for k, s in zip(kernels, inner, strict=True)]),
        torch.stack([s[1] for s in outer]),
        gate_of,
    )


def _gates(structure: Structure, read: set[int]) -> list[list[list[int]]]:
    """Return groups of gates, each gate as the classes it stands for.

    If groups of a kernel must keep equally many channels, one gate stands for the same position in
    all its groups.
    """
    bundle_of = {
        number: index
        for index, numbers in enumerate(class_bundles(structure).values())
        for number in numbers.tolist()
        if number in read
    }
    gates: dict[tuple[int, int, tuple[int, ...]], list[list[int]]] = defaultdict(list)
    for classes in _tied(structure):
        if all(number in bundle_of for number in classes):
            bundles = tuple(sorted({bundle_of[number] for number in classes}))
            gates[bundles[0], len(classes), bundles].append(classes)
    return [gates[key] for key in sorted(gates)]


def _tied(structure: Structure) -> list[list[int]]:
    """Return classes that are kept or cut together: one position in all groups of a grouped
    kernel.
    """
    unions = Unions()
    numbers = unions.fresh(len(structure.classes))  # from 1 on, since 0 is never joined
    for kernel in structure.of(Kernel).values():
        if kernel.groups == 1 or kernel.depthwise:
            continue
        for atoms in (kernel.inputs, kernel.outputs):
            rows = numbers[structure.class_of(atoms)].reshape(kernel.groups, -1)
            unions.join(rows[:1].expand_as(rows[1:]), rows[1:])
    members: dict[int, list[int]] = defaultdict(list)
    for number, own in enumerate(numbers.tolist()):
        members[unions.find(own)].append(number)
    return list(members.values())


def _side(
    structure: Structure, atoms: Tensor, gate_of: Tensor, group_of: Tensor, sizes: Tensor
) -> tuple[float, Tensor]:
    """Return the ungated channels on one side of a kernel, and the channels per gate of each
    group.
    """
    gates = gate_of[structure.class_of(atoms)]
    gated = torch.zeros(len(sizes), dtype=torch.float64)
    own = group_of[gates[gates >= 0]]
    gated.index_add_(0, own, torch.ones(len(own), dtype=torch.float64))
    return float((gates < 0).sum()), gated / sizes


def _columns(kernel: Kernel, gates: Tensor) -> Tensor:
    """Return the gates of a kernel's inputs in the order of its weight; filters of a group share
    them.
    """
    if kernel.groups == 1 or kernel.transposed:
        return gates
    filters = len(kernel.outputs) // kernel.groups
    return gates.reshape(kernel.groups, 1, -1).expand(-1, filters, -1).reshape(-1)


def _shape(structure: Structure, kernel: Kernel) -> tuple[int, ...]:
    """Return the shape in which the gates of a kernel's inputs broadcast against its weight."""
    weight = structure.captured.stored[kernel.weight]
    if kernel.transposed:
        return (-1, *[1] * (weight.dim() - 1))
    if kernel.groups > 1:
        return (*weight.shape[:2], *[1] * (weight.dim() - 2))
    return (1, -1, *[1] * (weight.dim() - 2))
