"""Compilation of networks: removal of channels, folding of batch norms, channel groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunec.api.guarded import Example, leaving_all_as_it_was
from prunec.cost import Cost
from prunec.cost import torch_graph as costs
from prunec.graph.capture import capture
from prunec.graph.channels.groups import ChannelGroup, channel_groups
from prunec.graph.rewriting.compile import compile_captured, under_every_name
from prunec.graph.rewriting.fold_batch_norms import fold_captured
from prunec.graph.rewriting.plan import Plan
from prunec.inspection.compile_report import CompileReport, compile_report
from prunec.models.gates import absorbed
from prunec.models.inputs import checked_example, checked_masks, checked_module, checked_round_to


@dataclass(frozen=True)
class Compiled:
    """A compact network, with the plan and the report of its compilation.

    Attributes:
        module: the compact network: same outputs for any batch size, same call signature, same
            names of modules and parameters; in evaluation mode, trainable.
        plan: the cut, to repeat on a new network of the same constructor: ``plan.apply(fresh)``.
        masks: the remaining part of the masks, in the compact shapes.
        report: every channel group with removed and kept channels and reasons; cost before and
            after.
    """

    module: nn.Module
    plan: Plan
    masks: dict[str, Tensor]
    report: CompileReport


@leaving_all_as_it_was
def compile(
    model: nn.Module,
    example_inputs: Example,
    *,
    masks: Mapping[str, Tensor] | None = None,
    round_to: int = 1,
) -> Compiled:
    """Remove every channel that does not affect the output, exactly.

    Channels are dead by zeros in the weights, by ``masks``, or by gates, which are absorbed into
    their kernels first.

    See the glossary: [dead](glossary.md#dead), [mask](glossary.md#mask),
    [gate](glossary.md#gate), [pinned](glossary.md#pinned), [constant](glossary.md#constant),
    [carrier](glossary.md#carrier).

    Args:
        model: the network; it is not changed, and is compiled in evaluation mode.
        example_inputs: its positional inputs, batch first: a tensor (N, …) or a tuple of them, of
            any N; the compact network takes every batch size. All other sizes are fixed. An input
            whose first axis differs from N (a scale, one value per channel) is fixed as a whole:
            choose an N that differs from its length.
        masks: parameter name → bool tensor of the parameter's shape; False counts as weight zero.
        round_to: round the kept channels of each group up to a multiple of it, by keeping the
            strongest dead ones.

    Returns:
        The compact network, its plan, the remaining masks, and a report.

    Raises:
        UntraceableModel: ``torch.export`` cannot capture the network; names the place.
        PrunecError: an argument is wrong; names it and the remedy.
    """
    module = absorbed(checked_module(model))
    example = checked_example(module, example_inputs)
    masks = under_every_name(module, checked_masks(module, masks))
    round_to = checked_round_to(round_to)
    captured = capture(module, example)
    # Counted on the same graph: capturing is most of a compilation's time.
    before = costs.count_captured(captured, module, masks)
    kind = _kind(module)
    made = compile_captured(captured, example, masks=masks, round_to=round_to)

    # Not yet: counting the result captures it again, and few callers ask.
    def count_after() -> Cost:
        return costs.count(made.module, _as(made.module, example, kind))

    report = compile_report(made, round_to, before, count_after=count_after)
    return Compiled(made.module, made.plan, made.masks, report)


def _kind(module: nn.Module) -> tuple[torch.device, torch.dtype] | None:
    """Return device and type of a network's parameters; None where it has none."""
    return next(((p.device, p.dtype) for p in module.parameters() if p.is_floating_point()), None)


def _as(
    module: nn.Module, example: tuple[Tensor, ...], before: tuple[torch.device, torch.dtype] | None
) -> tuple[Tensor, ...]:
    """Return the example on the device and in the type that the network has now."""
    now = _kind(module)
    if now is None or before is None or now == before:
        return example
    return tuple(x.to(*now) if x.is_floating_point() else x.to(now[0]) for x in example)


@dataclass(frozen=True)
class Folded:
    """A network with batch norms folded into the kernels before them.

    Attributes:
        module: the folded network: same outputs, same call signature; in evaluation mode.
        plan: the folds, to repeat on a new network: ``plan.apply(fresh)``.
        kept: the batch norms that were not folded, each with the reason.
    """

    module: nn.Module
    plan: Plan
    kept: tuple[str, ...]


@leaving_all_as_it_was
def fold_batch_norms(model: nn.Module, example_inputs: Example) -> Folded:
    """Fold every batch norm into the convolution or linear layer that only it reads.

    Outputs change only by rounding. Fold last: a folded network trains differently.

    Args:
        model: the network; it is not changed, and is folded in evaluation mode.
        example_inputs: as for :func:`compile`.

    Raises:
        UntraceableModel: ``torch.export`` cannot follow the network.
        PrunecError: an argument is wrong.
    """
    module = absorbed(checked_module(model))
    return Folded(*fold_captured(capture(module, checked_example(module, example_inputs))))


@leaving_all_as_it_was
def groups(model: nn.Module, example_inputs: Example) -> tuple[ChannelGroup, ...]:
    """Find the channel groups of a network: the slices of parameters that must be cut together.

    See the glossary: [channel group](glossary.md#channel-group), [pinned](glossary.md#pinned).

    Args:
        model: the network; it is not changed.
        example_inputs: as for :func:`compile`.

    Returns:
        The groups in order of computation, pinned ones included; ``group.to_dict()`` is JSON.

    Raises:
        UntraceableModel: ``torch.export`` cannot capture the network.
        PrunecError: an argument is wrong.
    """
    module = absorbed(checked_module(model))
    return channel_groups(module, checked_example(module, example_inputs))
