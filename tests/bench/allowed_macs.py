"""MACs allowed by channel masks: those left when every masked channel goes, and no other.

It is computed from the channel groups as data, from the masks, and from one run of the unmasked
network that is watched below autograd, where every convolution and matrix product is one of five
operators. No decision of the compiler enters.

- A call that reads the memory of a parameter belongs to that parameter, whether a module made it or
  a function: *visits* = (its MACs) / (size of the parameter).
- A channel is kept if any parameter that it cuts is unmasked anywhere on its slice.
- What a kernel is allowed is visits · (kept inputs) · (kept outputs) · taps, group by group.
- The groups of a grouped convolution must stay equally wide: the narrower take dropped channels
  back until all are as wide as the widest, and these are then kept wherever they are cut. So must
  the directions and layers of a recurrent layer, whose sizes torch takes as one number.
- Products of two activations, as in attention, are counted apart and whole: masks say nothing about
  them.
- What follows from no input is the same for every sample, and no cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from prunec.graph.channels.groups import ChannelGroup

aten = torch.ops.aten
PRODUCTS = {
    aten.mm.default: 0,
    aten.addmm.default: 1,
    aten.bmm.default: 0,
    aten.baddbmm.default: 1,
}  # operator → place of its first factor


@dataclass
class Use:
    """MACs of one sample that read a parameter, and how the convolution groups it."""

    macs: int = 0
    groups: int = 1
    transposed: bool = False


@dataclass(frozen=True)
class Metered:
    """MACs of one sample: by parameter, and of products in which no parameter stands."""

    uses: Mapping[str, Use]
    products: int

    @property
    def macs(self) -> int:
        return self.products + sum(use.macs for use in self.uses.values())


@dataclass(frozen=True)
class Allowed:
    """MACs of one sample.

    Attributes:
        macs: what masks allow, products included.
        separate: the same if every group of a grouped convolution could have its own width.
        products: MACs of products of two activations, which masks do not touch.
        dense: without masks.
    """

    macs: int
    separate: int
    products: int
    dense: int


def metered(module: nn.Module, example: tuple[Tensor, ...]) -> Metered:
    """Run a network on one sample and count what it multiplies that follows from the sample."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator that hides its products
    sample = [x[:1].clone() for x in example]
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _Meter(module, sample) as meter:
            module(*sample)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return Metered(meter.uses, meter.products)


class _Meter(TorchDispatchMode):
    """Counts products; ``follows`` says of every memory whether the sample decides its values."""

    def __init__(self, module: nn.Module, sample: Sequence[Tensor]) -> None:
        super().__init__()
        self.follows = {_memory(x): True for x in sample}
        self.names = {
            p.untyped_storage().data_ptr(): name
            for name, p in module.named_parameters()
            if p.ndim > 1
        }
        self.uses: dict[str, Use] = {}
        self.products = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        follows = any(self.follows.get(_memory(x), False) for x in _tensors((args, kwargs)))
        self.follows.update((_memory(x), follows) for x in _tensors(made))
        if not follows:
            return made
        if func is aten.convolution.default:
            x, weight, transposed, groups = args[0], args[1], args[6], args[8]
            seen = x if transposed else made
            macs = seen.shape[0] * math.prod(seen.shape[2:]) * weight.numel()
            self.add((weight,), macs, groups, transposed)
        elif func in PRODUCTS:
            first, second = args[PRODUCTS[func]], args[PRODUCTS[func] + 1]
            self.add((second, first), first.numel() * second.shape[-1])
        return made

    def add(
        self, factors: Sequence[Tensor], macs: int, groups: int = 1, transposed: bool = False
    ) -> None:
        owners = [self.names.get(x.untyped_storage().data_ptr()) for x in factors]
        name = next((owner for owner in owners if owner), None)
        if name is None:
            self.products += macs
            return
        use = self.uses.setdefault(name, Use())
        use.macs, use.groups, use.transposed = use.macs + macs, groups, transposed


def _tensors(values: Any) -> list[Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]


def _memory(x: Tensor) -> int:
    """The memory that a tensor is a view of; views and in-place writes share it."""
    return x.untyped_storage()._cdata


def allowed_macs(
    module: nn.Module,
    example: tuple[Tensor, ...],
    groups: Sequence[ChannelGroup],
    masks: Mapping[str, Tensor],
) -> Allowed:
    """Return the MACs that masks allow; the network runs once and is not changed."""
    whole = metered(module, example)
    kept = _Kept(module, groups, masks, whole.uses)
    separate = kept.macs()
    kept.equalise()
    return Allowed(
        kept.macs() + whole.products, separate + whole.products, whole.products, whole.macs
    )


@dataclass
class _Kept:
    """Kept channels by channel group, and their positions on the parameters' axes."""

    module: nn.Module
    groups: Sequence[ChannelGroup]
    masks: Mapping[str, Tensor]
    uses: Mapping[str, Use]
    keep: list[Tensor] = field(default_factory=list)
    places: dict[tuple[str, int], list[tuple[int, Tensor, Tensor]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parameters = dict(self.module.named_parameters())
        self.even = [cells for layer in _recurrent(self.module) for cells in layer]
        for number, group in enumerate(self.groups):
            seen = torch.zeros(group.size, dtype=torch.bool)
            touched = False
            for cut in group.slices:
                if cut.parameter not in self.parameters:
                    continue
                channels, positions = _spread(cut.indices)
                key = (cut.parameter, cut.axis)
                self.places.setdefault(key, []).append((number, channels, positions))
                if cut.parameter in self.masks:
                    touched = True
                    alive = self.somewhere(cut.parameter, cut.axis)[positions]
                    seen[channels[alive]] = True
            self.keep.append(seen if touched and not group.pinned else torch.ones_like(seen))

    def somewhere(self, name: str, axis: int) -> Tensor:
        """Return whether the mask of a parameter is True anywhere, per position along an axis."""
        mask = self.masks[name]
        if axis >= 0:
            return mask.movedim(axis, 0).flatten(1).any(1) if mask.ndim > 1 else mask
        blocks = mask.reshape(self.groups_of(name), -1, mask.shape[1], mask[0, 0].numel())
        return blocks.any(3).any(1).flatten()

    def groups_of(self, name: str) -> int:
        """Of the convolution that uses a weight, or its layer's where it computes with it first."""
        owner = self.module.get_submodule(name.rpartition(".")[0])
        return self.uses[name].groups if name in self.uses else int(getattr(owner, "groups", 1))

    def along(self, name: str, axis: int) -> Tensor:
        """Positions along an axis of a parameter that are kept."""
        shape = self.parameters[name].shape
        kept = torch.ones(
            shape[axis] if axis >= 0 else shape[1] * self.groups_of(name), dtype=torch.bool
        )
        for number, channels, positions in self.places.get((name, axis), ()):
            kept[positions] = self.keep[number][channels]
        return kept

    def macs(self) -> int:
        return sum(self.macs_of(name, use) for name, use in self.uses.items())

    def macs_of(self, name: str, use: Use) -> int:
        shape = self.parameters[name].shape
        visits = use.macs // math.prod(shape)
        if use.groups == 1:
            return visits * math.prod(
                int(self.along(name, axis).sum()) for axis in range(len(shape))
            )
        inputs, outputs = (self.along(name, axis) for axis in _sides(use))
        pairs = inputs.view(use.groups, -1).sum(1) * outputs.view(use.groups, -1).sum(1)
        return visits * int(pairs.sum()) * math.prod(shape[2:])

    def equalise(self) -> None:
        """Take channels back until what torch gives one width is equally wide."""
        grouped = [(n, u) for n, u in self.uses.items() if 1 < u.groups < self.inputs(n, u)]
        before = -1
        while before != (before := sum(int(k.sum()) for k in self.keep)):
            for name, use in grouped:
                self.widen(name, use)
            for cells in self.even:
                self.even_out(cells)

    def inputs(self, name: str, use: Use) -> int:
        shape = self.parameters[name].shape
        return shape[0] if use.transposed else shape[1] * use.groups

    def widen(self, name: str, use: Use) -> None:
        sides = {axis: self.along(name, axis).view(use.groups, -1) for axis in _sides(use)}
        stays = torch.stack([side.any(1) for side in sides.values()]).any(0)
        for axis, side in sides.items():
            wanted = max(1, int(side.sum(1).max()))
            for group in torch.nonzero(stays).flatten().tolist():
                dropped = torch.nonzero(~side[group]).flatten()
                missing = dropped[: max(0, wanted - int(side[group].sum()))]
                self.take_back(name, axis, missing + group * side.shape[1])

    def even_out(self, cells: Sequence[str]) -> None:
        """Each of these weights reads as many inputs as the widest."""
        sides = {name: self.along(name, 1) for name in cells}
        wanted = max(int(side.sum()) for side in sides.values())
        for name, side in sides.items():
            dropped = torch.nonzero(~side).flatten()
            self.take_back(name, 1, dropped[: wanted - int(side.sum())])

    def take_back(self, name: str, axis: int, wanted: Tensor) -> None:
        for number, channels, positions in self.places.get((name, axis), ()):
            self.keep[number][channels[torch.isin(positions, wanted)]] = True


def _sides(use: Use) -> tuple[int, int]:
    """The axes of a grouped kernel's inputs and outputs, as channel groups name them."""
    return (0, -2) if use.transposed else (-1, 0)


def _recurrent(module: nn.Module) -> list[list[list[str]]]:
    """For each recurrent layer the weights that read its states, and its projections of units."""
    layers = [(n, part) for n, part in module.named_modules() if isinstance(part, nn.RNNBase)]
    collected = []
    for path, layer in layers:
        names = [name for name, _ in layer.named_parameters()]
        kinds = [[n for n in names if n.startswith(kind)] for kind in ("weight_hh", "weight_hr")]
        collected.append([[f"{path}.{n}".lstrip(".") for n in kind] for kind in kinds if kind])
    return collected


def _spread(indices: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Positions one after the other, and the channel of each."""
    channels = [channel for channel, places in enumerate(indices) for _ in places]
    positions = [place for places in indices for place in places]
    return torch.tensor(channels, dtype=torch.long), torch.tensor(positions, dtype=torch.long)
