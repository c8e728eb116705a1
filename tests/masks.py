"""Random norms, so that constants are not zero, and random masks of every kind."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from prunec.graph.channels.groups import ChannelGroup, Slice

Side = Literal["readers", "producers", "both"]
Masks = dict[str, Tensor]

KERNELS = (nn.modules.conv._ConvNd, nn.Linear)
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@torch.no_grad()
def randomise(module: nn.Module) -> nn.Module:
    """Give kernels, biases and norms values that keep activations near 1 and no shift at 0."""
    for part in module.modules():
        if isinstance(part, KERNELS):
            part.weight.normal_(0.0, sqrt(2.0 / part.weight[0].numel()))
            if part.bias is not None:
                part.bias.normal_(0.0, 0.3)
        elif isinstance(part, NORMS) and part.weight is not None:
            part.weight.uniform_(0.5, 1.5)
            part.bias.normal_(0.0, 0.3)
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.running_mean is not None:
            part.running_mean.normal_(0.0, 0.2)
            part.running_var.uniform_(0.5, 1.5)
    return module


@torch.no_grad()
def masked(module: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """A copy whose parameters are zero where the mask is False."""
    module = copy.deepcopy(module)
    parameters = dict(module.named_parameters())
    for name, mask in masks.items():
        parameters[name].mul_(mask)
    return module


def side_of(module: nn.Module, parameter: str, axis: int) -> str:
    """``reader`` or ``producer`` for an axis of a kernel's weight, empty for anything else.

    Axis −1 counts the inputs of a grouped kernel through its groups, −2 such outputs of a
    transposed one. A depthwise kernel is a producer: what it reads is what it makes.
    """
    owner = module.get_submodule(parameter.rpartition(".")[0])
    if not parameter.endswith("weight") or not isinstance(owner, KERNELS):
        return ""
    transposed = getattr(owner, "transposed", False)
    return "reader" if axis == -1 or axis == (0 if transposed else 1) else "producer"


def strike(
    module: nn.Module, parameter: str, axis: int, mask: Tensor, positions: Sequence[int]
) -> None:
    """Set a mask to False at positions along an axis, which may count through groups."""
    places = torch.tensor(list(positions), dtype=torch.long)
    if axis >= 0:
        mask.index_fill_(axis, places, False)
        return
    groups = module.get_submodule(parameter.rpartition(".")[0]).groups
    blocks = mask.view(groups, -1, *mask.shape[1:])
    if axis == -1 and module.get_submodule(parameter.rpartition(".")[0]).transposed:
        blocks.flatten(0, 1).index_fill_(0, places, False)
        return
    width = mask.shape[1]
    blocks[places // width, :, places % width] = False


def _touched(module: nn.Module, group: ChannelGroup, side: Side) -> list[Slice]:
    """Slices that a dropped channel zeroes on the given side."""
    parameters = dict(module.named_parameters())
    mine = [cut for cut in group.slices if cut.parameter in parameters]
    if side == "both":
        return mine
    return [cut for cut in mine if side_of(module, cut.parameter, cut.axis) + "s" == side]


def channel_masks(
    module: nn.Module, groups: Sequence[ChannelGroup], density: float, side: Side, seed: int
) -> Masks:
    """Drop random channels of every group that is free to lose some; one of each stays.

    ``readers`` zeroes what reads a dropped channel (it is unread), ``producers`` the kernels that
    make it (it is constant), ``both`` every parameter that belongs to it, norms and biases too.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(module.named_parameters())
    masks: Masks = {}
    for group in groups:
        keep = torch.rand(group.size, generator=generator) < density
        keep[torch.randint(group.size, (), generator=generator)] = True
        if group.pinned:
            continue
        for cut in _touched(module, group, side):
            name = cut.parameter
            mask = masks.setdefault(name, torch.ones_like(parameters[name], dtype=torch.bool))
            gone = [i for c, places in enumerate(cut.indices) if not keep[c] for i in places]
            strike(module, name, cut.axis, mask, gone)
    return masks


def unstructured_masks(module: nn.Module, density: float, seed: int) -> Masks:
    """Keep each weight of each kernel with probability ``density``."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(p.shape, generator=generator) < density
        for name, p in module.named_parameters()
        if p.ndim >= 2
    }


def structured_output_masks(module: nn.Module, density: float, seed: int) -> Masks:
    """Zero whole filters, whoever reads them: constants arise behind norms, sums, activations."""
    generator = torch.Generator().manual_seed(seed)
    masks: Masks = {}
    for name, p in module.named_parameters():
        if p.ndim < 2 or not side_of(module, name, 0):
            continue
        axis = 0 if side_of(module, name, 0) == "producer" else 1
        keep = torch.rand(p.shape[axis], generator=generator) < density
        shape = [1] * p.ndim
        shape[axis] = -1
        masks[name] = keep.view(shape).expand(p.shape).clone()
    return masks


def single_filter_masks(module: nn.Module, filters: int, seed: int) -> Masks:
    """Zero so many filters of the whole network and nothing else."""
    generator = torch.Generator().manual_seed(seed)
    masks: Masks = {}
    whole = structured_output_masks(module, 1.1, seed)
    for _ in range(filters):
        name = list(whole)[int(torch.randint(len(whole), (), generator=generator))]
        axis = 0 if side_of(module, name, 0) == "producer" else 1
        mask = masks.setdefault(name, whole[name])
        mask.select(axis, int(torch.randint(mask.shape[axis], (), generator=generator))).fill_(
            False
        )
    return masks
