"""Folding of batch norms in evaluation mode into the kernel before them.

γ(Wx + b − μ)/√(σ²+ε) + β  =  (γ/√(σ²+ε)·W)x + γ(b − μ)/√(σ²+ε) + β.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from prunec.graph.capture import Captured, capture
from prunec.graph.channels.analyse import analyse
from prunec.graph.channels.operators.batch_norm import Norm
from prunec.graph.channels.operators.kernel import Kernel
from prunec.graph.channels.structure import Structure
from prunec.graph.removal.decide import Decision
from prunec.graph.rewriting.compile import masked_weights
from prunec.graph.rewriting.modules import owner_of
from prunec.graph.rewriting.plan import Plan
from prunec.graph.rewriting.rewrite import rewrite


def fold_batch_norms(
    module: nn.Module, example: tuple[Tensor, ...]
) -> tuple[GraphModule, Plan, tuple[str, ...]]:
    """Fold every batch norm that directly follows a kernel and is its only reader.

    Args:
        module: the network; it is not changed.
        example: positional inputs, batch first, at least two samples.

    Returns:
        The folded network, the plan that folds a fresh network alike, and one sentence per batch
        norm that stays.
    """
    return fold_captured(capture(module, example))


def fold_captured(captured: Captured) -> tuple[GraphModule, Plan, tuple[str, ...]]:
    """Fold the batch norms of a network that is already captured; its graph is consumed."""
    structure = analyse(captured)
    weights = {
        name: w.detach().to(torch.float64) if w.is_floating_point() else w
        for name, w in masked_weights(captured, {}).items()
    }
    folded, biases, refusals = [], [], []
    for node, norm in structure.of(Norm).items():
        reason = _refusal(structure, norm)
        if reason:
            refusals.append(f"kept batch norm {norm.mean.removesuffix('.running_mean')}: {reason}")
            continue
        kernel = structure.operators[norm.source]
        assert isinstance(kernel, Kernel)
        if kernel.bias is None:
            biases.append(str(kernel.bias_name))
        _fold(kernel, norm, weights)
        folded.append(node.name)
    keep = torch.ones(len(structure.classes), dtype=torch.bool)
    plan = Plan(biases=tuple(biases), folded=tuple(folded))
    compact = rewrite(structure, Decision(keep, weights, {}), plan.folded)
    return compact, plan, tuple(refusals)


def _refusal(structure: Structure, norm: Norm) -> str:
    kernel = structure.operators.get(norm.source)
    if not isinstance(kernel, Kernel):
        return "no kernel directly precedes it"
    if len(norm.source.users) > 1:
        return "the kernel's output has another reader"
    names = [name for name in (kernel.weight, kernel.bias) if name is not None]
    if any(structure.captured.readers(name) != {kernel.node} for name in names):
        return "the kernel is used more than once"
    if owner_of((kernel.weight, "weight"), (kernel.bias, "bias")) is None:
        return "no single module holds the kernel's weight and bias"
    if kernel.bias_name is None:
        return "the kernel has no bias, and none can be added to its module"
    return ""


def _fold(kernel: Kernel, norm: Norm, weights: dict[str, Tensor]) -> None:
    mean, variance = weights[norm.mean], weights[norm.variance]
    gamma = torch.ones_like(mean) if norm.weight is None else weights[norm.weight]
    beta = torch.zeros_like(mean) if norm.bias is None else weights[norm.bias]
    factor = gamma / torch.sqrt(variance + norm.epsilon)
    name = kernel.bias_name
    assert name is not None
    bias = weights.get(name, torch.zeros_like(mean)) if kernel.bias else torch.zeros_like(mean)
    weights[name] = (bias - mean) * factor + beta
    weight = weights[kernel.weight]
    if kernel.transposed:
        blocks = weight.reshape(kernel.groups, -1, *weight.shape[1:])
        scale = factor.reshape(kernel.groups, 1, -1, *[1] * (weight.dim() - 2))
        weights[kernel.weight] = (blocks * scale).reshape(weight.shape)
    else:
        weights[kernel.weight] = weight * factor.reshape(-1, *[1] * (weight.dim() - 1))
