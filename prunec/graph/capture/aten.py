"""Calls of ATen operators in a graph of torch.fx: their names, their arguments by name."""

from __future__ import annotations

import operator
from typing import Any

from torch.fx import Node

# The value of a position depends on that position alone, of one tensor or of several.
ELEMENTWISE = frozenset(
    (
        "relu relu6 hardtanh sigmoid silu hardswish hardsigmoid gelu tanh softplus softsign elu "
        "selu celu leaky_relu mish logsigmoid clamp clamp_min clamp_max clip neg exp log abs sqrt "
        "rsqrt square pow reciprocal erf sin cos floor ceil round sign add sub rsub mul div "
        "maximum minimum threshold hardshrink softshrink where masked_fill expm1 "
        "log1p tan atan sinh cosh erfc trunc frac exp2 log2 sgn atan2 fmod remainder lerp"
    ).split()
)
FACTORIES = frozenset("zeros ones full new_zeros new_ones new_full".split())
CONVOLUTIONS = frozenset(
    ("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d").split()
)


def op_name(node: Node) -> str:
    """Name of the operator of a call, without overload: ``conv2d``, ``add``, ``getitem``."""
    if node.target is operator.getitem:
        return "getitem"
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", packet))


def arguments(node: Node) -> dict[str, Any]:
    """Arguments of a call by the names of the operator's schema, defaults filled in."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(i): value for i, value in enumerate(node.args)}
    named: dict[str, Any] = {}
    for i, argument in enumerate(schema.arguments):
        if i < len(node.args):
            named[argument.name] = node.args[i]
        elif argument.name in node.kwargs:
            named[argument.name] = node.kwargs[argument.name]
        else:
            named[argument.name] = argument.default_value if argument.has_default_value() else None
    return named
