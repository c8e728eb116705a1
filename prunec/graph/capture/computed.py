"""Weights that a network computes from its parameters alone, evaluated once.

Examples are masks multiplied with a kernel, weight standardisation, one-bit weights,
parametrisations, and a blur kernel expanded to the number of channels. w = f(θ) does not depend on
any input, so w replaces θ and is cut like any other weight. It is computed by the network's own
operators in its own type, and therefore equals the value that the network computes in every call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunec.graph.capture.captured import Captured
from prunec.graph.capture.names import CONVOLUTIONS
from prunec.graph.capture.node import Node, replaced
from prunec.graph.capture.torch_nodes import with_stored

_AFFINE = ("weight", "bias")
_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys((*CONVOLUTIONS, "linear", "prelu", "embedding"), ("weight",)),
    **dict.fromkeys(("group_norm", "layer_norm", "rms_norm"), _AFFINE),
    **dict.fromkeys(("batch_norm", "instance_norm"), (*_AFFINE, "running_mean", "running_var")),
    "matmul": ("self", "other"), "mm": ("self", "mat2"), "addmm": ("mat1", "mat2"),
    "bmm": ("self", "mat2"),
}  # fmt: skip
"""Operator → its arguments that are weights if they do not depend on an input."""
_PRODUCTS = frozenset(("matmul", "mm", "addmm", "bmm"))
_MOVES = frozenset(
    (
        "view reshape flatten unflatten permute transpose t numpy_T squeeze unsqueeze movedim "
        "slice select index_select contiguous detach alias"
    ).split()
)
# Prefixes of operators whose result differs from call to call, so it cannot be evaluated once.
_RANDOM = ("rand", "bernoulli", "normal", "dropout", "empty", "multinomial", "uniform")


@dataclass(frozen=True)
class Evaluated:
    """Captured network whose computed weights are stored.

    Attributes:
        captured: captured network.
        masks: masks of the tensors that it still reads, and of weights computed from masked ones.
        names: names of the computed weights.
    """

    captured: Captured
    masks: dict[str, Tensor]
    names: tuple[str, ...] = ()


def evaluated(captured: Captured, masks: Mapping[str, Tensor] | None = None) -> Evaluated:
    """Evaluate the weights that are computed from parameters and buffers alone.

    Args:
        captured: captured network; its graph is consumed.
        masks: parameter name → bool tensor of its shape; False counts as weight zero.
    """
    masks = dict(masks or {})
    targets = _targets(captured)
    if not targets:
        return Evaluated(captured, masks)
    values = _Values(masks)
    taken = {name for node in _needed(captured, targets) if (name := node.stored)}
    made: dict[Node, tuple[str, Tensor]] = {}
    for node, key in targets.items():
        leaves = list(_leaves(node))
        name = _name(node, key, leaves, taken)
        taken.add(name)
        value = values.of(node).detach().clone()
        if any(leaf.stored in masks for leaf in leaves):
            # A computed weight inherits the mask of its parameters: entries that are zero now stay
            # zero.
            masks[name] = value != 0
        made[node] = (name, _as_stored(value, leaves))
    own = {name for name, _ in made.values()}
    masks = {name: mask for name, mask in masks.items() if name in taken | own}
    for name, tensor in made.values():
        # This mask is that of another tensor of the same name: a vector replaced by a kernel.
        if name in masks and masks[name].shape != tensor.shape:
            del masks[name]
    return Evaluated(with_stored(captured, made), masks, tuple(sorted(own)))


def _targets(captured: Captured) -> dict[Node, str]:
    """Return computed weights → their role in the operator that reads them."""
    fixed = _fixed(captured)
    computed = {
        given: "bias" if key == "bias" else key if key.startswith("running") else "weight"
        for node in captured.nodes
        if node not in fixed
        for key in _ARGUMENTS.get(node.operator, ())
        if (given := node.arguments.get(key)) in fixed
        # A transposed view of a parameter is a weight already; evaluation would store it twice.
        and not (node.operator in _PRODUCTS and _only_moves(given))
    }
    needed = _needed(captured, computed)
    return {
        node: key
        for node, key in computed.items()
        if len(node.shape) < 2
        # A kernel whose parameter is also read elsewhere is not evaluated: the parameter and the
        # evaluated copy would be cut independently.
        or not any(isinstance(x.tensor, nn.Parameter) and x in needed for x in _leaves(node))
    }


def _fixed(captured: Captured) -> set[Node]:
    """Return calls that do not depend on an input and are computed from stored tensors."""
    still: set[Node] = set()
    computed: set[Node] = set()
    for node in captured.nodes:
        if node.kind == "stored":
            still.add(node)
            continue
        certain = node.kind == "call" and not node.operator.startswith(_RANDOM)
        if certain and all(operand in still for operand in node.operands):
            still.add(node)
            floating = node.dtype is not None and node.dtype.is_floating_point
            if node.is_tensor and floating and node.operands:
                computed.add(node)
    return computed


def _only_moves(node: Node) -> bool:
    """Return whether a value is a parameter in another view."""
    while node.kind == "call" and node.operator in _MOVES and len(node.operands) == 1:
        node = node.operands[0]
    return node.kind == "stored"


def _needed(captured: Captured, targets: Mapping[Node, str]) -> set[Node]:
    """Return the nodes that the outputs need once the targets are stored tensors."""
    needed = {captured.nodes[-1]}
    for node in reversed(captured.nodes):
        if node in needed and node not in targets:
            needed.update(node.operands)
    return needed


def _leaves(node: Node) -> Iterator[Node]:
    """Yield the stored tensors that a value is computed from."""
    seen, left = {node}, [node]
    while left:
        one = left.pop()
        if one.kind == "stored":
            yield one
        left += [operand for operand in one.operands if operand not in seen]
        seen.update(one.operands)


def _name(node: Node, key: str, leaves: list[Node], taken: set[str]) -> str:
    """Return the usual name in the module that owns the parameters; else one after the node."""
    owners = {_owner(leaf.stored) for leaf in leaves if isinstance(leaf.tensor, nn.Parameter)}
    usual = f"{owners.pop()}.{key}" if len(owners) == 1 else ""
    if usual and not usual.startswith(".") and usual not in taken:
        return usual
    return f"computed_{node.name}"


def _owner(name: str) -> str:
    """Return the name of the module that owns a parameter."""
    return (
        name.partition(".parametrizations.")[0]
        if ".parametrizations." in name
        else (name.rpartition(".")[0])
    )


def _as_stored(value: Tensor, leaves: list[Node]) -> Tensor:
    """Return a parameter if any of the leaves is one, else the value."""
    parameters = [leaf.tensor for leaf in leaves if isinstance(leaf.tensor, nn.Parameter)]
    if not parameters:
        return value
    return nn.Parameter(value, any(parameter.requires_grad for parameter in parameters))


class _Values:
    """Values of nodes that do not depend on an input, under masks."""

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        self._masks = dict(masks)
        self._known: dict[Node, Any] = {}

    def of(self, node: Node) -> Any:
        """Return the value of a node."""
        if node not in self._known:
            self._known[node] = self._find(node)
        return self._known[node]

    def _find(self, node: Node) -> Any:
        if node.tensor is not None:
            value = node.tensor.detach()
            mask = self._masks.get(node.stored)
            return value if mask is None else torch.where(mask.to(value.device), value, 0)
        assert node.compute is not None
        return node.compute(replaced(dict(node.arguments), self.of))
