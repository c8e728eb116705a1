"""From a network with zeros in its weights to the smaller network that computes the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from prunec.graph.atoms import analyse
from prunec.graph.capture import Captured, capture
from prunec.graph.cut import cut_tensor
from prunec.graph.decide import Decision, decide
from prunec.graph.groups import ChannelGroup, groups_of
from prunec.graph.plan import Plan, plan_of
from prunec.graph.rewrite import rewrite
from prunec.graph.structure import Structure


@dataclass(frozen=True)
class Compiled:
    """A compact network.

    Attributes:
        module: it computes what the masked network computed, has the same call signature, trains.
        plan: what was cut, to do the same to a fresh network.
        masks: what is left of the masks, in the compact shapes.
        groups: the channel groups of the network before.
        removed: channel group → number of its channels that went.
    """

    module: GraphModule
    plan: Plan
    masks: dict[str, Tensor]
    groups: tuple[ChannelGroup, ...]
    removed: dict[str, int]


def compile_module(
    module: nn.Module,
    example: tuple[Tensor, ...],
    *,
    masks: Mapping[str, Tensor] | None = None,
    round_to: int = 1,
) -> Compiled:
    """Remove every channel that does not matter to the output, exactly.

    Args:
        module: the network; it is not changed.
        example: its positional inputs, batch first, at least two samples.
        masks: parameter name → bool tensor of its shape; False counts as weight zero.
        round_to: kept counts of each channel group are rounded up to a multiple of it.

    Raises:
        UntraceableModel: the network cannot be captured.
    """
    captured = capture(module, example)
    structure = analyse(captured)
    decision = decide(structure, masked_weights(captured, masks or {}), round_to=round_to)
    plan = plan_of(structure, decision)
    groups = groups_of(structure)
    removed = _removed(structure, decision, groups)
    kept_masks = {
        name: cut_tensor(structure, decision.keep, name, mask)
        for name, mask in (masks or {}).items()
    }
    compact = rewrite(structure, decision, plan)
    left = dict(compact.named_parameters())
    kept_masks = {  # a carrier may have taken in others where it was masked
        name: mask | (left[name] != 0) for name, mask in kept_masks.items() if name in left
    }
    return Compiled(compact, plan, kept_masks, groups, removed)


def masked_weights(captured: Captured, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every parameter and buffer of a captured network, zero where masked."""
    weights = dict(captured.module.state_dict())
    for node in captured.nodes:
        if node.op == "get_attr":
            weights.setdefault(str(node.target), captured.tensor(str(node.target)))
    for name, mask in masks.items():
        if name in weights:
            weights[name] = torch.where(mask, weights[name], 0)
    return weights


def _removed(
    structure: Structure, decision: Decision, groups: tuple[ChannelGroup, ...]
) -> dict[str, int]:
    counts = {}
    for group in groups:
        gone = group.size - int(decision.keep[torch.tensor(group.channels)].sum())
        if gone:
            counts[group.name] = gone
    return counts
