"""Element-wise operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from prunec.deploy.compaction.reading import Call
from prunec.graph.capture.node import Node

_UNARY: Mapping[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "Relu": ("relu", torch.relu), "Sigmoid": ("sigmoid", torch.sigmoid),
    "Tanh": ("tanh", torch.tanh), "Exp": ("exp", torch.exp), "Log": ("log", torch.log),
    "Sqrt": ("sqrt", torch.sqrt), "Neg": ("neg", torch.neg), "Abs": ("abs", torch.abs),
    "Reciprocal": ("reciprocal", torch.reciprocal), "Erf": ("erf", torch.erf),
    "Softplus": ("softplus", lambda x: torch.logaddexp(x, torch.zeros_like(x))),
    "Softsign": ("softsign", functional.softsign), "HardSwish": ("hardswish", functional.hardswish),
    "Mish": ("mish", functional.mish), "Floor": ("floor", torch.floor),
    "Ceil": ("ceil", torch.ceil),
    "Round": ("round", torch.round), "Sign": ("sign", torch.sign), "Sin": ("sin", torch.sin),
    "Cos": ("cos", torch.cos), "Not": ("logical_not", torch.logical_not),
}  # fmt: skip
_BINARY: Mapping[str, tuple[str, Callable[[Any, Any], Tensor]]] = {
    "Add": ("add", torch.add), "Sum": ("add", torch.add),
    "Sub": ("sub", torch.sub), "Mul": ("mul", torch.mul),
    "Div": ("div", torch.div), "Pow": ("pow", torch.pow), "Max": ("maximum", torch.maximum),
    "Min": ("minimum", torch.minimum), "Greater": ("gt", torch.gt), "Less": ("lt", torch.lt),
    "GreaterOrEqual": ("ge", torch.ge), "LessOrEqual": ("le", torch.le),
    "Equal": ("eq", torch.eq), "And": ("logical_and", torch.logical_and),
    "Or": ("logical_or", torch.logical_or),
}  # fmt: skip


def unary(call: Call) -> Node | None:
    """Translate an operator of one operand without settings."""
    operator, compute = _UNARY[call.proto.op_type]
    return call.call(operator, {"self": call.node(0)}, compute)


def binary(call: Call) -> Node | None:
    """Translate an operator of two operands under numpy's broadcasting, as from opset 7 on."""
    if len(call.proto.input) != 2 or call.attribute("axis") is not None:
        return None
    operator, compute = _BINARY[call.proto.op_type]
    return call.call(operator, {"self": call.node(0), "other": call.node(1)}, compute)


def leaky_relu(call: Call) -> Node | None:
    """Translate max(x, 0) + α·min(x, 0)."""
    slope = call.attribute("alpha", 0.01)
    named = {"self": call.node(0), "negative_slope": slope}
    return call.call("leaky_relu", named, functional.leaky_relu)


def elu(call: Call) -> Node | None:
    """Translate α·(exp(x) − 1) below 0."""
    return call.call(
        "elu", {"self": call.node(0), "alpha": call.attribute("alpha", 1.0)}, functional.elu
    )


def hard_sigmoid(call: Call) -> Node | None:
    """Translate max(0, min(1, α·x + β))."""
    alpha, beta = call.attribute("alpha", 0.2), call.attribute("beta", 0.5)

    def compute(x: Tensor) -> Tensor:
        return torch.clamp(alpha * x + beta, 0.0, 1.0)

    return call.call("hardsigmoid", {"self": call.node(0)}, compute)


def gelu(call: Call) -> Node | None:
    """Translate Gelu by the error function or by tanh."""
    how = call.attribute("approximate", "none")
    return call.call("gelu", {"self": call.node(0)}, lambda x: functional.gelu(x, approximate=how))


def clip(call: Call) -> Node | None:
    """Translate a clip between numbers stored in the file."""
    limits = []
    for index, name in ((1, "min"), (2, "max")):
        given = call.numbers(index, name)
        if given is None and call.has(index):
            return None
        limits.append(float(given[0]) if given else None)
    low, high = limits

    def compute(x: Tensor) -> Tensor:
        return x if low is None and high is None else x.clamp(low, high)

    return call.call("clamp", {"self": call.node(0)}, compute)


def prelu(call: Call) -> Node | None:
    """Translate a slope per channel, or one for all."""
    if not call.is_constant(1):
        return None
    shape, rank = call.value(1).shape, len(call.made.shape)
    axes = [i + rank - len(shape) for i, size in enumerate(shape) if size > 1]
    if axes not in ([], [1]):  # numpy aligns shapes from the right
        return None
    weight = call.keep(1, call.stored(1, flat=True))
    return call.call("prelu", {"self": call.node(0), "weight": weight}, torch.prelu)


def where(call: Call) -> Node | None:
    """Translate a selection between two operands at each position."""
    named = {"condition": call.node(0), "self": call.node(1), "other": call.node(2)}
    return call.call("where", named, torch.where)


def same(call: Call) -> Node | None:
    """Translate an identity."""
    if len([name for name in call.proto.output if name]) != 1:
        return None
    return call.call("clone", {"self": call.node(0)})


def cast(call: Call) -> Node | None:
    """Translate a cast."""
    return call.call("_to_copy", {"self": call.node(0)})


TRANSLATIONS: Mapping[str, Callable[[Call], Node | None]] = {
    **dict.fromkeys(_UNARY, unary),
    **dict.fromkeys(_BINARY, binary),
    "LeakyRelu": leaky_relu, "Elu": elu, "HardSigmoid": hard_sigmoid, "Gelu": gelu,
    "Clip": clip, "PRelu": prelu, "Where": where, "Identity": same, "Dropout": same,
    "Cast": cast,
}  # fmt: skip
