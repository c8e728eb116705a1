"""Peak activation memory against two oracles: the definition by brute force, and arrays that live.

The second runs a file node by node, holds every array that something still needs, and adds bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from prunec.cost.lifetimes import Flow, Operation, Peak, peak
from prunec.cost.onnx_flow import onnx_flow
from prunec.errors import PrunecError


def by_definition(flow: Flow) -> int:
    """The largest sum of what is held, every operation and value looked at."""
    steps = list(flow.operations)
    sums = []
    for now in range(len(steps)):
        held = set()
        for value in flow.bytes:
            made = [t for t, op in enumerate(steps) if value in map(flow.buffer, op.writes)]
            read = [t for t, op in enumerate(steps) if value in map(flow.buffer, op.reads)]
            first = 0 if value in flow.inputs else min(made, default=len(steps))
            last = max([*made, *read, first])
            last = len(steps) - 1 if value in map(flow.buffer, flow.outputs) else last
            held |= {value} if value not in flow.shows and first <= now <= last else set()
        sums.append(sum(flow.bytes[value] for value in held))
    return max(sums)


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    """Graphs of one to three readers a value, some of them views, one or two outputs."""
    count = draw(st.integers(1, 8))
    names, operations, shows = ["x"], [], {}
    for index in range(count):
        reads = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
        made = [f"v{index}", f"w{index}"][: draw(st.integers(1, 2))]
        operations.append(Operation(f"n{index}", "Op", tuple(reads), tuple(made)))
        if draw(st.booleans()):
            shows[made[0]] = reads[0]
        names += made
    outputs = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
    sizes = {name: draw(st.integers(0, 9)) for name in names}
    return Flow(("x",), tuple(outputs), tuple(operations), sizes, shows)


@settings(max_examples=60)
@given(flows())
def test_the_peak_is_that_of_the_definition(flow: Flow) -> None:
    actual = peak(flow)
    assert actual.bytes == by_definition(flow) == sum(size for _, size in actual.held)
    assert actual.operation in {operation.name for operation in flow.operations}


def alive(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> int:
    """Run node by node; return the most bytes of arrays that were needed at one time."""
    graph, most = model.graph, 0
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    arrays = dict(feed)
    outputs = {value.name for value in graph.output}
    for place, node in enumerate(graph.node):
        inner = helper.make_graph(
            [node], "one", [helper.make_empty_tensor_value_info(n) for n in node.input if n],
            [helper.make_empty_tensor_value_info(n) for n in node.output],
        )  # fmt: skip
        one = helper.make_model(inner, opset_imports=model.opset_import)
        given_ = {n: (stored | arrays)[n] for n in node.input if n}
        made = ReferenceEvaluator(one).run(None, given_)
        arrays |= dict(zip(node.output, made, strict=True))
        most = max(most, sum(array.nbytes for array in arrays.values()))
        needed = {n for later in graph.node[place + 1 :] for n in later.input} | outputs
        arrays = {name: array for name, array in arrays.items() if name in needed}
    return most


def residual() -> onnx.ModelProto:
    return parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[n,3,8,8] x) => (float[n,4,8,8] out, float[n,4,1,1] pooled)
        <float[4,3,3,3] k = {0}, float[4,4,1,1] w = {0}> {
          a = Conv<pads=[1,1,1,1]>(x, k)
          b = Relu(a)
          c = Conv(b, w)
          d = Sigmoid(c)
          out = Add(b, d)
          pooled = GlobalAveragePool(out)
        }""")


def split() -> onnx.ModelProto:
    return parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[n,4,6,6] x) => (float[n,4,6,6] y) {
          a, b = Split<axis=1>(x)
          c = Sigmoid(a)
          d = Cast<to=11>(b)
          e = Cast<to=1>(d)
          f = Mul(c, e)
          y = Concat<axis=1>(f, b)
        }""")


@pytest.mark.parametrize("made", [residual, split])
def test_the_peak_is_that_of_arrays_that_live(made: Callable[[], onnx.ModelProto]) -> None:
    model = made()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(np.full(tensor.dims, 0.01, np.float32), tensor.name)
        )
    sizes = [d.dim_value or 1 for d in model.graph.input[0].type.tensor_type.shape.dim]
    feed = {"x": np.ones(sizes, np.float32)}
    assert peak(onnx_flow(model)).bytes == alive(model, feed)


def test_weights_that_are_widened_and_views_are_no_activations() -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[n,3,4,4] x) => (float[n,48] y) <float16[3,3,1,1] h = {0}, int64[2] s = {1,48}> {
          k = Cast<to=1>(h)
          a = Conv(x, k)
          b = Reshape(a, s)
          y = Relu(b)
        }""")
    actual = peak(onnx_flow(model))
    assert actual.bytes == 2 * 48 * 4  # x and a; then a, which b shows, and y
    assert {name for name, _ in actual.held} == {"x", "a"}


def quantised(last: str, end: str) -> Peak:
    """Integers, a convolution, then what is named, then integers again: 64 and 128 values."""
    return peak(
        onnx_flow(
            parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[n,4,4,4] x) => (float[n,8,4,4] y)
        <float[8,4,1,1] k = {{0}}, float s = {{0.1}}, uint8 z = {{0}}> {{
          q = QuantizeLinear(x, s, z)
          f = DequantizeLinear(q, s, z)
          c = Conv(f, k)
          {last}
          p = QuantizeLinear({end}, s, z)
          y = DequantizeLinear(p, s, z)
        }}""")
        )
    )


def test_integers_are_held_as_integers() -> None:
    in_integers, in_floats = quantised("", "c"), quantised("e = Softmax(c)", "e")
    assert in_integers.bytes == 4 * 128 + 128  # at the end, where floats come out again
    assert in_floats.bytes == 4 * 128 + 4 * 64  # the convolution reads floats and makes floats


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("y = If(c) <then_branch = t () => (float[4] u) { u = Relu(x) }, "
         "else_branch = e () => (float[4] v) { v = Neg(x) }>", "If at"),
        ("y = Compress(x, c)", "cannot be inferred"),
    ],
)  # fmt: skip
def test_what_depends_on_the_input_is_refused(body: str, word: str) -> None:
    model = parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[4] x) => (float[m] y) {{
          h = ReduceSum<keepdims=0>(x)
          r = ReduceMean<keepdims=0>(x)
          c = Less(h, r)
          {body}
        }}""")
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    with pytest.raises(PrunecError, match=word):
        onnx_flow(model)
