"""Decomposition of a captured program without a second trace.

Most convolutional networks use few operators for which ONNX has no function. If these can be
written out here, the file equals, byte for byte, the result of torch's own decomposition, in half
of the time.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node
from torch.fx.graph import _Namespace

from prunec.graph.capture.aten import arguments
from prunec.graph.capture.node import per_axis

aten = torch.ops.aten
_NORM = aten._native_batch_norm_legit_no_training.default


def decomposed(program: ExportedProgram, written: Collection[Any]) -> bool:
    """Change a program as torch's decomposition would; return whether that was possible.

    Args:
        program: captured program; unchanged if the result is False.
        written: operators with an ONNX function, which are not decomposed.
    """
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    apart = {node: _SPELLED[node.target] for node in calls if node.target in _SPELLED}
    whole = len(list(program.graph_module.modules())) == 1 and all(
        apart[node][0](node) if node in apart else _stays(node.target, written) for node in calls
    )
    if whole:
        for node, (_, spell) in apart.items():
            with program.graph.inserting_before(node):
                node.replace_all_uses_with(spell(program.graph, node))
            program.graph.erase_node(node)
        _name_anew(program)
        program.graph_module.recompile()
    return whole


_BY_PYTHON = frozenset({operator.getitem, aten.sym_size.int})
_COMPOSITE = frozenset(
    {
        *(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.linear.default),
        *(aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default),
        *(aten.layer_norm.default, aten.group_norm.default, aten.instance_norm.default),
        *(aten.prelu.default, aten.relu6.default, aten.selu.default, aten.log_sigmoid.default),
        *(aten.softmax.int, aten.log_softmax.int, aten.matmul.default, aten.pad.default),
        *(aten.upsample_nearest2d.vec, aten.upsample_bilinear2d.vec),
        aten.scaled_dot_product_attention.default,
    }
)
"""Composite operators that torch does not decompose if ONNX has a function for them."""


def _stays(target: Any, written: Collection[Any]) -> bool:
    """Return whether an operator computes a new tensor and has an ONNX function."""
    if target in _BY_PYTHON:
        return True
    if target not in written or not hasattr(target, "_schema") or target._schema.is_mutable:
        return False  # arithmetic with sizes uses Python functions, which have no schema
    return target in _COMPOSITE or not torch._C._dispatch_has_kernel_for_dispatch_key(
        target.name(), "CompositeImplicitAutograd"
    )


def _name_anew(program: ExportedProgram) -> None:
    """Rename the nodes as a new trace would: numbered per operator in the order of computation."""
    names = _Namespace()
    for node in program.graph.nodes:
        if node.op != "call_function":
            names.create_name(node.name, None)
            continue
        base = getattr(node.target, "overloadpacket", node.target).__name__
        node.name = names.create_name(base, None)
        if node.target is operator.getitem and node.args[0].target is _NORM:
            for _statistics in range(2):  # a trace also names the two training statistics of a norm
                names.create_name(base, None)
    outputs = program.graph.output_node().args[0]
    for spec, output in zip(program.graph_signature.output_specs, outputs, strict=True):
        spec.arg.name = output.name


def _is_plain_norm(node: Node) -> bool:
    given = arguments(node)
    stored = [given[name] for name in ("weight", "bias", "running_mean", "running_var")]
    return not given["training"] and None not in stored


def _norm(graph: Graph, node: Node) -> Node:
    given = arguments(node)
    places = ("input", "weight", "bias", "running_mean", "running_var", "momentum", "eps")
    norm = _call(graph, node, _NORM, *(given[name] for name in places))
    value = node.meta["val"]
    # The operator also returns two statistics, which are empty in evaluation.
    norm.meta["val"] = (value, value.new_empty((0,)), value.new_empty((0,)))
    return _call(graph, node, operator.getitem, norm, 0)


def _is_to_one_place(node: Node) -> bool:
    size = per_axis(arguments(node)["output_size"], 2)
    return set(size) == {1} and node.meta["val"].dim() == 4


def _mean(graph: Graph, node: Node) -> Node:
    return _call(graph, node, aten.mean.dim, node.args[0], [-1, -2], True)


def _is_to_rows(node: Node) -> bool:
    """Return whether all axes but the batch become one, without a copy."""
    given = arguments(node)
    before, after = given["self"].meta["val"], node.meta["val"]
    whole = given["start_dim"] == 1 and given["end_dim"] in (-1, before.dim() - 1)
    row = whole and before.dim() > 2 and isinstance(after.shape[1], int)
    return row and before.is_contiguous() and not isinstance(before.shape[0], int)


def _view(graph: Graph, node: Node) -> Node:
    source, after = node.args[0], node.meta["val"].shape
    batch = _call(graph, node, aten.sym_size.int, source, 0)
    batch.meta["val"] = after[0]
    return _call(graph, node, aten.view.default, source, [batch, after[1]])


def _is_of_evaluation(node: Node) -> bool:
    return not arguments(node)["train"]


def _input(_graph: Graph, node: Node) -> Any:
    return node.args[0]


_SPELLED: dict[Any, tuple[Callable[[Node], bool], Callable[[Graph, Node], Any]]] = {
    aten.batch_norm.default: (_is_plain_norm, _norm),
    aten.adaptive_avg_pool2d.default: (_is_to_one_place, _mean),
    aten.flatten.using_ints: (_is_to_rows, _view),
    aten.dropout.default: (_is_of_evaluation, _input),
    aten.dropout_.default: (_is_of_evaluation, _input),
}
"""Decomposed operator → (whether a node is understood, function that writes its replacement)."""


def _call(graph: Graph, like: Node, target: Any, *args: Any) -> Node:
    """Return a call with the metadata, including the shape, of another node."""
    made = graph.call_function(target, args)
    made.meta = dict(like.meta)
    return made
