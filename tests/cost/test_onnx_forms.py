"""Files in the forms that other exporters write: the same network counts the same in each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunec.cost.onnx_graph import count_onnx
from prunec.errors import PrunecError

FLOAT = TensorProto.FLOAT
KERNEL = np.ones((4, 3, 3, 3), np.float32)
KERNEL[1] = 0
MATRIX = np.ones((4, 10), np.float32)
MATRIX[0, :3] = 0
WANT = (6912 + 40, 6912 * 3 // 4 + 37, 108 + 40, 81 + 37)
"""MACs, non-zero MACs, parameters, non-zero parameters of the network below."""

node, array = helper.make_node, numpy_helper.from_array


def value(name: str, *sizes: int | str, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, sizes)


def untold(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, None)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    stored: Sequence[onnx.TensorProto] = (),
    opset: int = 17,
    domain: str = "",
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "net", inputs, [untold("y")], stored)
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(domain, 1)] if domain else []
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def body(kernel: str = "w", matrix: str = "f", source: str = "x") -> list[onnx.NodeProto]:
    return [
        node("Conv", [source, kernel], ["c"], "conv", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["c"], ["p"]),
        node("Flatten", ["p"], ["q"]),
        node("MatMul", ["q", matrix], ["y"], "mm"),
    ]


IMAGE = value("x", "n", 3, 8, 8)
STORED = [array(KERNEL, "w"), array(MATRIX, "f")]


def counts(net: onnx.ModelProto) -> tuple[int, int, int, int]:
    cost = count_onnx(net)
    return cost.macs, cost.nonzero_macs, cost.params, cost.nonzero_params


def constants() -> onnx.ModelProto:
    made = [node("Constant", [], [t.name], value=t) for t in STORED]
    return model([*made, *body()], [IMAGE])


def sparse_constants() -> onnx.ModelProto:
    made = []
    for tensor in STORED:
        flat = numpy_helper.to_array(tensor).reshape(-1)
        places = np.flatnonzero(flat)
        held = helper.make_sparse_tensor(
            array(flat[places], tensor.name), array(places, "at"), list(tensor.dims)
        )
        made.append(held)
    net = model([node("Constant", [], ["w"], sparse_value=made[0]), *body()], [IMAGE])
    net.graph.sparse_initializer.append(made[1])
    return net


def function() -> onnx.ModelProto:
    inner = [node("Constant", [], ["w"], value=STORED[0])]
    inner += [node("Conv", ["a", "w"], ["b"], "conv", pads=[1, 1, 1, 1])]
    made = helper.make_function("own", "Block", ["a"], ["b"], inner, [helper.make_opsetid("", 17)])
    nodes = [node("Block", ["x"], ["c"], domain="own"), *body()[1:]]
    net = model(nodes, [IMAGE], STORED[1:], domain="own")
    net.functions.append(made)
    return net


def branches() -> onnx.ModelProto:
    """The condition is computed from a size that is fixed; both branches use the same names."""
    taken = helper.make_graph([*body()[:1], node("Relu", ["c"], ["r"])], "t", [], [untold("r")])
    other = helper.make_graph(
        [node("Conv", ["x", "w"], ["c"]), node("Conv", ["c", "v"], ["r"])], "e", [], [untold("r")]
    )
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "one"], ["d"]),
        node("Equal", ["d", "three"], ["is"]),
        node("If", ["is"], ["c"], "branch", then_branch=taken, else_branch=other),
        *body()[1:],
    ]
    stored = [*STORED, array(np.array(1), "one"), array(np.array(3), "three")]
    return model(nodes, [IMAGE], [*stored, array(np.ones((4, 4, 1, 1), np.float32), "v")])


def dequantised() -> onnx.ModelProto:
    """Zero points that are not 0, one an output channel; the kernel behind what moves it."""
    zeros = np.array([3, -2, 0, 1], np.int8)
    kernel = (KERNEL + zeros[:, None, None, None]).astype(np.int8)
    nodes = [
        node("DequantizeLinear", ["wq", "s", "z"], ["wd"], axis=0),
        node("Identity", ["wd"], ["w"]),
        *body(),
    ]
    stored = [array(kernel, "wq"), array(np.ones(4, np.float32), "s"), array(zeros, "z")]
    return model(nodes, [IMAGE], [*stored, STORED[1]])


def fused() -> onnx.ModelProto:
    own = "com.microsoft"
    conv = node("FusedConv", ["x", "w"], ["c"], "conv", domain=own, activation="Relu", pads=[1] * 4)
    product = node("FusedMatMul", ["q", "ft"], ["y"], "mm", domain=own, transB=1)
    stored = [STORED[0], array(np.ascontiguousarray(MATRIX.T), "ft")]
    return model([conv, *body()[1:3], product], [IMAGE], stored, domain=own)


FORMS: dict[str, Callable[[], onnx.ModelProto]] = {
    "initialisers": lambda: model(body(), [IMAGE], STORED),
    "constants": constants,
    "sparse": sparse_constants,
    "function": function,
    "branches": branches,
    "dequantised": dequantised,
    "fused": fused,
    "batch-of-minus-1": lambda: model(body(), [value("x", -1, 3, 8, 8)], STORED),
    "batch-of-0": lambda: model(body(), [value("x", 0, 3, 8, 8)], STORED),
    "fixed-batch": lambda: model(body(), [value("x", 4, 3, 8, 8)], STORED),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_network_counts_the_same(form: str) -> None:
    assert counts(FORMS[form]()) == WANT


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 18])
def test_a_shape_that_depends_on_the_batch_is_followed_at_every_opset(opset: int) -> None:
    where = {"axes": [0]} if opset < 13 else {}
    nodes = [
        *body()[:2],
        node("Shape", ["p"], ["s"]),
        node("Gather", ["s", "zero"], ["n"], axis=0),
        node("Unsqueeze", ["n"] if where else ["n", "axes"], ["n1"], **where),
        node("Concat", ["n1", "rest"], ["size"], axis=0),
        node("Reshape", ["p", "size"], ["q"]),
        body()[3],
    ]
    stored = [*STORED, array(np.array(0), "zero"), array(np.array([-1]), "rest")]
    stored += [] if where else [array(np.array([0]), "axes")]
    assert counts(model(nodes, [IMAGE], stored, opset)) == WANT


def quantised(operator: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], int]:
    """A product of integers whose weights' zero is 1, and how many weights are not zero."""
    matrix = np.array([[0, 1, 2]] * 5, np.int8)
    stored = [array(matrix, "w"), array(np.array(1, np.int8), "wz")]
    stored += [array(np.array(0.1, np.float32), "s"), array(np.array(0, np.int8), "z")]
    given = ["q", "s", "z", "w", "s", "wz", "s", "z"]
    given = given if operator.startswith("QLinear") else ["q", "w", "z", "wz"]
    if "Conv" in operator:
        stored[0] = array(matrix.T[..., None, None].copy(), "w")
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node(operator, given, ["i"])]
    return [*nodes, node("Cast", ["i"], ["y"], to=FLOAT)], stored, 10


@pytest.mark.parametrize(
    ("operator", "sizes", "visits"),
    [
        ("MatMulInteger", (5,), 1),
        ("QLinearMatMul", (5,), 1),
        ("ConvInteger", (5, 2, 2), 4),
        ("QLinearConv", (5, 2, 2), 4),
    ],
)
def test_products_of_integers_count(operator: str, sizes: tuple[int, ...], visits: int) -> None:
    nodes, stored, nonzero = quantised(operator)
    net = model(nodes, [value("x", "n", *sizes)], stored)
    assert counts(net) == (15 * visits, nonzero * visits, 15, nonzero)


def test_a_deformable_convolution_counts_as_one() -> None:
    bent = node("DeformConv", ["x", "w", "o"], ["y"])
    net = model([bent], [IMAGE, value("o", "n", 18, 6, 6)], STORED[:1], 19)
    assert counts(net) == (36 * 108, 36 * 81, 108, 81)


def test_keys_of_earlier_steps_are_attended_to() -> None:
    given = [value("x", "n", 2, 3, 4), value("k", "n", 2, 5, 4), value("v", "n", 2, 5, 4)]
    attention = node("Attention", ["x", "x", "x", "", "k", "v"], ["y", "k1", "v1"])
    assert counts(model([attention], given, opset=23))[0] == 2 * 3 * (3 + 5) * (4 + 4)


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ([value("x", "n", 3, -1, 8)], r"input x has no fixed size on axis 2 \(-1\)"),
        ([value("x", "n", 3, 8, 0)], r"input x has no fixed size on axis 3 \(0\)"),
        ([untold("x")], "input x has no shape"),
        ([value("x", 4, 3, 8, 8), value("z", 9, 2)], "inputs disagree on the batch size"),
    ],
)
def test_a_size_that_is_not_fixed_is_refused(inputs: list[onnx.ValueInfoProto], told: str) -> None:
    with pytest.raises(PrunecError, match=told):
        count_onnx(model(body(), inputs, STORED))


def test_a_branch_that_the_input_decides_is_refused_by_name() -> None:
    taken = helper.make_graph([*body()[:1]], "t", [], [untold("c")])
    other = helper.make_graph([node("Identity", ["x"], ["e"])], "e", [], [untold("e")])
    nodes = [
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Greater", ["m", "limit"], ["is"]),
        node("If", ["is"], ["y"], "branch", then_branch=taken, else_branch=other),
    ]
    net = model(nodes, [IMAGE], [*STORED, array(np.array(1, np.float32), "limit")])
    with pytest.raises(PrunecError, match="operator If at branch: which branch is taken depends"):
        count_onnx(net)
