"""Whether two written networks compute the same on weights of the same kind.

A runtime takes equal time for both: it runs the same operators on the same shapes, and no more
weights of one than of the other are zeros, which some kernels skip, or subnormal numbers, which
processors multiply tens of times more slowly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

_FEW = 1e-4  # of a kernel's weights: even subnormal ones cost less than times can be told apart


def alike(one: nn.Module, other: nn.Module) -> bool:
    """Return whether two networks have equal graphs and shapes, and as few zero weights.

    Networks that are not graphs are never alike: their forward cannot be compared.
    """
    if not (isinstance(one, GraphModule) and isinstance(other, GraphModule)):
        return False
    tensors, others = _tensors(one), _tensors(other)
    return (
        tensors.keys() == others.keys()
        and all(_similar(tensors[name], others[name]) for name in tensors)
        and _calls(one) == _calls(other)
    )


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    every = dict(module.named_parameters(remove_duplicate=False))
    return every | dict(module.named_buffers(remove_duplicate=False))


def _similar(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    return one.dim() < 2 or _unusual(one) <= _unusual(other) + _FEW * one.numel()


def _unusual(weight: Tensor) -> int:
    """Return the number of weights that are zero or subnormal."""
    return int((weight.abs() < torch.finfo(weight.dtype).smallest_normal).sum())


def _calls(module: GraphModule) -> list[tuple[Any, ...]]:
    """Return every node of a graph with its operator, settings and arguments, nodes by place."""
    places = {node: place for place, node in enumerate(module.graph.nodes)}

    def named(value: Any) -> Any:
        if isinstance(value, Node):
            return ("node", places[value])
        if isinstance(value, (list, tuple)):
            return [named(item) for item in value]
        return {key: named(item) for key, item in value.items()} if isinstance(value, dict) else (
            type(value), value
        )  # fmt: skip

    return [
        (node.op, _operator(module, node), named(node.args), named(node.kwargs))
        for node in module.graph.nodes
    ]


def _operator(module: GraphModule, node: Node) -> Any:
    """Return what a node calls: a function, or a module's place, type and settings."""
    if node.op == "placeholder":
        return None  # inputs have places, and names that come from a signature
    if node.op != "call_module":
        return node.target
    part = module.get_submodule(str(node.target))
    return node.target, type(part), part.extra_repr()
