"""Brute-force oracles of a network: outputs, MACs, and removable channels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from masks import KERNELS, side_of
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from prunec.graph.channels.groups import ChannelGroup


@torch.no_grad()
def outputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[list[Any], str]:
    """The leaves of the output and the text of its structure; inputs are not shared."""
    leaves, structure = tree_flatten(module(*(x.clone() for x in inputs)))
    return leaves, str(structure)


def worst(module: nn.Module, other: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Largest difference of the outputs, relative to the largest value of each output."""
    (mine, shape), (theirs, same) = outputs(module, inputs), outputs(other, inputs)
    assert shape == same, f"{shape} became {same}"
    errors = [0.0]
    for a, b in zip(mine, theirs, strict=True):
        if not isinstance(a, Tensor):
            assert (type(a), a) == (type(b), b)
            continue
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        if not a.is_floating_point():
            assert torch.equal(a, b)
            continue
        scale = a.abs().max().item() or 1.0
        errors.append((a - b).abs().max().item() / scale)
    return max(errors)


def fresh_inputs(
    example: tuple[Tensor, ...], batch: int, seed: int, scale: float = 1.0
) -> tuple[Tensor, ...]:
    """Random inputs of the example's shape and another batch size."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(batch, *x.shape[1:], generator=generator, dtype=x.dtype) * scale
        for x in example
    )


def multiplications(module: nn.Module, example: tuple[Tensor, ...]) -> dict[str, int]:
    """Uses of each weight of each kernel per sample: the pixels that the layer visits."""
    visits: dict[str, int] = {}
    handles = []
    for name, part in module.named_modules():
        if isinstance(part, KERNELS):

            def count(
                part: nn.Module, given: tuple[Tensor], made: Tensor, name: str = name
            ) -> None:
                seen = given[0] if getattr(part, "transposed", False) else made
                channels = seen.shape[-1] if isinstance(part, nn.Linear) else seen.shape[1]
                pixels = seen.numel() // (channels * example[0].shape[0])
                visits[name] = visits.get(name, 0) + pixels

            handles.append(part.register_forward_hook(count))
    with torch.no_grad():
        module(*example)
    for handle in handles:
        handle.remove()
    return visits


def torch_macs(module: nn.Module, example: tuple[Tensor, ...]) -> int:
    """MACs of one sample as torch's own counter sees them, operator by operator."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*example)
    return int(counter.get_total_flops()) // (2 * example[0].shape[0])


def brute_layers(module: nn.Module, example: tuple[Tensor, ...]) -> dict[str, int]:
    """MACs of each convolution and linear layer that is a module."""
    visits = multiplications(module, example)
    return {name: module.get_submodule(name).weight.numel() * n for name, n in visits.items()}


def brute_macs(module: nn.Module, example: tuple[Tensor, ...]) -> int:
    """MACs of all convolutions and linear layers that are modules."""
    return sum(brute_layers(module, example).values())


SIDES = ("reader", "producer")


@dataclass(frozen=True)
class Look:
    """Observations on one side of a kernel, per channel: it has a gradient, it varies, it is 0."""

    needed: Tensor
    varies: Tensor
    zero: Tensor

    def joined(self, other: Look) -> Look:
        """Two uses of the same kernel."""
        return Look(self.needed | other.needed, self.varies | other.varies, self.zero & other.zero)


@dataclass(frozen=True)
class Probe:
    """Per channel of one side of a kernel: needed and varying, or needed, constant and not 0."""

    alive: Tensor
    constant: Tensor


def probe(module: nn.Module, example: tuple[Tensor, ...]) -> dict[tuple[str, str], Probe]:
    """Find by gradients and by looking which channels the network really uses.

    A channel is needed when some output has a gradient there; it varies when two pixels or two
    samples differ. No rule about operators is used. Which channels live depends on where the
    zeros are and not on the other values, so those are redrawn a few times: a ReLU that sleeps on
    one draw wakes on another. Which constants are zero does depend on the values: they stay.
    """
    looks = [_look(generic(module, seed), example, seed) for seed in range(8)]
    given = _look(module, example, 9)
    return {
        key: Probe(
            torch.stack([look[key].needed & look[key].varies for look in looks]).any(0),
            here.needed & ~here.varies & ~here.zero,
        )
        for key, here in given.items()
    }


@torch.no_grad()
def generic(module: nn.Module, seed: int) -> nn.Module:
    """A copy with zeros at the same places and every other value redrawn."""
    generator = torch.Generator().manual_seed(seed)
    module = copy.deepcopy(module)
    for p in module.parameters():
        size = torch.rand(p.shape, generator=generator, dtype=p.dtype) + 0.5
        sign = torch.randint(0, 2, p.shape, generator=generator) * 2 - 1
        p.mul_(size * sign)
    return module


def _look(module: nn.Module, example: tuple[Tensor, ...], seed: int) -> dict[tuple[str, str], Look]:
    """Run once forward and back, watching what goes into every kernel and what comes out."""
    seen: list[tuple[str, str, Tensor]] = []
    handles = []
    for name, part in module.named_modules():
        if isinstance(part, KERNELS):

            def before(_: nn.Module, given: tuple[Tensor], name: str = name) -> tuple[Tensor]:
                seen.append((name, "reader", _watched(given[0])))
                return (seen[-1][2].clone(),)

            def after(_: nn.Module, __: object, made: Tensor, name: str = name) -> Tensor:
                seen.append((name, "producer", _watched(made)))
                return seen[-1][2].clone()

            handles.append(part.register_forward_pre_hook(before))
            handles.append(part.register_forward_hook(after))
    inputs = fresh_inputs(example, 6, seed, scale=3.0)
    leaves, _ = tree_flatten(module(*(x.requires_grad_() for x in inputs)))
    sum((leaf * torch.randn_like(leaf)).sum() for leaf in leaves).backward()
    for handle in handles:
        handle.remove()
    module.zero_grad(set_to_none=True)
    collected: dict[tuple[str, str], Look] = {}
    for name, side, tensor in seen:
        now = _channels(module.get_submodule(name), tensor)
        collected[name, side] = collected.get((name, side), now).joined(now)
    return collected


def _watched(tensor: Tensor) -> Tensor:
    """A copy whose gradient is kept: the tensor itself may be written over."""
    tensor = tensor.clone()
    tensor.requires_grad_()  # a buffer's has none
    tensor.retain_grad()
    return tensor


def _channels(part: nn.Module, tensor: Tensor) -> Look:
    axis = -1 if isinstance(part, nn.Linear) else 1
    values = tensor.detach().movedim(axis, 0).flatten(1)
    spread = values.amax(1) - values.amin(1)
    gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
    slopes = gradient.movedim(axis, 0).flatten(1).abs().amax(1)
    size = values.abs().amax(1)
    return Look(slopes > 0, spread > 1e-10 * size, size == 0)


Keep = dict[str, Tensor]


def least_macs(
    module: nn.Module, example: tuple[Tensor, ...], groups: Sequence[ChannelGroup]
) -> int:
    """MACs of all layers when every channel goes that is unneeded or constant, but for carriers."""
    return sum(least_layers(module, example, groups).values())


def least_layers(
    module: nn.Module, example: tuple[Tensor, ...], groups: Sequence[ChannelGroup]
) -> dict[str, int]:
    """MACs of each layer when every channel goes that is unneeded or constant, but for carriers.

    A channel stays when any kernel that makes or reads it finds it needed and varying. A kernel
    that pads keeps one of the constants that it needs, each of its groups its own; no group of
    channels becomes empty. The groups of a grouped kernel that stay are as wide as the widest.
    """
    seen = probe(module, example)
    keep = {group.name: _kept(module, group, seen) for group in groups}
    grouped = [
        name
        for name, part in module.named_modules()
        if isinstance(part, KERNELS) and getattr(part, "groups", 1) > 1 and not _depthwise(part)
    ]
    before = -1
    while before != (before := sum(int(k.sum()) for k in keep.values())):
        for name in grouped:
            _equalise(module, name, groups, keep)
    visits = multiplications(module, example)
    return {name: n * _kept_weights(module, name, groups, keep) for name, n in visits.items()}


def _depthwise(part: nn.Module) -> bool:
    return part.groups == part.in_channels


def _along(
    module: nn.Module, name: str, side: str, groups: Sequence[ChannelGroup], keep: Keep
) -> Tensor:
    """Channels that a kernel keeps on one side, counted through its groups."""
    part = module.get_submodule(name)
    linear = isinstance(part, nn.Linear)
    inputs, outputs = (
        (part.in_features, part.out_features) if linear else (part.in_channels, part.out_channels)
    )
    kept = torch.ones(inputs if side == "reader" else outputs, dtype=torch.bool)
    for group in groups:
        for cut in group.slices:
            if cut.parameter == f"{name}.weight" and side == side_of(
                module, cut.parameter, cut.axis
            ):
                for channel, places in enumerate(cut.indices):
                    kept[list(places)] = keep[group.name][channel]
    return kept


def _equalise(module: nn.Module, name: str, groups: Sequence[ChannelGroup], keep: Keep) -> None:
    part = module.get_submodule(name)
    sides = {s: _along(module, name, s, groups, keep).view(part.groups, -1) for s in SIDES}
    stays = sides["reader"].any(1) | sides["producer"].any(1)
    for side, kept in sides.items():
        widest = max(1, int(kept.sum(1).max()))
        for number in stays.nonzero().flatten().tolist():
            missing = widest - int(kept[number].sum())
            dead = (~kept[number]).nonzero().flatten()[: max(0, missing)] + number * kept.shape[1]
            _revive(module, name, side, groups, keep, set(dead.tolist()))


def _revive(
    module: nn.Module,
    name: str,
    side: str,
    groups: Sequence[ChannelGroup],
    keep: Keep,
    positions: set[int],
) -> None:
    for group in groups:
        for cut in group.slices:
            if cut.parameter == f"{name}.weight" and side == side_of(
                module, cut.parameter, cut.axis
            ):
                for channel, places in enumerate(cut.indices):
                    if positions & set(places):
                        keep[group.name][channel] = True


def _kept_weights(module: nn.Module, name: str, groups: Sequence[ChannelGroup], keep: Keep) -> int:
    part = module.get_submodule(name)
    inputs = _along(module, name, "reader", groups, keep)
    outputs = _along(module, name, "producer", groups, keep)
    area = part.weight[0, 0].numel()
    count = getattr(part, "groups", 1)
    if count == 1:
        return int(inputs.sum()) * int(outputs.sum()) * area
    pairs = inputs.view(count, -1).sum(1) * outputs.view(count, -1).sum(1)
    return int(pairs.sum()) * area


def _kept(module: nn.Module, group: ChannelGroup, seen: dict[tuple[str, str], Probe]) -> Tensor:
    """Channels of a group that stay by the observations of the probe alone."""
    alive = torch.zeros(group.size, dtype=torch.bool)
    carriers: list[list[int]] = []
    probed = False
    for cut in group.slices:
        name, side = cut.parameter.rpartition(".")[0], side_of(module, cut.parameter, cut.axis)
        if (name, side) not in seen:
            continue
        probed |= side == "producer"
        part, look = module.get_submodule(name), seen[name, side]
        for channel, places in enumerate(cut.indices):
            alive[channel] |= bool(look.alive[list(places)].any())
        if side == "reader" and _pads(part):
            carriers += _constants(cut.indices, look.constant, len(look.constant) // part.groups)
    if group.pinned or not probed:
        return torch.ones(group.size, dtype=torch.bool)
    for constants in carriers:
        dead = [channel for channel in constants if not alive[channel]]
        if dead:
            alive[dead[0]] = True
    if not alive.any():
        alive[0] = True
    return alive


def _pads(part: nn.Module) -> bool:
    return not isinstance(part, nn.Linear) and (
        part.transposed or part.padding not in ("valid", (0,) * len(part.kernel_size))
    )


def _constants(indices: Sequence[tuple[int, ...]], constant: Tensor, width: int) -> list[list[int]]:
    """Channels that are constant where a kernel reads them, for each of the kernel's groups."""
    collected: dict[int, list[int]] = {}
    for channel, places in enumerate(indices):
        for place in places:
            if constant[place]:
                collected.setdefault(place // width, []).append(channel)
    return list(collected.values())
