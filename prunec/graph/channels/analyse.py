"""Which atom of channel identity sits at each index of every tensor.

Every output channel of a producer is an integer, an *atom*. Operators that only move values are
run on tensors of such integers, so that views, concatenations, splits and shuffles need no rule of
their own. Operators that combine several tensors position by position join atoms (union–find);
whatever is not understood pins the atoms it reads, with its name as the reason.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.fx import Node

from prunec.graph.capture import Captured
from prunec.graph.capture import aten as ops
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.operators.contractions import (
    visit_attention,
    visit_einsum,
    visit_product,
)
from prunec.graph.channels.operators.moves import picked_axes, visit_move, visit_pad
from prunec.graph.channels.operators.normalisations import (
    visit_group_norm,
    visit_instance_norm,
    visit_within,
)
from prunec.graph.channels.operators.pointwise import (
    visit_elementwise,
    visit_expand_as,
    visit_factory,
    visit_like,
    visit_prelu,
    visit_reduction,
    visit_window,
)
from prunec.graph.channels.operators.producers import (
    visit_batch_norm,
    visit_convolution,
    visit_embedding,
    visit_linear,
)
from prunec.graph.channels.operators.recurrent import GATES, Recurrent, visit_item, visit_recurrent
from prunec.graph.channels.operators.regroup import (
    visit_pixel_shuffle,
    visit_pixel_unshuffle,
    visit_unfold,
)
from prunec.graph.channels.shuffles import close_region
from prunec.graph.channels.structure import Structure, varying

Visit = Callable[[Builder, Node], None]


def analyse(captured: Captured) -> Structure:
    """Atoms, kernels and pins of a captured network."""
    builder = Builder(captured)
    for node in captured.nodes:
        _visit(builder, node)
    _pin_what_is_read_otherwise(builder)
    builder.settle_tables()
    _narrow(builder)
    return builder.found


def _identity(builder: Builder, node: Node) -> None:
    builder.settle(node, "identity", builder.layout(node.all_input_nodes[0]))


def _move(builder: Builder, node: Node) -> None:
    visit_move(builder, node, node)


_VISITS: dict[str, Visit] = {
    **dict.fromkeys(ops.IDENTITY, _identity),
    **dict.fromkeys(ops.ELEMENTWISE, visit_elementwise),
    **dict.fromkeys(ops.MOVES, _move),
    **dict.fromkeys(ops.WINDOWS, visit_window),
    **dict.fromkeys(ops.REDUCTIONS, visit_reduction),
    **dict.fromkeys(ops.PADS, visit_pad),
    **dict.fromkeys(ops.CONVOLUTIONS, visit_convolution),
    **dict.fromkeys(ops.LIKES, visit_like),
    **dict.fromkeys(ops.WITHIN, visit_within),
    **dict.fromkeys(("matmul", "mm", "bmm", "baddbmm"), visit_product),
    "expand_as": visit_expand_as,
    "einsum": visit_einsum,
    "scaled_dot_product_attention": visit_attention,
    "linear": visit_linear,
    "embedding": visit_embedding,
    "batch_norm": visit_batch_norm,
    "group_norm": visit_group_norm,
    "instance_norm": visit_instance_norm,
    "prelu": visit_prelu,
    "pixel_shuffle": visit_pixel_shuffle,
    "pixel_unshuffle": visit_pixel_unshuffle,
    "im2col": visit_unfold,
}


def _visit(builder: Builder, node: Node) -> None:
    captured = builder.captured
    if node.op == "output":
        for source in node.all_input_nodes:
            if captured.is_tensor(source):
                builder.pin(builder.layout(source), "network output")
        return
    if node.op != "call_function":
        return
    builder.found.kinds[node] = "refused"
    name = ops.op_name(node)
    operands = [n for n in node.all_input_nodes if captured.is_tensor(n)]
    if name == "getitem":
        _visit_item(builder, node)
    elif name in GATES:
        visit_recurrent(builder, node)
    elif not captured.is_tensor(node):
        if name not in ops.MOVES:
            builder.refuse(node, operands)
    elif name in ops.FACTORIES:
        visit_factory(builder, node)
    elif name in _VISITS and operands:
        _VISITS[name](builder, node)
    else:
        builder.refuse(node, operands)


def _visit_item(builder: Builder, node: Node) -> None:
    source = node.args[0]
    assert isinstance(source, Node)
    if builder.captured.is_tensor(node) and ops.op_name(source) in ops.MOVES:
        visit_move(builder, node, source)
    elif isinstance(builder.found.rules.get(source), Recurrent):
        visit_item(builder, node, source)
    else:
        builder.found.layouts[node] = builder.blank(node)


def _pin_what_is_read_otherwise(builder: Builder) -> None:
    """A weight that is also an operand of something else keeps the channels on all its sides."""
    found = builder.found
    weights = {kernel.weight for kernel in found.kernels.values()}
    weights |= {name for rule in found.rules.values() for name in rule.cuts}
    for name in sorted(weights):
        calls = sorted(builder.captured.readers(name), key=str)
        other = next((call for call in calls if not _cuts(found, call, name)), None)
        if other is not None:
            builder.tables.pop(name, None)
            for (owner, _), atoms in found.slices.items():
                if owner == name:
                    builder.pin(
                        atoms, f"{name} is read by {ops.op_name(other)} at {other.name} too"
                    )


def _cuts(found: Structure, call: Node, name: str) -> bool:
    """Whether a call reads a weight in such a way that it is cut with its channels."""
    kernel = found.kernels.get(call)
    if kernel is not None:
        weight = next(n for n in call.all_input_nodes if n.op == "get_attr" and n.target == name)
        return kernel.weight == name and kernel.source is not weight
    rule = found.rules.get(call)
    return rule is not None and name in rule.cuts


def _narrow(builder: Builder) -> None:
    """Let the channels of every tensor lie along one axis: as a permutation seen from its ends, or
    by joining those that lie at the same place along the longest axis.
    """
    found = builder.found
    suspects = [n for n in builder.captured.nodes if _spread(found, n)]
    while True:
        found.classes = builder.unions.classes()
        for node in suspects:
            found.layouts[node] = found.classes[found.layouts[node]]
        pinned = torch.zeros(len(found.classes), dtype=torch.bool)
        pinned[torch.tensor(sorted(found.pinned()))] = True
        wide = [
            node
            for node in suspects
            if _spread(found, node)
            and node not in builder.ragged
            and not bool(pinned[found.layouts[node]].all())
        ]
        found.virtual, found.shuffles = set(), {}
        for node in wide:
            if node not in found.virtual and not close_region(found, node):
                layout = found.layouts[node]
                builder.coarsen(layout, [max(varying(layout), key=lambda i: layout.shape[i])])
                break
        else:
            break
    _pin_what_cannot_be_picked(builder)


def _pin_what_cannot_be_picked(builder: Builder) -> None:
    """Positions along a channel axis are picked anew after a cut: by one axis and one row of them.

    A move that picks along several axes at once must find all channels in place.
    """
    found = builder.found
    for node, link in found.links.items():
        call = node.args[0] if ops.op_name(node) == "getitem" else node
        assert isinstance(call, Node)
        if ops.op_name(call) not in ops.PICKS:
            continue
        picked = picked_axes(builder.captured, call, link.operands[0])
        source = found.layouts[link.operands[0]]
        lies = set(varying(found.classes[source]))
        if lies & set(picked) and picked != sorted(lies):
            builder.pin(source, f"{ops.op_name(call)} at {node.name} picks along several axes")


def _spread(found: Structure, node: Node) -> bool:
    return node in found.layouts and len(varying(found.layouts[node])) > 1
