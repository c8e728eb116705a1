"""MACs of each ONNX operator, and the list of operators without MACs."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx

from prunec.cost.onnx_shapes import Shapes


def _integer(node: onnx.NodeProto, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)


def _text(node: onnx.NodeProto, name: str) -> str:
    return next(
        (attribute.s.decode() for attribute in node.attribute if attribute.name == name), ""
    )


def _conv(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Return N·O·positions × (I/groups)·taps; interpolation of deformable kernels counts 0."""
    kernel = shapes.of(_factors(node)[1], node)[1:]
    return math.prod(shapes.of(node.output[0], node)) * math.prod(kernel)


def _conv_transpose(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Return N·I·(positions of the input) × (O/groups)·taps."""
    kernel = shapes.of(node.input[1], node)[1:]
    return math.prod(shapes.of(node.input[0], node)) * math.prod(kernel)


def _gemm(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Return M·N × K."""
    axis = 0 if _integer(node, "transA") else 1
    return math.prod(shapes.of(node.output[0], node)) * shapes.of(node.input[0], node)[axis]


def _matmul(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Return elements of the output × length of the summed axis."""
    return math.prod(shapes.of(node.output[0], node)) * shapes.of(_factors(node)[0], node)[-1]


def _einsum(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Return MACs of operands combined from left to right, dropping indices that are no longer
    used.

    Each step costs the product of the sizes of all indices it holds. A single operand is only moved
    or summed, which counts 0.
    """
    equation = _text(node, "equation").replace(" ", "")
    terms, arrow, result = equation.partition("->")
    sizes: dict[str, int] = {}
    indices = []
    for name, term in zip(node.input, terms.split(","), strict=True):
        shape = shapes.of(name, node)
        first, dots, last = term.partition("...")
        missing = len(shape) - len(first) - len(last) if dots else 0
        indices.append([*first, *("." * (missing - i) for i in range(missing)), *last])
        for index, size in zip(indices[-1], shape, strict=True):
            sizes[index] = max(size, sizes.get(index, 1))
    total = 0
    held = set(indices.pop(0))
    while indices:
        held.update(indices.pop(0))
        total += math.prod(sizes[index] for index in held)
        later = {index for term in indices for index in term}
        # Without an arrow, einsum returns the indices that occur once.
        kept = set(result) if arrow else {i for i in held if terms.count(i) == 1}
        held = {i for i in held if i in later or i in kept or i.startswith(".")}
    return total


def _recurrent(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Return steps × (W of all gates and directions + R); biases and peepholes count 0."""
    steps = math.prod(shapes.of(node.input[0], node)[:2])  # time × batch, in either layout
    return steps * sum(math.prod(shapes.of(name, node)) for name in weights_of(node))


def _attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Return pairs of query and key in all query heads × (width of a key + width of a value).

    Keys of earlier steps (the cache) count as keys.
    """
    query, key, value = (shapes.of(name, node) for name in node.input[:3])
    past = shapes.of(node.input[4], node)[2] if len(node.input) > 4 and node.input[4] else 0
    keys = key[-2] + past
    if len(query) == 4:
        return math.prod(query[:-1]) * keys * (query[-1] + value[-1])
    heads, values = _integer(node, "q_num_heads"), _integer(node, "kv_num_heads")
    return query[0] * query[1] * keys * (query[2] + heads * value[2] // values)


RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
"""Operators that hold several weights each."""

macs_of: dict[str, Callable[[onnx.NodeProto, Shapes], int]] = {
    **dict.fromkeys(("Conv", "DeformConv", "ConvInteger", "QLinearConv"), _conv),
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), _matmul),
    "Einsum": _einsum,
    "Attention": _attention,
    **dict.fromkeys(RECURRENT, _recurrent),
}
"""Operator → function that returns the MACs of the whole batch."""


def weights_of(node: onnx.NodeProto) -> list[str]:
    """Return the names of the inputs that may be weights."""
    if node.op_type in RECURRENT:
        return list(node.input[1:3])
    if node.op_type == "Attention" or (node.op_type == "Einsum" and len(node.input) != 2):
        return []
    return _factors(node)[::-1]


_QUANTISED: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "ConvInteger": ((0, 2), (1, 3)),
    "MatMulInteger": ((0, 2), (1, 3)),
    "QLinearConv": ((0, 2), (3, 5)),
    "QLinearMatMul": ((0, 2), (3, 5)),
}
"""Integer operator → (input, zero point) of its two factors, by input index."""


def _factors(node: onnx.NodeProto) -> list[str]:
    """Return the names of the two multiplied inputs; weights are usually the second."""
    places = _QUANTISED.get(node.op_type)
    return list(node.input[:2]) if places is None else [node.input[i] for i, _ in places]


def zero_point(node: onnx.NodeProto, name: str) -> str:
    """Return the name of an input's zero point; empty if 0 stands for zero."""
    for place, zero in _QUANTISED.get(node.op_type, ()):
        if node.input[place] == name and len(node.input) > zero:
            return str(node.input[zero])
    return ""


_FREE = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization
    Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast
    CastLike Ceil Celu CenterCropPad Clip Col2Im Compress Concat ConcatFromSequence Constant
    ConstantOfShape Cos Cosh CumProd CumSum DepthToSpace DequantizeLinear Div Dropout
    DynamicQuantizeLinear Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements
    GatherND Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
    GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity
    InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax LpNormalization LpPool Max MaxPool MaxRoiPool MaxUnpool Mean
    MeanVarianceNormalization Min Mish Mod Mul Multinomial Neg NonMaxSuppression NonZero Not OneHot
    Optional OptionalGetElement OptionalHasElement Or PRelu Pad Pow QuantizeLinear RMSNormalization
    RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round Scatter ScatterElements
    ScatterND Selu SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert
    SequenceLength Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
    SpaceToDepth Split SplitToSequence Sqrt Squeeze Sub Sum Swish Tan Tanh TensorScatter
    ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor
"""

FREE = frozenset(_FREE.split())
"""Operators that count 0 by the definition of a MAC; operators in neither list are refused."""
