"""Compilation: from a network with zeros in its weights to an equivalent smaller network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from prunec.graph.capture import Captured, capture, uncollected
from prunec.graph.capture.computed import evaluated
from prunec.graph.channels.analyse import analyse
from prunec.graph.channels.groups import ChannelGroup, groups_of
from prunec.graph.channels.operators.kernel import Kernel
from prunec.graph.channels.structure import Structure
from prunec.graph.removal.counts import Rounding
from prunec.graph.removal.cut import cut_tensor
from prunec.graph.removal.decide import Decision, decide
from prunec.graph.removal.taps import trim
from prunec.graph.rewriting.plan import Plan, plan_of
from prunec.graph.rewriting.rewrite import rewrite
from prunec.graph.rewriting.unties import kept_after, unties

LIVE = "live"
"""Reason for a channel that affects an output: it is read, and its value is not constant."""


@dataclass(frozen=True)
class Compiled:
    """Compact network, with the record of its compilation.

    Attributes:
        module: compact network: trainable, with the outputs and call signature of the masked one.
        plan: record of the cut, applicable to a fresh network.
        masks: masks in the compact shapes.
        groups: channel groups of the original network.
        removed: channel group → number of removed channels.
        because: channel group → reason for keeping channels → their number.
        kernels: layers with kernels in the original network.
        gone: layers with kernels that are removed entirely.
        constants: modules (or nodes) whose value is now a stored constant.
    """

    module: GraphModule
    plan: Plan
    masks: dict[str, Tensor]
    groups: tuple[ChannelGroup, ...]
    removed: dict[str, int]
    because: dict[str, dict[str, int]] = field(default_factory=dict)
    kernels: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()


@uncollected()
def compile_module(
    module: nn.Module,
    example: tuple[Tensor, ...],
    *,
    masks: Mapping[str, Tensor] | None = None,
    round_to: Rounding = 1,
) -> Compiled:
    """Remove every channel that does not affect the output, exactly.

    Args:
        module: the network; it is not changed.
        example: positional inputs, batch first, at least two samples.
        masks: parameter name → bool tensor of its shape; False counts as weight zero.
        round_to: multiple to which kept counts of each channel group are rounded up, or a rule that
            returns the counts.

    Raises:
        UntraceableModel: the network cannot be captured.
    """
    masks = under_every_name(module, masks or {})
    return compile_captured(capture(module, example), example, masks=masks, round_to=round_to)


@uncollected()
def compile_captured(
    captured: Captured,
    example: tuple[Tensor, ...],
    *,
    masks: Mapping[str, Tensor] | None = None,
    round_to: Rounding = 1,
) -> Compiled:
    """Compile a network that is already captured; its graph is consumed.

    Args:
        captured: captured network.
        example: inputs that it was captured with.
        masks: as for :func:`compile_module`, shared parameters under each of their names.
        round_to: as for :func:`compile_module`.
    """
    weights = evaluated(captured, masks)
    captured, masks = weights.captured, weights.masks
    structure = analyse(captured)
    decision = decide(structure, masked_weights(captured, masks), round_to=round_to)
    plan = replace(plan_of(structure, decision), computed=weights.names)
    groups = groups_of(structure)
    kept_masks = {
        name: trim(cut_tensor(structure, decision.keep, name, mask), decision.taps.get(name, ()))
        for name, mask in masks.items()
    }
    compact: GraphModule = rewrite(structure, decision)
    remaining = dict(compact.named_parameters())
    kept_masks = {  # a masked weight of a carrier may have become non-zero
        name: mask | (remaining[name] != 0)
        for name, mask in kept_masks.items()
        if name in remaining
    }
    keep = decision.keep
    if unties(structure, decision):
        again = compile_captured(
            capture(compact, example), example, masks=kept_masks, round_to=round_to
        )
        # A second cut is recorded only if it removes something: plans stay short.
        if again.plan.removed or again.plan.frozen:
            compact, kept_masks = again.module, again.masks
            plan = replace(plan, then=again.plan)
            keep = kept_after(structure, keep, again.plan, again.groups)
    remaining = dict(compact.named_parameters())
    because = _because(structure, decision, keep, groups, frozenset(compact.state_dict()))
    removed = {g.name: gone for g in groups if (gone := g.size - sum(because[g.name].values()))}
    kernels = {k.weight: k.weight.removesuffix(".weight") for k in structure.of(Kernel).values()}
    return Compiled(
        module=compact,
        plan=plan,
        masks=kept_masks,
        groups=groups,
        removed=removed,
        because=because,
        kernels=tuple(kernels.values()),
        gone=tuple(layer for weight, layer in kernels.items() if weight not in remaining),
        constants=_constants(decision, compact),
    )


def under_every_name(module: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return masks under all names of their parameters; a shared parameter has several names."""
    names: dict[int, list[str]] = {}
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name, parameter in parameters.items():
        names.setdefault(id(parameter), []).append(name)
    all_masks: dict[str, Tensor] = {}
    for name, mask in masks.items():
        for other in names[id(parameters[name])] if name in parameters else [name]:
            all_masks[other] = all_masks[other] & mask if other in all_masks else mask
    return all_masks


def masked_weights(captured: Captured, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return every parameter and buffer of a captured network on the CPU, zero where masked."""
    weights = {name: value.detach().cpu() for name, value in captured.stored.items()}
    for name, mask in masks.items():
        if name in weights:
            weights[name] = torch.where(mask.cpu(), weights[name], 0)
    return weights


def _because(
    structure: Structure,
    decision: Decision,
    kept: Tensor,
    groups: tuple[ChannelGroup, ...],
    remaining: frozenset[str],
) -> dict[str, dict[str, int]]:
    """Return group → reason for keeping channels → their number; empty for a removed group.

    Args:
        structure: structure of the original network.
        decision: decision of the first cut.
        kept: class → whether it is kept in the end.
        groups: channel groups of the original network.
        remaining: names of the parameters and buffers of the compact network.
    """
    pinned = {number: f"pinned: {reason}" for number, reason in structure.pinned().items()}
    reason_of = decision.reasons | pinned
    keep = kept.tolist()

    def because(group: ChannelGroup) -> dict[str, int]:
        if not remaining.intersection(group.members):
            return {}
        if group.pinned:  # all channels stay for the same reason
            return {reason_of[group.channels[0]]: sum(map(keep.__getitem__, group.channels))}
        return dict(Counter(reason_of.get(n, LIVE) for n in group.channels if keep[n]))

    return {group.name: because(group) for group in groups}


def _constants(decision: Decision, compact: nn.Module) -> tuple[str, ...]:
    """Return the modules (or nodes) whose value the compact network stores as a constant."""
    stored = {name for name, _ in compact.named_buffers()}
    nodes = [node for node in decision.frozen if f"constant_{node.name}" in stored]
    return tuple(dict.fromkeys(node.module or node.name for node in nodes))
