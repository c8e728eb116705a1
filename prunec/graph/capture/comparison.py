"""A captured graph compared with the network itself, on the example and on another batch size."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from prunec.errors import UntraceableModel
from prunec.graph.capture.agreement import equal
from prunec.graph.capture.copying import copied
from prunec.graph.capture.other_lengths import Fixed, Shapes, fixed_lengths
from prunec.graph.capture.samples import of_samples

Inputs = tuple[Tensor, ...]


class Original:
    """A copy of a network that answers for it, in the state that earlier answers left it in.

    The last two answers are those of copies that never ran: what a first call keeps of its batch
    would be a constant of the graph that agrees with all later ones.

    Attributes:
        module: the copy, in evaluation mode.
        example: the example.
        batches: its last sample, where the network takes a single one; the example and one sample
            more; the example; these two again.
        answers: what the network returns for each of them, flat.
    """

    def __init__(self, network: nn.Module, example: Inputs) -> None:
        self.module = copied(network).eval()
        single = of_samples(example, lambda x: x[-1:])
        more = of_samples(example, lambda x: torch.cat([x, x[:1]]))
        self.example = example
        self.batches: tuple[Inputs, ...] = (single, more, example, more, example)
        try:
            answers = [self.answer(single)]
        except Exception:  # whatever a network raises that takes no single sample
            answers, self.batches = [], (more, example, more, example)
        first = (_answer(copied(network).eval(), given) for given in (more, example))
        self.answers = (*answers, self.answer(more), self.answer(example), *first)

    def answer(self, given: Inputs) -> list[Any]:
        """What it returns, flat."""
        return _answer(self.module, given)

    def lengths(self, graph: GraphModule) -> tuple[Fixed, ...]:
        """The axes of the inputs that a graph has at one length only.

        Args:
            graph: it answers as the network does, but for inputs of other lengths.
        """
        example = self.example

        def follow(shapes: Shapes) -> str | None:
            given = tuple(_of_length(x, shape) for x, shape in zip(example, shapes, strict=True))
            try:
                expected = self.answer(given)
            except Exception:  # whatever an operator raises that takes no such length
                return None
            return _departure(graph, self, given, expected) or ""

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's notes on the network's own operators
            return fixed_lengths(tuple(tuple(x.shape) for x in example), follow, thorough=False)


def _answer(module: nn.Module, given: Inputs) -> list[Any]:
    with torch.no_grad():
        returned = pytree.tree_leaves(module(*(x.clone() for x in given)))
    return [x.clone() if isinstance(x, Tensor) else x for x in returned]


def _of_length(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor cut, or repeated, to another shape."""
    for axis, length in enumerate(shape):
        if length != x.shape[axis]:
            x = x.index_select(axis, torch.arange(length, device=x.device) % x.shape[axis])
    return x


def parting(graph: GraphModule, original: Original) -> str | None:
    """Say how a graph answers otherwise than its network, and where; None if it does not.

    Args:
        graph: a functional one, with the network's own parameters and buffers.
        original: the network.
    """
    for given, expected in zip(original.batches, original.answers, strict=True):
        how = _departure(graph, original, given, expected)
        if how:
            return how
    return None


def _departure(
    graph: GraphModule, original: Original, given: Inputs, expected: list[Any]
) -> str | None:
    """How a graph answers otherwise than expected, and where; None if it does not."""
    size = f"a batch of {len(given[0])}" if given[0].dim() else "the example"
    try:
        with torch.no_grad():
            found = pytree.tree_leaves(graph(*(x.clone() for x in given)))
    except Exception as error:  # whatever an operator raises that was traced for other sizes
        said = str(error).strip().partition("\n")[0]
        if "shape[0]" in said:  # torch's own check of what it takes for constant
            return f"its graph does not run on {size}, the size of the batch is a number in it"
        return f"its graph does not run on {size} ({said})"
    how = _difference(expected, found)
    return f"on {size} {how}{_place(graph, original, given)}" if how else None


def _difference(expected: list[Any], found: list[Any]) -> str:
    if len(expected) != len(found):
        return f"the network returns {len(expected)} values, its graph {len(found)}"
    for number, (a, b) in enumerate(zip(expected, found, strict=True)):
        if not isinstance(a, Tensor) or not isinstance(b, Tensor):
            if a != b:
                return f"output {number} is {a!r}, that of its graph {b!r}"
        elif a.shape != b.shape:
            shapes = tuple(a.shape), tuple(b.shape)
            return f"output {number} has shape {shapes[0]}, that of its graph {shapes[1]}"
        elif not equal(b, a):
            apart = (a.to(torch.float64) - b.to(torch.float64)).abs().max()
            return f"output {number} differs by {float(apart):.3g} from that of its graph"
    return ""


def _place(graph: GraphModule, original: Original, given: Inputs) -> str:
    """Between which of its modules they part, in words; empty where that cannot be said."""
    last = ""
    try:
        theirs = _values_of_modules(graph, given)
        for path, value in _answers_of_modules(original, given):
            if path not in theirs or not theirs[path]:
                continue
            found = theirs[path].pop(0)
            if found.shape != value.shape or not equal(found, value):
                return f": they part before {path} returns" + (f", after {last}" if last else "")
            last = path
    except Exception:  # of whatever kind: what parts is known, where is not
        return ""
    return f": they part after {last}" if last else ""


def _answers_of_modules(original: Original, given: Inputs) -> list[tuple[str, Tensor]]:
    """What the innermost modules return, in the order of their calls."""
    found: list[tuple[str, Tensor]] = []

    def keep(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _given: Any, made: Any) -> None:
            if isinstance(made, Tensor):
                found.append((path, made.clone()))

        return hook

    inner = [(p, m) for p, m in original.module.named_modules() if p and not list(m.children())]
    with _hooked(inner, keep):
        original.answer(given)
    return found


@contextmanager
def _hooked(
    modules: list[tuple[str, nn.Module]], keep: Callable[[str], Callable[..., None]]
) -> Iterator[None]:
    handles = [module.register_forward_hook(keep(path)) for path, module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _values_of_modules(graph: GraphModule, given: Inputs) -> dict[str, list[Tensor]]:
    """The last value of each run of nodes that one module made, by its path."""
    watched = _Watched(graph)
    with torch.no_grad():
        watched.run(*(x.clone() for x in given))
    return watched.values


class _Watched(Interpreter):
    def __init__(self, graph: GraphModule) -> None:
        super().__init__(graph)
        self.values: dict[str, list[Tensor]] = {}
        self._path = ""

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        stack = n.meta.get("nn_module_stack")
        path = str(list(stack.values())[-1][0]) if stack and n.op == "call_function" else ""
        if path and isinstance(result, Tensor):
            values = self.values.setdefault(path, [])
            if path == self._path and values:
                values.pop()
            values.append(result)
        if n.op == "call_function":
            self._path = path
        return result


def refusal(network: nn.Module, why: str) -> UntraceableModel:
    """The error for a network whose graph is not the network."""
    return UntraceableModel(
        f"{type(network).__name__} is not what its graph computes: {why}.",
        remedy="Its forward turns the batch or what it remembers into Python's numbers: loop over "
        "no samples, take sizes from x.shape, name the axis of squeeze, and keep no state from "
        "one call to the next.",
    )
