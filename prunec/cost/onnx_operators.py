"""What each ONNX operator multiplies and accumulates, and which operators do neither."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx

from prunec.cost.onnx_shapes import Shapes
from prunec.errors import PrunecError


def _integer(node: onnx.NodeProto, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)


def _text(node: onnx.NodeProto, name: str) -> str:
    return next(
        (attribute.s.decode() for attribute in node.attribute if attribute.name == name), ""
    )


def _conv(node: onnx.NodeProto, shapes: Shapes) -> int:
    """N·O·positions × (I/groups)·kernel."""
    kernel = shapes.of(node.input[1], node)[1:]
    return math.prod(shapes.of(node.output[0], node)) * math.prod(kernel)


def _conv_transpose(node: onnx.NodeProto, shapes: Shapes) -> int:
    """N·I·positions of the input × (O/groups)·kernel."""
    kernel = shapes.of(node.input[1], node)[1:]
    return math.prod(shapes.of(node.input[0], node)) * math.prod(kernel)


def _gemm(node: onnx.NodeProto, shapes: Shapes) -> int:
    """M·N × K."""
    axis = 0 if _integer(node, "transA") else 1
    return math.prod(shapes.of(node.output[0], node)) * shapes.of(node.input[0], node)[axis]


def _matmul(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Elements of the output × the axis summed over."""
    return math.prod(shapes.of(node.output[0], node)) * shapes.of(node.input[0], node)[-1]


def _einsum(node: onnx.NodeProto, shapes: Shapes) -> int:
    """The product of the sizes of all indices; one operand alone is only moved or summed."""
    if len(node.input) == 1:
        return 0
    equation = _text(node, "equation").replace(" ", "")
    terms = equation.split("->")[0].split(",")
    if len(node.input) != 2 or "..." in equation:
        raise PrunecError(
            f"operator Einsum at {node.name or node.output[0]}: the MACs of '{equation}' are not "
            "known",
            remedy="Write it as products of two operands, without an ellipsis.",
        )
    sizes: dict[str, int] = {}
    for name, term in zip(node.input, terms, strict=True):
        for index, size in zip(term, shapes.of(name, node), strict=True):
            sizes[index] = max(size, sizes.get(index, 1))
    return math.prod(sizes.values())


macs_of: dict[str, Callable[[onnx.NodeProto, Shapes], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Einsum": _einsum,
}
"""Operator → MACs of the whole batch."""

_FREE = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization
    Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu
    CenterCropPad Clip Col2Im Compress Concat Constant ConstantOfShape Cos Cosh CumProd CumSum
    DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear Elu Equal Erf Exp Expand EyeLike
    Flatten Floor Gather GatherElements GatherND Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool
    Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity
    InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax LpNormalization LpPool Max MaxPool MaxRoiPool MaxUnpool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg NonZero Not OneHot Or PRelu Pad Pow
    QuantizeLinear RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    ReverseSequence RoiAlign Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin
    Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh
    ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""

FREE = frozenset(_FREE.split())
"""Operators that count nothing, by the unit's definition; what is in neither list is refused."""
