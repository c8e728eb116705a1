"""Comparison of an exported graph with the network, on the example and on other batch sizes."""

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
    """Copy of a network that provides expected outputs, keeping its state between calls.

    The last two answers come from copies that never ran: state that a first call takes from its
        batch
    would be a constant in the graph, and would agree with all later calls.

    Attributes:
        module: copy in evaluation mode.
        example: example inputs.
        batches: the last sample, if the network accepts a single one; the example plus one sample;
            the example; the latter two again.
        answers: flat outputs of the network for each of the batches.
    """

    def __init__(self, network: nn.Module, example: Inputs) -> None:
        self.module = copied(network).eval()
        # The last sample: the first one is repeated in the larger batch below.
        single = of_samples(example, lambda x: x[-1:])
        more = of_samples(example, lambda x: torch.cat([x, x[:1]]))
        self.example = example
        self.batches: tuple[Inputs, ...] = (single, more, example, more, example)
        try:
            answers = [self.answer(single)]
        except Exception:  # any error of a network that does not accept a single sample
            answers, self.batches = [], (more, example, more, example)
        # Fresh copies, see above.
        first = (_answer(copied(network).eval(), given) for given in (more, example))
        self.answers = (*answers, self.answer(more), self.answer(example), *first)

    def answer(self, given: Inputs) -> list[Any]:
        """Return the flat outputs for given inputs."""
        return _answer(self.module, given)

    def lengths(self, graph: GraphModule) -> tuple[Fixed, ...]:
        """Return the input axes for which a graph holds at one length only.

        Args:
            graph: graph that agrees with the network for the lengths of the example.
        """
        example = self.example

        def follow(shapes: Shapes) -> str | None:
            given = tuple(_of_length(x, shape) for x, shape in zip(example, shapes, strict=True))
            try:
                expected = self.answer(given)
            except Exception:  # any error of an operator that does not accept this length
                return None
            return _departure(graph, self, given, expected) or ""

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about the network's operators
            return fixed_lengths(tuple(tuple(x.shape) for x in example), follow, thorough=False)


def _answer(module: nn.Module, given: Inputs) -> list[Any]:
    with torch.no_grad():
        returned = pytree.tree_leaves(module(*(x.clone() for x in given)))
    return [x.clone() if isinstance(x, Tensor) else x for x in returned]


def _of_length(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor cut, or repeated, to another shape."""
    for axis, length in enumerate(shape):
        if length != x.shape[axis]:
            x = x.index_select(axis, torch.arange(length, device=x.device) % x.shape[axis])
    return x


def parting(graph: GraphModule, original: Original) -> str | None:
    """Describe how and where a graph's outputs differ from its network's; None if they agree.

    Args:
        graph: functional graph with the network's own parameters and buffers.
        original: copy of the network, with its answers.
    """
    for given, expected in zip(original.batches, original.answers, strict=True):
        how = _departure(graph, original, given, expected)
        if how:
            return how
    return None


def _departure(
    graph: GraphModule, original: Original, given: Inputs, expected: list[Any]
) -> str | None:
    """Describe how and where a graph's outputs differ from the expected ones; None if equal."""
    size = f"a batch of {len(given[0])}" if given[0].dim() else "the example"
    try:
        with torch.no_grad():
            returned = pytree.tree_leaves(graph(*(x.clone() for x in given)))
    except Exception as error:  # any error of an operator traced for other sizes
        message = str(error).strip().partition("\n")[0]
        if "shape[0]" in message:  # torch's check of a batch size that it took for a constant
            return f"its graph does not run on {size}: the batch size is a literal number in it"
        return f"its graph does not run on {size} ({message})"
    how = _difference(expected, returned)
    return f"on {size} {how}{_place(graph, original, given)}" if how else None


def _difference(expected: list[Any], returned: list[Any]) -> str:
    if len(expected) != len(returned):
        return f"the network returns {len(expected)} values, its graph {len(returned)}"
    for number, (a, b) in enumerate(zip(expected, returned, strict=True)):
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
    """Name the modules between which graph and network part; empty if that is unknown."""
    last = ""
    try:
        computed = _values_of_modules(graph, given)
        for path, value in _answers_of_modules(original, given):
            if path not in computed or not computed[path]:
                continue
            made = computed[path].pop(0)
            if made.shape != value.shape or not equal(made, value):
                return f": they part before {path} returns" + (f", after {last}" if last else "")
            last = path
    except Exception:  # any error: the difference is known, only its place is not
        return ""
    return f": they part after {last}" if last else ""


def _answers_of_modules(original: Original, given: Inputs) -> list[tuple[str, Tensor]]:
    """Return path and output of the innermost modules, in the order of their calls."""
    outputs: list[tuple[str, Tensor]] = []

    def keep(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _given: Any, made: Any) -> None:
            if isinstance(made, Tensor):
                outputs.append((path, made.clone()))

        return hook

    inner = [(p, m) for p, m in original.module.named_modules() if p and not list(m.children())]
    with _hooked(inner, keep):
        original.answer(given)
    return outputs


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
    """Return path of a module → last value of each run of nodes that it made."""
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
    """Return the error for a network that its graph does not reproduce."""
    return UntraceableModel(
        f"The graph of {type(network).__name__} does not compute what the network computes: {why}.",
        remedy="Its forward turns the batch size or its state into Python numbers. Do not loop "
        "over samples, take sizes from x.shape, name the axis of squeeze, and keep no state "
        "between calls.",
    )
