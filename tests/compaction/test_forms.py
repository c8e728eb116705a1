"""Forms of finished files: each is compacted exactly, or left with the reason and place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from foreign import file_of, image, run, weights
from onnx import TensorProto, helper, numpy_helper

from prunec.deploy.compaction.compact import compact_model
from prunec.deploy.compaction.proof import differences, random_inputs
from prunec.errors import PrunecError

node = helper.make_node
PADS = {"pads": [1] * 4}
BIAS = np.linspace(0.5, 1, 8).astype(np.float32)
TWO = {"w": weights(8, 3, 3, 3, dead=5), "b": BIAS, "v": weights(4, 8, 3, 3, seed=1)}


def chain() -> list[onnx.NodeProto]:
    """Two convolutions with a ReLU between."""
    return [
        node("Conv", ["x", "w", "b"], ["c"], **PADS),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "v"], ["y"], **PADS),
    ]


def in_constants() -> onnx.ModelProto:
    stored = [node("Constant", [], [n], value=numpy_helper.from_array(a)) for n, a in TWO.items()]
    return file_of([*stored, *chain()], {})


def read_by_two() -> onnx.ModelProto:
    """One kernel read by two convolutions, whose inputs lose the same channels."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], **PADS), node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "v"], ["p"], **PADS), node("Tanh", ["r"], ["t"]),
        node("Conv", ["t", "v"], ["q"], **PADS), node("Add", ["p", "q"], ["y"]),
    ]  # fmt: skip
    return file_of(nodes, {**TWO, "b": np.zeros(8, np.float32)})


def residual() -> onnx.ModelProto:
    """Constants that are not zero, added to others."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], **PADS), node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "u", "b"], ["d"], **PADS), node("Relu", ["d"], ["s"]),
        node("Add", ["r", "s"], ["a"]), node("Conv", ["a", "v"], ["y"], **PADS),
    ]  # fmt: skip
    return file_of(nodes, {**TWO, "u": weights(8, 8, 3, 3, seed=2, dead=5)})


def half() -> onnx.ModelProto:
    tensors = {name: array.astype(np.float16) for name, array in TWO.items()}
    return file_of(chain(), tensors, kind=TensorProto.FLOAT16)


def double() -> onnx.ModelProto:
    tensors = {name: array.astype(np.float64) for name, array in TWO.items()}
    return file_of(chain(), tensors, kind=TensorProto.DOUBLE)


def condition_beside() -> onnx.ModelProto:
    """An If that reads what the first convolution makes keeps its channels; others go."""
    branches = {
        name: helper.make_graph(
            [node(operator, ["k"], [f"o_{name}"])], name, [],
            [helper.make_tensor_value_info(f"o_{name}", TensorProto.FLOAT, None)],
        )
        for name, operator in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }  # fmt: skip
    nodes = [
        *chain()[:2], node("Conv", ["r", "v"], ["k"], **PADS),
        node("ReduceSum", ["x"], ["s"], keepdims=0), node("Greater", ["s", "zero"], ["on"]),
        node("If", ["on"], ["y"], **branches),
    ]  # fmt: skip
    return file_of(nodes, {**TWO, "zero": np.asarray(0, np.float32)})


def shape_chain() -> onnx.ModelProto:
    """A reshape to sizes of which one is the count of channels, read from a shape."""
    nodes = [
        *chain()[:2], node("Shape", ["r"], ["s"]), node("Gather", ["s", "i0"], ["n"]),
        node("Gather", ["s", "i1"], ["k"]), node("Unsqueeze", ["n", "z"], ["n1"]),
        node("Unsqueeze", ["k", "z"], ["k1"]), node("Concat", ["n1", "k1", "m"], ["to"], axis=0),
        node("Reshape", ["r", "to"], ["f"]), node("ReduceMean", ["f"], ["g"], axes=[2], keepdims=0),
        node("Gemm", ["g", "h"], ["y"]),
    ]  # fmt: skip
    numbers = {"i0": np.asarray(0), "i1": np.asarray(1), "z": np.asarray([0])}
    numbers["m"] = np.asarray([-1])
    return file_of(nodes, {**TWO, "h": weights(8, 5, seed=3), **numbers})


def same_padding() -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], auto_pad="SAME_UPPER", strides=[2, 2]),
        node("Relu", ["c"], ["r"]), node("Conv", ["r", "v"], ["y"], auto_pad="SAME_LOWER"),
    ]  # fmt: skip
    return file_of(nodes, TWO)


def uneven_padding() -> onnx.ModelProto:
    """A border behind alone: constants of a chosen padding are no constants there."""
    nodes = [*chain()[:2], node("Conv", ["r", "v"], ["y"], pads=[0, 0, 2, 2])]
    return file_of(nodes, TWO)


def quantised() -> onnx.ModelProto:
    """Integers before the weights: what they stand for is not cut, and is said."""
    nodes = [node("DequantizeLinear", ["wq", "s"], ["w"]), *chain()]
    integers = np.round(TWO["w"] * 20).astype(np.int8)
    return file_of(nodes, {"wq": integers, "s": np.float32(0.05), "b": BIAS, "v": TWO["v"]})


CUT: dict[str, tuple[Callable[[], onnx.ModelProto], int]] = {
    "weights in Constant nodes": (in_constants, 4),
    "a kernel read by two": (read_by_two, 5),
    "constants added to constants": (residual, 4),
    "half precision": (half, 4),
    "a condition behind it": (condition_beside, 4),
    "sizes computed from shapes": (shape_chain, 5),
    "padding by name": (same_padding, 4),
    "padding on one side": (uneven_padding, 4),
}


@pytest.mark.parametrize("form", CUT)
def test_it_is_cut_exactly(form: str) -> None:
    make, least = CUT[form]
    model = make()
    compacted = compact_model(model)
    assert sum(compacted.removed.values()) >= least, (compacted.removed, compacted.because)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(compacted.model))
    worst = differences(model, compacted.model, list(random_inputs(model, {}, None)))
    assert all(one.share <= 1 for one in worst), worst
    assert not compact_model(compacted.model).changed


@pytest.mark.parametrize("opset", range(7, 23))
def test_every_opset(opset: int) -> None:
    model = file_of(chain(), TWO, opset=opset)
    model.ir_version = 10
    compacted = compact_model(model)
    assert sum(compacted.removed.values()) == 4
    x = image()
    np.testing.assert_allclose(run(compacted.model, x)[0], run(model, x)[0], atol=1e-4)


def test_what_the_runtime_does_not_run_is_refused() -> None:
    with pytest.raises(PrunecError, match="onnxruntime cannot load the file"):
        compact_model(double())


LEFT: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "integers before the weights": (quantised, "DequantizeLinear"),
}


@pytest.mark.parametrize("form", LEFT)
def test_it_is_left_with_the_reason_or_cut_exactly(form: str) -> None:
    make, why = LEFT[form]
    model = make()
    compacted = compact_model(model)
    if not compacted.changed:
        assert compacted.model.SerializeToString() == model.SerializeToString()
        assert any(why in text for text in compacted.because), compacted.because
    x = image()
    np.testing.assert_allclose(run(compacted.model, x)[0], run(model, x)[0], atol=1e-4)


def test_everything_else_stays_byte_for_byte() -> None:
    """Nodes, tensors, texts and opsets that have nothing to do with the cut."""
    nodes = [
        *chain(), node("Conv", ["x", "k"], ["other"], name="beside", doc_string="as it was"),
        node("MyOwn", ["other"], ["z"], domain="org.somebody", colour="red"),
    ]  # fmt: skip
    model = file_of(nodes[:-1], {**TWO, "k": weights(2, 3, 1, 1), "unread": weights(3, 2)},
                    outputs=("y", "other"))  # fmt: skip
    model.producer_name, model.domain, model.doc_string = "somebody", "org.somebody", "told"
    model.opset_import.append(helper.make_opsetid("org.somebody", 3))
    helper.set_model_props(model, {"labels": "cat,dog"})
    model.graph.initializer[-1].doc_string = "nobody reads it"
    compacted = compact_model(model).model
    before = {n.output[0]: n.SerializeToString() for n in model.graph.node}
    after = {n.output[0]: n.SerializeToString() for n in compacted.graph.node}
    assert after == before, "the weights are smaller, the operators the same"
    held = {t.name: t.SerializeToString() for t in compacted.graph.initializer}
    for tensor in model.graph.initializer:
        if tensor.name in ("k", "unread"):
            assert held[tensor.name] == tensor.SerializeToString()
    bare = [onnx.ModelProto(), onnx.ModelProto()]
    for copy, whole in zip(bare, (model, compacted), strict=True):
        copy.CopyFrom(whole)
        copy.graph.Clear()
    assert bare[0].SerializeToString() == bare[1].SerializeToString()
    ends = [g.graph.output for g in (model, compacted)]
    assert [v.SerializeToString() for v in ends[0]] == [v.SerializeToString() for v in ends[1]]


def test_a_slope_for_every_channel_is_cut_with_it() -> None:
    """PReLU, its slopes with axes of size 1 behind them."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], **PADS), node("PRelu", ["c", "slope"], ["r"]),
        node("Conv", ["r", "v"], ["y"], **PADS),
    ]  # fmt: skip
    slope = np.linspace(0.1, 0.8, 8).astype(np.float32).reshape(8, 1, 1)
    model = file_of(nodes, {**TWO, "b": -BIAS, "slope": slope})
    compacted = compact_model(model)
    assert sum(compacted.removed.values()) == 4
    x = image()
    np.testing.assert_allclose(run(compacted.model, x)[0], run(model, x)[0], atol=1e-4)


def test_a_number_that_is_given_decides_a_branch() -> None:
    branches = {
        name: helper.make_graph(
            [node("Conv", ["r", "v"], [f"o_{name}"], pads=[pad] * 4)], name, [],
            [helper.make_tensor_value_info(f"o_{name}", TensorProto.FLOAT, None)],
        )
        for name, pad in (("then_branch", 1), ("else_branch", 0))
    }  # fmt: skip
    nodes = [*chain()[:2], node("Greater", ["rate", "ten"], ["on"]),
             node("If", ["on"], ["y"], **branches)]  # fmt: skip
    model = file_of(nodes, {**TWO, "ten": np.asarray(10, np.float32)},
                    inputs={"x": ("n", 3, 8, 8), "rate": ()})  # fmt: skip
    compacted = compact_model(model, {"rate": (16000,)})
    assert not compacted.changed
    assert any(why.startswith("If at") for why in compacted.because), compacted.because


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1, 1), (8,), (8, 1), (1,), ()])
def test_slopes_lie_along_the_axis_that_numpy_says(shape: tuple[int, ...]) -> None:
    """Channels, height and width are eight each."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], **PADS), node("PRelu", ["c", "slope"], ["r"]),
        node("Conv", ["r", "v"], ["y"], **PADS),
    ]  # fmt: skip
    count = int(np.prod(shape))
    slope = np.linspace(0.1, 0.8, count).astype(np.float32).reshape(shape)
    model = file_of(nodes, {**TWO, "slope": slope})
    compacted = compact_model(model)
    x = image()
    np.testing.assert_allclose(run(compacted.model, x)[0], run(model, x)[0], atol=1e-4)


@pytest.mark.parametrize("shape", [(8,), (1, 8), (8, 1), (1, 1)])
def test_what_a_gemm_adds_lies_along_its_axis(shape: tuple[int, ...]) -> None:
    """A batch of eight, eight columns."""
    nodes = [
        node("Gemm", ["x", "w", "b"], ["c"]), node("Relu", ["c"], ["r"]),
        node("Gemm", ["r", "v"], ["y"]),
    ]  # fmt: skip
    added = np.linspace(0.5, 1, int(np.prod(shape))).astype(np.float32).reshape(shape)
    tensors = {"w": weights(8, 6, dead=4).T.copy(), "v": weights(8, 3, seed=1), "b": added}
    model = file_of(nodes, tensors, inputs={"x": (8, 6)})
    compacted = compact_model(model)
    x = np.random.default_rng(1).standard_normal((8, 6)).astype(np.float32)
    np.testing.assert_allclose(run(compacted.model, x)[0], run(model, x)[0], atol=1e-4)


def widened(*middle: onnx.NodeProto, **tensors: np.ndarray) -> onnx.ModelProto:
    """A convolution with dead filters, its mean over positions made wide again, another one."""
    nodes = [*chain()[:2], node("GlobalAveragePool", ["r"], ["p"]), *middle,
             node("Conv", ["e", "v"], ["y"], **PADS)]  # fmt: skip
    return file_of(nodes, {**TWO, **tensors})


BY_NUMBERS = widened(node("Expand", ["p", "to"], ["e"]), to=np.asarray([1, 8, 4, 4]))
BY_ONES = widened(node("Expand", ["p", "to"], ["e"]), to=np.asarray([1, 1, 4, 4]))
BY_SHAPE = widened(node("Shape", ["r"], ["to"]), node("Expand", ["p", "to"], ["e"]))
CRD = node("DepthToSpace", ["p"], ["e"], blocksize=2, mode="CRD")
SHUFFLED = widened(CRD, v=weights(4, 2, 3, 3), b=np.zeros(8, np.float32))


@pytest.mark.parametrize("model", [BY_NUMBERS, BY_ONES, BY_SHAPE, SHUFFLED])
def test_what_widens_is_cut(model: onnx.ModelProto) -> None:
    compacted = compact_model(model)
    assert compacted.changed, compacted.because
    x = image()
    np.testing.assert_allclose(run(compacted.model, x)[0], run(model, x)[0], atol=1e-4)


@pytest.mark.parametrize("sizes", [("N", 3, 8, 8), (1, 3, 8, 8), (1, 3, "H", 8)])
def test_a_proof_has_several_draws_whatever_is_fixed(sizes: tuple[int | str, ...]) -> None:
    model = file_of(chain(), TWO)
    axes = model.graph.input[0].type.tensor_type.shape.dim
    for axis, size in zip(axes, sizes, strict=True):
        axis.Clear()
        if isinstance(size, int):
            axis.dim_value = size
        else:
            axis.dim_param = size
    drawn = [batch["x"] for batch in random_inputs(model, {}, None)]
    assert len(drawn) == 3
    assert len({x.tobytes() for x in drawn}) == 3
