"""Networks made smaller: channels removed, batch norms folded, channel groups found."""

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
    """A compact network and how it came about.

    Attributes:
        module: computes what the network given computed, for any batch size; same call signature,
            same names of its modules and parameters; in evaluation mode, trainable.
        plan: what was cut, to cut a fresh network of the same making: ``plan.apply(fresh)``.
        masks: what is left of the masks, in the compact shapes.
        report: every channel group with what went, what stayed and why; cost before and after.
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
    """Remove every channel that does not matter to the output, exactly.

    What is dead is said by zeros in the weights, by ``masks``, or by gates, which are taken into
    their kernels first.

    Args:
        model: the network; it is not changed, and is taken in evaluation mode.
        example_inputs: its positional inputs, batch first: a tensor (N, …) or a tuple of them. Any
            N; the compact network takes every batch size. Other sizes are taken as fixed, as is the
            whole shape of an input whose first axis is not as long as that of the first input (a
            scale, a number for every channel): give an N that is not its length.
        masks: parameter name → bool tensor of the parameter's shape; False counts as weight zero.
        round_to: kept counts of each channel group are rounded up to a multiple of it, by keeping
            the strongest of the dead.

    Returns:
        The compact network, its plan, what is left of the masks, and a report.

    Raises:
        UntraceableModel: ``torch.export`` cannot follow the network; names where.
        PrunecError: an argument is wrong; says which and what mends it.
    """
    module = absorbed(checked_module(model))
    example = checked_example(module, example_inputs)
    masks = under_every_name(module, checked_masks(module, masks))
    round_to = checked_round_to(round_to)
    captured = capture(module, example)
    before = costs.count_captured(captured, module, masks)
    kind = _kind(module)
    made = compile_captured(captured, example, masks=masks, round_to=round_to)

    def count_after() -> Cost:
        return costs.count(made.module, _as(made.module, example, kind))

    report = compile_report(made, round_to, before, count_after=count_after)
    return Compiled(made.module, made.plan, made.masks, report)


def _kind(module: nn.Module) -> tuple[torch.device, torch.dtype] | None:
    """Where a network's numbers lie and of which type they are; None where it holds none."""
    return next(((p.device, p.dtype) for p in module.parameters() if p.is_floating_point()), None)


def _as(
    module: nn.Module, example: tuple[Tensor, ...], before: tuple[torch.device, torch.dtype] | None
) -> tuple[Tensor, ...]:
    """An example for a network that may have been moved, or given another type, since then."""
    now = _kind(module)
    if now is None or before is None or now == before:
        return example
    return tuple(x.to(*now) if x.is_floating_point() else x.to(now[0]) for x in example)


@dataclass(frozen=True)
class Folded:
    """A network whose batch norms are part of the kernels before them.

    Attributes:
        module: computes what the network given computed; same call signature, in evaluation mode.
        plan: what was folded, to do the same to a fresh network: ``plan.apply(fresh)``.
        kept: the batch norms that stay, each with the reason.
    """

    module: nn.Module
    plan: Plan
    kept: tuple[str, ...]


@leaving_all_as_it_was
def fold_batch_norms(model: nn.Module, example_inputs: Example) -> Folded:
    """Fold every batch norm into the convolution or linear layer whose only reader it is.

    It changes outputs by rounding alone. Fold last: a folded network does not train as before.

    Args:
        model: the network; it is not changed, and is taken in evaluation mode.
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

    Args:
        model: the network; it is not changed.
        example_inputs: as for :func:`compile`.

    Returns:
        The groups in the order of computation, pinned ones too; ``group.to_dict()`` is JSON.

    Raises:
        UntraceableModel: ``torch.export`` cannot follow the network.
        PrunecError: an argument is wrong.
    """
    module = absorbed(checked_module(model))
    return channel_groups(module, checked_example(module, example_inputs))
