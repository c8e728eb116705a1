"""Operators that move values: run on tensors of integers they say what goes where."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from prunec.graph.capture import Captured
from prunec.graph.capture import aten as ops
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.shapes import broadcast
from prunec.graph.channels.structure import Link, shrink

_ERRORS = (RuntimeError, IndexError, TypeError)  # what torch raises where integers cannot be moved


def widen(captured: Captured, index: Tensor, operand: Node, call: Node) -> Tensor:
    """Expand the axes of a shrunk tensor that a move may touch; the others may stay shrunk."""
    real = captured.shape(operand)
    name = ops.op_name(call)
    named = ops.arguments(call)
    if name in ops.VIEWS or name == "expand":
        return index
    if name in ops.PICKS:
        touched = set(picked_axes(captured, call, operand))
    elif name not in ops.MOVE_AXES:
        return index.expand(real)
    else:
        dims = [named[key] for key in ops.MOVE_AXES[name]]
        flat = [d for dim in dims for d in (dim if isinstance(dim, (list, tuple)) else [dim])]
        touched = {int(d) % len(real) for d in flat}
    return index.expand([real[i] if i in touched else index.shape[i] for i in range(len(real))])


def picked_axes(captured: Captured, call: Node, operand: Node) -> list[int]:
    """Axes along which a move picks positions by number; all where its numbers run over several."""
    named = ops.arguments(call)
    name = ops.op_name(call)
    rank = len(captured.shape(operand))
    if name in ("channel_shuffle", "native_channel_shuffle"):
        return [1]
    if name == "index":
        listed = [(i, n) for i, n in enumerate(named["indices"]) if n is not None]
        flat = all(len(captured.shape(n)) == 1 for _, n in listed)
        return [i for i, _ in listed] if flat else sorted({*(i for i, _ in listed), -1})
    dims = named.get("dim", named.get("dims", 0))
    dims = [dims] if isinstance(dims, int) else list(dims)
    return sorted(d % rank for d in dims) or list(range(rank))


def run_move(captured: Captured, node: Node, call: Node, operands: list[Tensor]) -> Tensor:
    """What a move makes of other operands.

    Args:
        captured: the network.
        node: the moved tensor: the call itself, or the item taken from what it returns.
        call: the call of the operator.
        operands: in place of the call's tensors, widened.
    """
    name = ops.op_name(call)
    if name in ops.VIEWS:
        real = captured.shape(call.all_input_nodes[0])
        return _reshaped(operands[0], real, captured.shape(node))
    if name == "expand":
        lead = len(captured.shape(node)) - operands[0].dim()
        return operands[0].reshape([1] * lead + list(operands[0].shape))
    arguments = [captured.concrete(argument, tensors=True) for argument in call.args]
    listed = isinstance(call.args[0], (list, tuple))
    arguments[0] = _aligned(operands, call) if listed else operands[0]
    keywords = {key: captured.concrete(value) for key, value in call.kwargs.items()}
    assert callable(call.target)
    result = call.target(*arguments, **keywords)
    if node is not call:
        result = result[node.args[1]]
    assert isinstance(result, Tensor)
    return result


def _reshaped(index: Tensor, real: tuple[int, ...], target: tuple[int, ...]) -> Tensor:
    """A shrunk tensor seen in another shape; axes that nothing differs along stay shrunk.

    The axes of both shapes fall into runs of equal product; a run in which nothing differs is left
    at size 1 throughout.
    """
    before, after = [], []
    i = j = 0
    while i < len(real) or j < len(target):
        start_i, start_j = i, j
        mine = theirs = 1
        while i < len(real) or j < len(target):
            if (mine <= theirs and i < len(real)) or j == len(target):
                mine, i = mine * real[i], i + 1
            else:
                theirs, j = theirs * target[j], j + 1
            if mine == theirs and i > start_i and j > start_j:
                break
        shrunk = all(index.shape[axis] == 1 for axis in range(start_i, i))
        before += [1] * (i - start_i) if shrunk else list(real[start_i:i])
        after += [1] * (j - start_j) if shrunk else list(target[start_j:j])
    return index.expand(before).reshape(after)


def _aligned(operands: list[Tensor], call: Node) -> list[Tensor]:
    """Operands of a concatenation or a stack, of one shape but for the axis it runs along."""
    axis = int(ops.arguments(call)["dim"])
    if ops.op_name(call) == "stack":
        shape = broadcast(*[tuple(x.shape) for x in operands])
        return [x.expand(shape) for x in operands]
    axis %= operands[0].dim()
    shape = broadcast(*[(*x.shape[:axis], 1, *x.shape[axis + 1 :]) for x in operands])
    return [x.expand((*shape[:axis], x.shape[axis], *shape[axis + 1 :])) for x in operands]


def visit_move(builder: Builder, node: Node, call: Node) -> None:
    """Carry atoms through a move; ``node`` is the call or an item of what it returns."""
    captured = builder.captured
    first = call.args[0]
    listed = first if isinstance(first, (list, tuple)) else [first]
    operands = tuple(n for n in listed if isinstance(n, Node))
    name = ops.op_name(call)
    if name in ("cat", "concat") and _joins_positions(builder, call, operands):
        _visit_spatial_cat(builder, node, operands)
        return
    tensors = [n for n in call.all_input_nodes if captured.is_tensor(n)]
    if any(n not in operands and n.op != "get_attr" for n in tensors):
        builder.refuse(node, operands, f"{name} at {node.name} picks positions by computed numbers")
        return
    if name == "repeat_interleave" and len(tensors) > len(operands):
        builder.refuse(node, operands)
        return
    if name in ops.PICKS and _picks_samples(builder, call, operands):
        builder.refuse(node, operands, f"{name} at {node.name} picks channels of single samples")
        return
    ids, start = [], 0
    for operand in operands:
        layout = builder.layout(operand)
        index = torch.arange(start, start + layout.numel()).reshape(layout.shape)
        ids.append(widen(captured, index, operand, call))
        start += layout.numel()
    try:
        moved = run_move(captured, node, call, ids)
    except _ERRORS as error:
        builder.refuse(node, operands, f"{name} at {node.name}: {error}")
        return
    if moved.numel() == 0:
        builder.refuse(node, operands, f"{name} at {node.name} leaves nothing")
        return
    index = shrink(moved)
    atoms = torch.cat([builder.layout(operand).reshape(-1) for operand in operands])
    builder.found.links[node] = Link(operands, index.reshape(-1))
    builder.settle(node, "move", atoms[index])


def _picks_samples(builder: Builder, call: Node, operands: tuple[Node, ...]) -> bool:
    """Whether channels are picked along an axis whose length depends on the batch."""
    return any(
        set(builder.axes(operand)) & builder.captured.dynamic(operand) for operand in operands
    )


def _joins_positions(builder: Builder, call: Node, operands: tuple[Node, ...]) -> bool:
    """Whether a concatenation runs along an axis that is no channel axis of its operands."""
    axis = int(ops.arguments(call)["dim"])
    return any(
        builder.captured.shape(x)[axis] > 1
        and builder.layout(x).shape[axis] == 1
        and bool(builder.layout(x).any())
        for x in operands
    )


def _visit_spatial_cat(builder: Builder, node: Node, operands: tuple[Node, ...]) -> None:
    shape = broadcast(*[tuple(builder.layout(x).shape) for x in operands])
    first = builder.layout(operands[0]).expand(shape)
    for operand in operands[1:]:
        builder.join(first, builder.layout(operand).expand(shape))
    builder.settle(node, "alike", first.contiguous())


def visit_pad(builder: Builder, node: Node) -> None:
    """Padding of positions leaves atoms alone; padding of channels makes constant ones."""
    source = node.all_input_nodes[0]
    named = ops.arguments(node)
    layout, real = builder.layout(source), builder.captured.shape(source)
    widths = list(named["pad"] if "pad" in named else named["padding"])
    rank, fill = len(real), float(named.get("value") or 0.0)
    constant = ops.op_name(node) == "constant_pad_nd" or named.get("mode") == "constant"
    touched = [rank - 1 - i // 2 for i in range(0, len(widths), 2) if widths[i] or widths[i + 1]]
    if not touched:
        builder.settle(node, "identity", layout)
        return
    axes = [axis for axis in touched if layout.shape[axis] > 1]
    if not axes and all(real[axis] > 1 for axis in touched):
        builder.settle(node, "border", layout)
        return
    if not constant or len(touched) != 1 or touched[0] in builder.captured.dynamic(source):
        builder.refuse(node, [source])
        return
    index = torch.arange(layout.numel()).reshape(layout.shape)
    index = index.expand([real[i] if i in touched else layout.shape[i] for i in range(rank)])
    moved = torch.constant_pad_nd(index, widths, -1)
    made = moved < 0
    atoms = torch.zeros_like(moved)
    atoms[~made] = layout.reshape(-1)[moved[~made]]
    atoms[made] = builder.unions.fresh(int(made.sum()))
    builder.found.links[node] = Link((source,), moved.reshape(-1), fill)
    builder.settle(node, "move", atoms)
