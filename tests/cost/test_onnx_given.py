"""Counting files whose sizes are given, and whose shapes inference cannot tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunec.cost.onnx_graph import count_known
from prunec.cost.onnx_sizes import parse_sizes
from prunec.errors import PrunecError

node = helper.make_node


def file_of(nodes: list[Any], tensors: dict[str, Any], inputs: dict[str, Any]) -> onnx.ModelProto:
    kinds = {name: TensorProto.INT64 if name == "rate" else TensorProto.FLOAT for name in inputs}
    given = [helper.make_tensor_value_info(n, kinds[n], shape) for n, shape in inputs.items()]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    stored = [numpy_helper.from_array(np.asarray(a), name) for name, a in tensors.items()]
    graph = helper.make_graph(nodes, "g", given, made, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


KERNEL = np.ones((4, 1, 8), np.float32)


def test_a_number_decides_a_branch() -> None:
    """A sample rate that an If asks for is given as the value of its input."""
    branches = {
        name: helper.make_graph(
            [node("Conv", ["x", "w"], [f"o_{name}"], strides=[stride])], name, [],
            [helper.make_tensor_value_info(f"o_{name}", TensorProto.FLOAT, None)],
        )
        for name, stride in (("then_branch", 1), ("else_branch", 2))
    }  # fmt: skip
    nodes = [node("Equal", ["rate", "wide"], ["on"]), node("If", ["on"], ["y"], **branches)]
    model = file_of(nodes, {"w": KERNEL, "wide": np.int64(16000)}, {"x": ("n", 1, 16), "rate": ()})
    assert count_known(model, parse_sizes(["rate=16000"])).macs == 9 * 32
    assert count_known(model, parse_sizes(["rate=8000"])).macs == 5 * 32
    assert count_known(model).uncounted


def test_a_padding_that_is_computed() -> None:
    """Its width is known from a run; ONNX's inference does not follow it."""
    nodes = [
        node("Shape", ["x"], ["s"]), node("Gather", ["s", "last"], ["n"]),
        node("Div", ["n", "eight"], ["p"]), node("Concat", ["zeros", "p"], ["widths"], axis=0),
        node("Cast", ["widths"], ["real"], to=TensorProto.DOUBLE),
        node("Floor", ["real"], ["whole"]), node("Cast", ["whole"], ["pads"], to=TensorProto.INT64),
        node("Pad", ["x", "pads"], ["v"], mode="reflect"), node("Conv", ["v", "w"], ["y"]),
    ]  # fmt: skip
    tensors = {"w": KERNEL, "last": np.asarray([2]), "eight": np.asarray([8]),
               "zeros": np.zeros(5, np.int64)}  # fmt: skip
    model = file_of(nodes, tensors, {"x": ("n", 1, "s")})
    assert count_known(model, {"x": (1, 1, 64)}).macs == (72 - 7) * 32
    assert count_known(model, {"x": (3, 1, 64)}).macs == (72 - 7) * 32, "of one sample"


def test_a_shape_that_follows_from_values_is_not_counted() -> None:
    nodes = [
        node("NonZero", ["x"], ["where"]), node("Cast", ["where"], ["f"], to=TensorProto.FLOAT),
        node("MatMul", ["m", "f"], ["y"]),
    ]  # fmt: skip
    model = file_of(nodes, {"m": np.ones((5, 2), np.float32)}, {"x": ("n", 16)})
    assert [item.operator for item in count_known(model).uncounted] == ["MatMul"]


def test_a_state_whose_first_axis_is_no_batch() -> None:
    """The dynamic size determines the number of samples."""
    nodes = [
        node("Conv", ["x", "w"], ["c"]), node("ReduceSum", ["state"], ["t"], keepdims=0),
        node("Add", ["c", "t"], ["y"]),
    ]  # fmt: skip
    model = file_of(nodes, {"w": KERNEL}, {"x": ("n", 1, 16), "state": (2, "n", 128)})
    given = parse_sizes(["x=3x1x16", "state=2x3x128"])
    assert count_known(model, given).macs == 9 * 32


@pytest.mark.parametrize("written", ["x", "x=", "x=0x3", "=1x3", "x=1x", "x=-1x3", "x=1.5"])
def test_sizes_that_are_none(written: str) -> None:
    with pytest.raises(PrunecError, match="does not name an input with its sizes"):
        parse_sizes([written])


def test_sizes_are_given_once() -> None:
    with pytest.raises(PrunecError, match="names x twice"):
        parse_sizes(["x=1x3", "x=1x4"])
