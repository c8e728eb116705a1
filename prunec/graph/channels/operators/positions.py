"""Moves applied to tensors of positions in place of the network's values."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from prunec.graph.capture.node import Node, is_number, replaced
from prunec.graph.channels.layouts import broadcast

# Moves that keep the order of values and change only the shape.
VIEWS = frozenset("view reshape _unsafe_view flatten unflatten squeeze unsqueeze".split())
# Moves whose sizes are literals.
SIZED = frozenset(("view", "reshape", "_unsafe_view", "expand", "unflatten"))
# Moves that pick positions by number.
PICKS = frozenset(
    (
        "slice select narrow index_select index split tensor_split split_with_sizes chunk unbind "
        "roll flip"
    ).split()
)
# Arguments that name the axes a move acts along: of an empty tuple none are widened, of a move that
# is not listed all.
_AXES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys("permute transpose t movedim swapaxes numpy_T mT adjoint stack".split(), ()),
    **dict.fromkeys("cat concat chunk split split_with_sizes tensor_split slice".split(), ("dim",)),
    **dict.fromkeys("select narrow index_select unbind".split(), ("dim",)),
    "flip": ("dims",),
    "roll": ("dims",),
    "rot90": ("dims",),
    "diagonal": ("dim1", "dim2"),
    "unfold": ("dimension",),
}


def widen(index: Tensor, operand: Node, call: Node) -> Tensor:
    """Expand the shrunk axes that a move may touch; the other axes stay shrunk."""
    real = operand.shape
    name = call.operator
    if name in VIEWS or name == "expand":
        return index
    if name in PICKS:
        touched = set(picked_axes(call, operand))
    elif name not in _AXES:
        return index.expand(real)
    else:
        dims = [call.arguments[key] for key in _AXES[name]]
        flat = [d for dim in dims for d in (dim if isinstance(dim, (list, tuple)) else [dim])]
        touched = {int(d) % len(real) for d in flat}
    return index.expand([real[i] if i in touched else index.shape[i] for i in range(len(real))])


def picked_axes(call: Node, operand: Node) -> list[int]:
    """Return the axes along which a move picks positions by index.

    All axes, where the index runs over several.
    """
    named = call.arguments
    name = call.operator
    rank = len(operand.shape)
    if name in ("channel_shuffle", "native_channel_shuffle"):
        return [1]
    if name == "index":
        listed = [(i, n) for i, n in enumerate(named["indices"]) if n is not None]
        flat = all(len(n.shape) == 1 for _, n in listed)
        return [i for i, _ in listed] if flat else sorted({*(i for i, _ in listed), -1})
    dims = named.get("dim", named.get("dims", 0))
    dims = [dims] if isinstance(dims, int) else list(dims)
    return sorted(d % rank for d in dims) or list(range(rank))


def run_move(node: Node, call: Node, operands: list[Tensor]) -> Tensor:
    """Return the result of a move on other operands.

    Args:
        node: the moved tensor: the call itself, or an item of its result.
        call: the call of the operator.
        operands: widened tensors in place of the call's operands.
    """
    if call.operator in VIEWS:
        return _reshaped(operands[0], call.operands[0].shape, node.shape)
    if call.operator == "expand":
        lead = len(node.shape) - operands[0].dim()
        return operands[0].reshape([1] * lead + list(operands[0].shape))
    first, *rest = call.arguments
    listed = isinstance(call.arguments[first], (list, tuple))
    named = {key: replaced(call.arguments[key], _literal) for key in rest}
    named = {first: _aligned(operands, call) if listed else operands[0], **named}
    assert call.compute is not None
    result = call.compute(named)
    if node is not call:
        result = result[node.arguments["index"]]
    assert isinstance(result, Tensor)
    return result


def _literal(node: Node) -> object:
    if is_number(node.value):
        return node.value
    assert node.tensor is not None, f"{node.name} is not stored"
    return node.tensor.cpu()


def _reshaped(index: Tensor, real: tuple[int, ...], target: tuple[int, ...]) -> Tensor:
    """Return a shrunk tensor in another shape; axes along which nothing differs stay shrunk.

    The axes of both shapes fall into runs of equal product; a run in which nothing differs is left
    at size 1 throughout.
    """
    before, after = [], []
    i = j = 0
    while i < len(real) or j < len(target):
        start_i, start_j = i, j
        i, j = _run_of_equal_product(real, target, i, j)
        shrunk = all(index.shape[axis] == 1 for axis in range(start_i, i))
        before += [1] * (i - start_i) if shrunk else list(real[start_i:i])
        after += [1] * (j - start_j) if shrunk else list(target[start_j:j])
    return index.expand(before).reshape(after)


def _run_of_equal_product(
    real: tuple[int, ...], target: tuple[int, ...], i: int, j: int
) -> tuple[int, int]:
    """Return the ends of the shortest runs of axes from ``i`` and ``j`` with equal sizes."""
    start_i, start_j = i, j
    mine = theirs = 1
    while i < len(real) or j < len(target):
        if (mine <= theirs and i < len(real)) or j == len(target):
            mine, i = mine * real[i], i + 1
        else:
            theirs, j = theirs * target[j], j + 1
        if mine == theirs and i > start_i and j > start_j:
            break
    return i, j


def _aligned(operands: list[Tensor], call: Node) -> list[Tensor]:
    """Return the parts of a concatenation or stack, expanded to equal other axes."""
    axis = int(call.arguments["dim"])
    if call.operator == "stack":
        shape = broadcast(*[tuple(x.shape) for x in operands])
        return [x.expand(shape) for x in operands]
    axis %= operands[0].dim()
    shape = broadcast(*[(*x.shape[:axis], 1, *x.shape[axis + 1 :]) for x in operands])
    return [x.expand((*shape[:axis], x.shape[axis], *shape[axis + 1 :])) for x in operands]
