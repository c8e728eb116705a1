"""The ONNX counter against hand counts, published counts and torch's own counter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from prunec.cost import ROLE
from prunec.cost.onnx_graph import count_known, count_onnx
from prunec.cost.onnx_reading import read_model
from prunec.errors import PrunecError

FLOAT = TensorProto.FLOAT


def model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    output: str,
    weights: dict[str, np.ndarray],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, FLOAT, size) for name, size in inputs.items()],
        [helper.make_tensor_value_info(output, FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def ones(*size: int) -> np.ndarray:
    return np.ones(size, np.float32)


def conv(weight: np.ndarray, size: list[int | str], op: str = "Conv", **options: object):
    node = helper.make_node(op, ["x", "w"], ["y"], "c", **options)
    return model([node], {"x": size}, "y", {"w": weight})


def test_a_convolution_counts_every_output_position_once_per_weight() -> None:
    cost = count_onnx(conv(ones(5, 3, 3, 3), ["n", 3, 8, 8], pads=[1, 1, 1, 1], strides=[2, 2]))
    assert cost.macs == 5 * 4 * 4 * 3 * 9
    assert cost.params == 5 * 3 * 9


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2)])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_agree_with_the_counter_of_torch(
    groups: int, stride: int, padding: int, dilation: int, transposed: bool
) -> None:
    x, weight = torch.randn(1, 8, 9, 7), torch.randn(8, 8 // groups, 3, 3)
    call = F.conv_transpose2d if transposed else F.conv2d
    with FlopCounterMode(display=False) as counter:
        call(x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups)
    options = {
        "strides": [stride] * 2,
        "pads": [padding] * 4,
        "dilations": [dilation] * 2,
        "group": groups,
    }
    op = "ConvTranspose" if transposed else "Conv"
    cost = count_onnx(conv(weight.numpy(), ["n", 8, 9, 7], op, **options))
    assert 2 * cost.macs == counter.get_total_flops()


def test_zero_weights_are_left_out_of_the_non_zero_macs_alone() -> None:
    weight = ones(4, 2, 3, 3)
    weight[1] = 0
    weight[0, 0, 0, 0] = 0
    cost = count_onnx(conv(weight, ["n", 2, 6, 6], pads=[1, 1, 1, 1]))
    assert cost.macs == 36 * 72
    assert cost.nonzero_macs == 36 * (72 - 18 - 1)
    assert (cost.params, cost.nonzero_params) == (72, 53)


def test_gemm_and_matmul() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["h"], transB=1),
        helper.make_node("Transpose", ["c"], ["ct"], perm=[1, 0]),
        helper.make_node("MatMul", ["h", "ct"], ["y"]),
    ]
    c = ones(3, 7)
    c[0] = 0
    cost = count_onnx(
        model(nodes, {"x": ["n", 5]}, "y", {"a": ones(7, 5), "b": ones(7), "c": c}),
    )
    assert [layer.macs for layer in cost.layers] == [35, 21]
    assert [layer.nonzero_macs for layer in cost.layers] == [35, 14]
    assert cost.params == 35 + 7 + 21


def test_a_product_of_activations_counts_but_has_no_parameters() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    cost = count_onnx(model(nodes, {"x": ["n", 6, 5]}, "y", {}))
    assert (cost.macs, cost.nonzero_macs, cost.params) == (6 * 6 * 5, 6 * 6 * 5, 0)


def test_einsum_counts_the_product_of_all_indices() -> None:
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation="nij,jk->nik")
    cost = count_onnx(model([node], {"x": ["n", 6, 5]}, "y", {"w": ones(5, 3)}))
    assert cost.macs == 6 * 5 * 3


def test_a_fixed_batch_is_divided_out() -> None:
    weight = ones(5, 3, 3, 3)
    assert (
        count_onnx(conv(weight, [4, 3, 8, 8])).macs == count_onnx(conv(weight, ["n", 3, 8, 8])).macs
    )


def test_a_shared_weight_costs_macs_each_time_and_parameters_once() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("Conv", ["h", "w"], ["y"]),
    ]
    cost = count_onnx(model(nodes, {"x": ["n", 4, 5, 5]}, "y", {"w": ones(4, 4, 1, 1)}))
    assert (cost.macs, cost.params) == (2 * 25 * 16, 16)


def test_parameters_are_what_was_learnt() -> None:
    nodes = [
        helper.make_node("BatchNormalization", ["x", "g", "b", "m", "v"], ["h"]),
        helper.make_node("Clip", ["h", "low", "high"], ["i"]),
        helper.make_node("PRelu", ["i", "slope"], ["j"]),
        helper.make_node("Mul", ["j", "scale"], ["k"]),
        helper.make_node("Div", ["k", "two"], ["l"]),
        helper.make_node("Reshape", ["l", "shape"], ["m1"]),
        helper.make_node("Add", ["m1", "table"], ["y"]),
    ]
    per_channel = {name: ones(4) for name in "gbmv"}
    weights = per_channel | {
        "low": np.float32(0),
        "high": np.float32(6),
        "slope": ones(4, 1, 1),
        "scale": ones(4, 1, 1),
        "two": np.float32(2),
        "shape": np.array([-1, 36]),
        "table": ones(36),
    }
    net = model(nodes, {"x": ["n", 4, 3, 3]}, "y", {k: np.asarray(v) for k, v in weights.items()})
    assert count_onnx(net).params == 4 + 4 + 4 + 4 + 36
    marked = next(tensor for tensor in net.graph.initializer if tensor.name == "table")
    marked.metadata_props.add(key=ROLE, value="buffer")
    assert count_onnx(net).params == 16


def test_a_shape_computed_from_the_input_is_followed() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], start=0, end=1),
        helper.make_node("Squeeze", ["s"], ["n"]),
        helper.make_node("Reshape", ["n", "one"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["size"], axis=0),
        helper.make_node("Reshape", ["x", "size"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["y"]),
    ]
    weights = {"one": np.array([-1]), "rest": np.array([12]), "w": ones(12, 3)}
    assert count_onnx(model(nodes, {"x": ["n", 3, 4]}, "y", weights)).macs == 36


def test_an_operator_that_hides_macs_is_refused_by_name() -> None:
    node = helper.make_node("STFT", ["x", "step", "window"], ["y"], "spectrum")
    weights = {"step": np.array(4), "window": ones(8)}
    told = "operator STFT at spectrum: its MACs are not known"
    with pytest.raises(PrunecError, match=told):
        count_onnx(model([node], {"x": ["n", 64, 1]}, "y", weights))


def test_what_cannot_be_counted_is_named_and_the_rest_is_counted() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "first"),
        helper.make_node("Own", ["h"], ["i"], "own", domain="my.domain"),
        helper.make_node("MatMul", ["i", "v"], ["y"], "second"),
    ]
    net = model(nodes, {"x": ["n", 5]}, "y", {"w": ones(5, 3), "v": ones(3, 2)})
    net.opset_import.append(helper.make_opsetid("my.domain", 1))
    cost = count_known(net)
    assert cost.macs == 15
    assert [(u.name, u.operator) for u in cost.uncounted] == [
        ("own", "my.domain.Own"),
        ("second", "MatMul"),
    ]
    with pytest.raises(PrunecError, match=r"my\.domain\.Own at own.*; operator MatMul at second"):
        count_onnx(net)


def test_a_second_dynamic_size_is_refused() -> None:
    with pytest.raises(PrunecError, match=r"input x has no fixed size on axis 2 \(height\)"):
        count_onnx(conv(ones(1, 3, 1, 1), ["n", 3, "height", 4]))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.onnx"
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(PrunecError, match="truncated or not an ONNX file"):
        count_onnx(path)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"second", r"graph\.node\[1\]\.name"),
        (b"MatMul", r"graph\.node\[0\]\.op_type"),
        (b"wide", r"graph\.node\[0\]\.input\[1\]"),
        (b"a note", r"metadata_props\[0\]\.value"),
    ],
)
def test_a_text_that_is_none_is_named(tmp_path: Path, text: bytes, place: str) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "wide"], ["i"], "first"),
        helper.make_node("Relu", ["i"], ["y"], "second"),
    ]
    net = model(nodes, {"x": ["n", 5]}, "y", {"wide": ones(5, 3)})
    net.metadata_props.add(key="note", value="a note")
    path = tmp_path / "net.onnx"
    path.write_bytes(net.SerializeToString().replace(text, b"\xc6" + text[1:], 1))
    with pytest.raises(PrunecError, match=f"{place}.* is not text"):
        read_model(path)
