"""Operators that move values, run on tensors of integers."""

from __future__ import annotations

from torch import Tensor
from torch.fx import Node

from prunec.graph import operators as ops
from prunec.graph.capture import Captured
from prunec.graph.shapes import broadcast


def widen(captured: Captured, index: Tensor, operand: Node, call: Node) -> Tensor:
    """Expand the axes of a shrunk tensor that a move may touch; the others may stay shrunk."""
    real = captured.shape(operand)
    keys = ops.MOVE_AXES.get(ops.op_name(call))
    if keys is None:
        return index.expand(real)
    touched = {int(ops.arguments(call)[key]) % len(real) for key in keys}
    return index.expand([real[i] if i in touched else index.shape[i] for i in range(len(real))])


def run_move(captured: Captured, node: Node, call: Node, operands: list[Tensor]) -> Tensor:
    """What a move makes of other operands.

    Args:
        captured: the network.
        node: the moved tensor: the call itself, or the item taken from what it returns.
        call: the call of the operator.
        operands: in place of the call's tensors, widened.
    """
    arguments = [captured.concrete(argument) for argument in call.args]
    listed = isinstance(call.args[0], (list, tuple))
    arguments[0] = _aligned(operands, call) if listed else operands[0]
    keywords = {key: captured.concrete(value) for key, value in call.kwargs.items()}
    assert callable(call.target)
    result = call.target(*arguments, **keywords)
    if node is not call:
        result = result[node.args[1]]
    assert isinstance(result, Tensor)
    return result


def _aligned(operands: list[Tensor], call: Node) -> list[Tensor]:
    """Operands of a concatenation or a stack, of one shape but for the axis it runs along."""
    axis = int(ops.arguments(call)["dim"])
    if ops.op_name(call) == "stack":
        shape = broadcast(*[tuple(x.shape) for x in operands])
        return [x.expand(shape) for x in operands]
    axis %= operands[0].dim()
    shape = broadcast(*[(*x.shape[:axis], 1, *x.shape[axis + 1 :]) for x in operands])
    return [x.expand((*shape[:axis], x.shape[axis], *shape[axis + 1 :])) for x in operands]
