"""Element-wise operators: activations, sums, products, and their fusion into convolutions."""

from __future__ import annotations

import math

import numpy as np

from prunec.deploy.native.builder import Builder, Fields, Place, Step
from prunec.deploy.native.convolutions import add_filters
from prunec.deploy.native.filters import Filters, Read
from prunec.deploy.native.layout import View, plane_sizes
from prunec.deploy.native.linear import add_linear
from prunec.deploy.native.reading import Call

PAIRS = {
    "Add": "PN_ADD", "Sub": "PN_SUB", "Mul": "PN_MUL", "Div": "PN_DIV", "Max": "PN_MAXIMUM",
    "Min": "PN_MINIMUM", "Pow": "PN_POW", "PRelu": "PN_PRELU", "Sum": "PN_ADD",
    "Greater": "PN_GREATER", "GreaterOrEqual": "PN_NOT_LESS", "Less": "PN_LESS",
    "LessOrEqual": "PN_NOT_GREATER", "Equal": "PN_EQUAL", "And": "PN_AND", "Or": "PN_OR",
    "Xor": "PN_XOR", "Mod": "PN_REMAINDER",
}  # fmt: skip
_BY_VECTORS = frozenset({"Add", "Sub", "Mul", "Sum"})
ONES = {
    "Sigmoid": "PN_SIGMOID", "HardSwish": "PN_HARDSWISH", "Tanh": "PN_TANH", "Exp": "PN_EXP",
    "Log": "PN_LOG", "Sqrt": "PN_SQRT", "Neg": "PN_NEG", "Abs": "PN_ABS",
    "Reciprocal": "PN_RECIPROCAL", "Softplus": "PN_SOFTPLUS", "Erf": "PN_ERF", "Mish": "PN_MISH",
    "Softsign": "PN_SOFTSIGN", "Floor": "PN_FLOOR", "Ceil": "PN_CEIL", "Sin": "PN_SIN",
    "Cos": "PN_COS", "Sign": "PN_SIGN", "Not": "PN_NOT", "Cast": "PN_TRUTH", "Round": "PN_ROUND",
    "Tan": "PN_TAN", "Atan": "PN_ATAN", "IsNaN": "PN_ISNAN",
}  # fmt: skip
# ONNX's defaults; Selu's two are those of Klambauer et al. 2017 (1706.02515).
NUMBERED = {
    "LeakyRelu": ("PN_LEAKY", 0.01, 0.0), "Elu": ("PN_ELU", 1.0, 0.0),
    "Selu": ("PN_SELU", 1.67326319217681884765625, 1.05070102214813232421875),
    "Celu": ("PN_CELU", 1.0, 0.0), "HardSigmoid": ("PN_HARDSIGMOID", 0.2, 0.5),
    "Swish": ("PN_SWISH", 1.0, 0.0), "ThresholdedRelu": ("PN_THRESHOLDED", 1.0, 0.0),
}  # fmt: skip
_LARGEST = math.inf


def one(builder: Builder, call: Call) -> None:
    """Append an element-wise function of one tensor."""
    operation, alpha, beta = NUMBERED.get(call.operator, (ONES.get(call.operator, ""), 0.0, 0.0))
    if call.operator == "Gelu":
        operation = "PN_GELU" if call.text("approximate", "none") == "none" else "PN_GELU_TANH"
    beta_name = "gamma" if call.operator == "Selu" else "beta"
    _each(builder, call, operation, (call.real("alpha", alpha), call.real(beta_name, beta)))


def bounded(builder: Builder, call: Call) -> None:
    """Append ReLU or Clip; fused into the convolution or linear layer before it where possible."""
    low, high = limits(builder, call)
    name = call.operands[0]
    maker = builder.makers.get(name)
    if maker is None or not builder.once(name):
        _each(builder, call, "PN_BOUND", (low, high))
        return
    # PN_RELU and PN_CLIP.
    maker.fields["activation"] = 1 if call.operator == "Relu" else 2
    maker.fields |= {"low": low, "high": high}
    builder.share(call.results[0], name)


def limits(builder: Builder, call: Call) -> tuple[float, float]:
    """Return the bounds of ReLU or Clip.

    Raises:
        PassError: a bound is computed.
    """
    if call.operator == "Relu":
        return 0.0, _LARGEST
    ends = []
    for place, key, default in ((1, "min", -_LARGEST), (2, "max", _LARGEST)):
        given = builder.constant(call, place)
        ends.append(call.real(key, default) if given is None else float(given.reshape(())))
    return ends[0], ends[1]


def _each(builder: Builder, call: Call, operation: str, numbers: tuple[float, float]) -> None:
    name = call.results[0]
    source = builder.values(call.operands[0])
    out = builder.new(name), builder.layout(name).view
    builder.walk(call, operation, [source], out, numbers)
    builder.clean(name)


def pair(builder: Builder, call: Call) -> None:
    """Append an element-wise operator of one or two tensors, with broadcasting."""
    if len(call.operands) == 1:
        builder.share(call.results[0], call.operands[0])
        return
    if len(call.operands) > 2:
        raise call.refuse("of more than two tensors")
    if call.operator in ("Add", "Sum") and _into_convolution(builder, call):
        return
    if _is_affine(builder, call):
        _affine(builder, call)
        return
    name = call.results[0]
    same = all(builder.shape(operand) == builder.shape(name) for operand in call.operands)
    if same and call.operator in _BY_VECTORS:
        _in_a_row(builder, call)
        return
    operands = [builder.repeated(operand, name) for operand in call.operands]
    out = builder.new(name), builder.layout(name).view
    builder.walk(call, PAIRS[call.operator], operands, out)
    builder.clean(name)


def _in_a_row(builder: Builder, call: Call) -> None:
    """Append an element-wise operator over whole buffers of one layout, borders included."""
    a, b = (builder.buffer(operand) for operand in call.operands)
    name = call.results[0]
    buffer, layout = builder.new(name), builder.layout(name)
    last = layout.lead + layout.channels * layout.plane
    fields: Fields = {
        "a": Place(a), "b": Place(b), "out": Place(buffer), "sizes": (1, 1, 1, 1, 1, last),
        "operation": PAIRS[call.operator],
    }  # fmt: skip
    builder.add("k->combine(&S, w);", "pn_walk", fields, (a, b), buffer, call.name)


def _into_convolution(builder: Builder, call: Call) -> bool:
    """Fuse a sum into the later of the two convolutions that it adds; return whether it could."""
    name = call.results[0]
    made = [
        (builder.steps.index(builder.makers[operand]), operand)
        for operand in call.operands
        if operand in builder.makers and _can_add(builder, operand, name)
    ]
    if not made or call.operands[0] == call.operands[1]:
        return False
    operand = max(made)[1]
    other = next(each for each in call.operands if each != operand)
    if builder.shape(other) != builder.shape(name):
        return False
    residual = builder.buffer(other)
    step = builder.makers[operand]
    # To the end: the other summand must be there when the convolution runs.
    builder.steps.remove(step)
    builder.steps.append(step)
    step.fields |= {"residual": Place(residual, builder.layout(name).lead), "has_residual": 1}
    step.reads = (*step.reads, residual)
    builder.share(name, operand)
    builder.makers[name] = step
    # The other summand is read as it is: nothing may be fused into it any more.
    builder.makers.pop(other, None)
    return True


def _can_add(builder: Builder, operand: str, name: str) -> bool:
    step: Step = builder.makers[operand]
    alone = builder.once(operand) and builder.shape(operand) == builder.shape(name)
    fresh = step.struct == "pn_conv" and not step.fields["has_residual"]
    # Kernels add the residual before the activation, not after it.
    return alone and fresh and not step.fields["activation"]


def _is_affine(builder: Builder, call: Call) -> bool:
    """Whether a call multiplies planes by, or adds, one constant per channel."""
    sizes = builder.shape(call.results[0])
    if call.operator not in ("Add", "Mul") or len(sizes) != 4 or sizes[0] != 1:
        return False
    known = builder.network.constants.get(call.operands[1])
    return (
        known is not None
        and builder.shape(call.operands[0]) == sizes
        and sizes[2:] != (1, 1)
        and known.size in (1, sizes[1])
        and (known.size == 1 or known.shape[-3:] == (sizes[1], 1, 1))
    )


def _affine(builder: Builder, call: Call) -> None:
    known, channels = builder.network.constants[call.operands[1]], builder.shape(call.results[0])[1]
    numbers = np.broadcast_to(known.reshape(-1), channels).astype(np.float32)
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    scale, bias = (numbers, zeros) if call.operator == "Mul" else (ones, numbers)
    of_channels(builder, call, scale, bias)


def of_channels(builder: Builder, call: Call, scale: np.ndarray, bias: np.ndarray) -> None:
    """Append ``scale · x + bias`` per channel, as a depthwise 1×1 convolution."""
    name = call.operands[0]
    planes = builder.layout(name).planes
    read = Read(Place(builder.buffer(name), planes.at), planes.plane, (0,))
    add_filters(builder, call, read, Filters(scale[:, None], bias, len(scale), len(scale)), 1)


def normalised(builder: Builder, call: Call) -> None:
    """Append a batch norm that no convolution absorbed, as a scale and a bias per channel."""
    given = [builder.constant(call, place) for place in range(1, 5)]
    scale, shift, mean, variance = (np.zeros(1) if x is None else x for x in given)
    # In float64, so that the scale is rounded once.
    factor = scale.astype(np.float64) / np.sqrt(variance + call.real("epsilon", 1e-5))
    bias = (shift - mean * factor).astype(np.float32)
    sizes = builder.shape(call.results[0])
    planes = plane_sizes(sizes)
    if planes is not None and planes[1:] != (1, 1):
        of_channels(builder, call, factor.astype(np.float32), bias)
    elif len(sizes) == 2 or planes is not None:
        source = builder.layout(call.operands[0])
        place = Place(builder.buffer(call.operands[0]), source.lead)
        add_linear(builder, call, place, np.diag(factor.astype(np.float32)), bias)
    else:
        _by_channel(builder, call, factor.astype(np.float32), bias)


def _by_channel(builder: Builder, call: Call, scale: np.ndarray, bias: np.ndarray) -> None:
    """Append ``scale · x + bias`` per channel of a tensor of any rank; axis 1 holds channels."""
    name, source = call.results[0], builder.values(call.operands[0])
    out = builder.new(name), builder.layout(name).view
    steps = (0, 1, *(0,) * (len(out[1].sizes) - 2))
    operation = "PN_MUL"
    for numbers in (scale, bias):
        own = View(out[1].sizes, steps)
        builder.walk(call, operation, [source, (builder.stored(numbers), own)], out)
        source, operation = out, "PN_ADD"
    builder.clean(name)
