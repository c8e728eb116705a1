"""Rules for operators that move values or reduce axes in earlier opsets.

Most had their sizes and axes as attributes, and have them as inputs now.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper

from prunec.exporters._onnx_graph import Needs, RewrittenGraph, attribute

Nodes = list[onnx.NodeProto]


def _axes(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    """Turn axes into an attribute; without axes all are reduced, unless the node does nothing."""
    axes = graph.constant(node, 1, 18 if node.op_type in _REDUCTIONS else 13)
    if (axes is None or not axes.size) and attribute(node, "noop_with_empty_axes", 0):
        return [helper.make_node("Identity", [node.input[0]], node.output, node.name)]
    graph.set(node, "noop_with_empty_axes", None)
    del node.input[1:]
    if axes is not None and axes.size:
        graph.set(node, "axes", _from_the_first(node, graph, axes, opset))
    return [node]


def _from_the_first(
    node: onnx.NodeProto, graph: RewrittenGraph, axes: np.ndarray, opset: int
) -> list[int]:
    listed = [int(axis) for axis in axes.reshape(-1)]
    # Negative axes came with opset 11.
    if opset >= 11 or min(listed) >= 0:
        return listed
    rank = graph.rank(node.input[0])
    if rank is None:
        raise Needs(node, 11, "axes counted from the last")
    # Unsqueeze counts axes in its output, which has more.
    rank += len(listed) if node.op_type == "Unsqueeze" else 0
    return [axis % rank for axis in listed]


def _split(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    """Turn part sizes into an attribute; without sizes the parts, one per output, are equal."""
    # num_outputs came with opset 18; the outputs that are listed say the same.
    graph.set(node, "num_outputs", None)
    if opset >= 13 and len(node.input) > 1 and node.input[1]:
        return [node]
    sizes = graph.constant(node, 1, 13)
    if sizes is None:
        sizes = _even(node, graph)
    del node.input[1:]
    if sizes is None:
        return [node]
    if opset >= 13:
        node.input.append(graph.store(np.asarray(sizes, np.int64)))
    else:
        graph.set(node, "split", [int(size) for size in sizes])
    return [node]


def _even(node: onnx.NodeProto, graph: RewrittenGraph) -> np.ndarray | None:
    """Return the sizes of parts with a smaller last part; None if all parts are equal."""
    known = graph.sizes(node.input[0])
    size = known[attribute(node, "axis", 0)] if known else None
    parts = len(node.output)
    if size is None:
        raise Needs(node, 18, "into parts of a size that is not fixed")
    if size % parts == 0:
        return None
    part = -(-size // parts)
    return np.array([part] * (parts - 1) + [size - part * (parts - 1)])


def _pad(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    if len(node.input) > 3 and node.input[3]:
        _pad_all_axes(node, graph)
    del node.input[3:]
    if opset < 11:
        pads, value = graph.constant(node, 1, 11), graph.constant(node, 2, 11)
        del node.input[1:]
        graph.set(node, "pads", [int(pad) for pad in pads] if pads is not None else None)
        graph.set(node, "value", None if value is None else float(value))
    return [node]


def _pad_all_axes(node: onnx.NodeProto, graph: RewrittenGraph) -> None:
    pads, axes = graph.constant(node, 1, 18), graph.constant(node, 3, 18)
    rank = graph.rank(node.input[0])
    if rank is None or pads is None or axes is None:
        raise Needs(node, 18, "of some axes only")
    all_pads = np.zeros((2, rank), np.int64)
    all_pads[:, axes % rank] = pads.reshape(2, -1)
    node.input[1] = graph.store(all_pads.reshape(-1))


def _slice(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    starts, ends, axes, steps = (graph.constant(node, place, 10) for place in range(1, 5))
    if starts is None or ends is None or (steps is not None and set(steps.tolist()) != {1}):
        raise Needs(node, 10, "in steps")
    del node.input[1:]
    graph.set(node, "starts", starts.tolist())
    graph.set(node, "ends", ends.tolist())
    if axes is not None:
        graph.set(node, "axes", _from_the_first(node, graph, axes, opset))
    return [node]


def _top_k(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    if not attribute(node, "largest", 1):
        raise Needs(node, 11, "the smallest")
    if opset < 10:
        k = graph.constant(node, 1, 10)
        del node.input[1:]
        graph.set(node, "k", None if k is None else int(k.reshape(-1)[0]))
    return [node]


def _shape(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    start, end = attribute(node, "start", 0), attribute(node, "end")
    graph.set(node, "start", None)
    graph.set(node, "end", None)
    if not start and end is None:
        return [node]
    whole, part = f"{node.output[0]}/whole", node.output[0]
    # Slice cuts its end off at the size: any number above every rank means the last.
    bounds = [graph.store(np.array([b])) for b in (start, 2**31 if end is None else end)]
    axis = graph.store(np.array([0]))
    node.output[0] = whole
    return [node, helper.make_node("Slice", [whole, *bounds, axis], [part], f"{node.name}/part")]


def _reshape(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    """Drop ``allowzero`` if no size is 0."""
    if attribute(node, "allowzero", 0):
        sizes = graph.constant(node, 1, 14)
        if sizes is None or 0 in sizes.tolist():
            raise Needs(node, 14, "to a size of 0")
        graph.set(node, "allowzero", None)
    return [node]


def _scatter(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    if attribute(node, "reduction", "none") != "none":
        raise Needs(node, 16 if attribute(node, "reduction") in ("add", "mul") else 18)
    # ScatterElements was called Scatter before opset 11.
    made = helper.make_node("Scatter", node.input, node.output, node.name)
    made.attribute.append(helper.make_attribute("axis", attribute(node, "axis", 0)))
    return [made]


def _triangle(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    """Write a mask of the last two axes, if their sizes are fixed."""
    sizes, diagonal = graph.sizes(node.input[0]), graph.constant(node, 1, 14)
    if not sizes or None in sizes[-2:]:
        raise Needs(node, 14, "of sizes that are not fixed")
    whole = np.ones([int(size or 0) for size in sizes[-2:]], bool)
    shift = 0 if diagonal is None else int(diagonal.reshape(-1)[0])
    mask = np.triu(whole, shift) if attribute(node, "upper", 1) else np.tril(whole, shift)
    zero = np.zeros((), helper.tensor_dtype_to_np_dtype(graph.type(node.input[0])))
    inputs = [graph.store(mask), node.input[0], graph.store(zero)]
    return [helper.make_node("Where", inputs, node.output, node.name)]


def _depth_to_space(node: onnx.NodeProto, graph: RewrittenGraph, opset: int) -> Nodes:
    """Write mode CRD as reshapes; before opset 11 there is only DCR."""
    if attribute(node, "mode", "DCR") == "DCR":
        return [node]
    sizes, block = graph.sizes(node.input[0]), attribute(node, "blocksize")
    if not sizes or None in sizes[1:]:
        raise Needs(node, 11, "of sizes that are not fixed")
    channels, height, width = (int(size or 0) for size in sizes[1:])
    kept = channels // block**2
    y = node.output[0]
    # CRD: [N, C·b·b, H, W] → [N, C, b, b, H, W] → [N, C, H, b, W, b]; 0 keeps the batch.
    split = graph.store(np.array([0, kept, block, block, height, width]))
    joined = graph.store(np.array([0, kept, height * block, width * block]))
    return [
        helper.make_node("Reshape", [node.input[0], split], [f"{y}/split"]),
        helper.make_node("Transpose", [f"{y}/split"], [f"{y}/turned"], perm=[0, 1, 4, 2, 5, 3]),
        helper.make_node("Reshape", [f"{y}/turned", joined], [y]),
    ]


_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSumSquare",
)  # fmt: skip

SHAPES: dict[str, tuple[int, Callable[[onnx.NodeProto, RewrittenGraph, int], Nodes]]] = {
    **dict.fromkeys(_REDUCTIONS, (18, _axes)),
    **dict.fromkeys(("ReduceSum", "Squeeze", "Unsqueeze"), (13, _axes)),
    "DepthToSpace": (11, _depth_to_space),
    "Pad": (18, _pad),
    "Reshape": (14, _reshape),
    "ScatterElements": (11, _scatter),
    "Shape": (15, _shape),
    "Slice": (10, _slice),
    "Split": (18, _split),
    "TopK": (11, _top_k),
    "Trilu": (14, _triangle),
}
"""Operator → (opset below which it is rewritten, function that rewrites it)."""
