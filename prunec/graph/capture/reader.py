"""Capture of a network as a functional ATen graph with known shapes.

A recording, or ``torch.export``, captures. In-place operators are then replaced by functional ones:
directly where nothing else views the memory, else by torch's own decomposition. One run on the
example records the shape of every value.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from prunec.errors import UntraceableModel
from prunec.graph.capture.aten import op_name
from prunec.graph.capture.captured import Captured
from prunec.graph.capture.comparison import Original, parting, refusal
from prunec.graph.capture.fast import fast_trace
from prunec.graph.capture.form import DTYPE, form_of
from prunec.graph.capture.functional import fold_numbers, functionalise
from prunec.graph.capture.normal_forms import spell_out
from prunec.graph.capture.other_lengths import Fixed, carried
from prunec.graph.capture.samples import holds_samples
from prunec.graph.capture.surroundings import undisturbed
from prunec.graph.capture.torch_nodes import read
from prunec.graph.capture.tracing import does_not_run, not_captured, trace

_GIVEN = ("placeholder", "get_attr")
_LARGE = 1 << 20  # samples; torch's upper bound of an unlimited batch is far larger


@contextmanager
def uncollected() -> Iterator[None]:
    """Disable garbage collection inside: each full one walks all objects of the trace.

    It would take a quarter of the time of a compile, and free nothing.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@uncollected()
def capture(module: nn.Module, example: tuple[Tensor, ...]) -> Captured:
    """Capture a network in evaluation mode; the batch size stays dynamic.

    Args:
        module: network that ``torch.export`` can follow; it is not changed.
        example: positional inputs, batch first, at least two samples.

    Raises:
        UntraceableModel: the network cannot be followed; the message names the place.
    """
    # The network may write into its inputs.
    example = tuple(given.clone() for given in example)
    with undisturbed(module):
        # Recordings take a fraction of the time of torch.export, which covers more networks.
        captured = _recorded(module, example) or _compared(module, example)
    kept = carried(module)
    return captured if kept is None else replace(captured, lengths=_known_lengths(kept))


def _known_lengths(fixed: tuple[Fixed, ...]) -> Callable[[frozenset[str]], tuple[Fixed, ...]]:
    """Return a ``lengths`` function for lengths that are already known."""
    return lambda _written_otherwise: fixed


def _recorded(module: nn.Module, example: tuple[Tensor, ...]) -> Captured | None:
    """Capture by recordings; None unless the graph then agrees with the network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about the network's operators
        traced = fast_trace(module, example)
        if traced is None:
            return None
        try:
            fold_numbers(traced.graph)
            if not functionalise(traced.graph):
                return None
            captured = _read(traced.graph, module, example)
            if not traced.answers_as(captured.outputs, example):
                return None
            return replace(captured, lengths=partial(traced.lengths, example))
        except Exception:  # any error shows that the graph does not represent the network
            return None


def _compared(module: nn.Module, example: tuple[Tensor, ...]) -> Captured:
    """Capture by ``torch.export``, in the state after a first run or, failing that, before it.

    State that a network creates in its first run and keeps is then a constant of the graph.
    """
    original = _original(module, example)
    errors: list[UntraceableModel] = []
    for state in (original.module, module):
        try:
            captured = _exported(state, example)
        except UntraceableModel as error:
            errors.append(error)
            continue
        except Exception as error:  # any error of an operator outside its context
            errors.append(not_captured(module, error))
            continue
        captured.source.module.recompile()
        why = parting(captured.source.module, original)
        if why is None:
            fixed = original.lengths(captured.source.module)
            return replace(captured, lengths=_known_lengths(fixed))
        errors.append(refusal(module, why))
    raise errors[-1]


def _original(module: nn.Module, example: tuple[Tensor, ...]) -> Original:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about the network's operators
            return Original(module, example)
    except Exception as error:  # any error of the network on its example
        raise does_not_run(module, example, error) from error


def _exported(module: nn.Module, example: tuple[Tensor, ...]) -> Captured:
    """Capture by ``torch.export``."""
    program = trace(module, example)
    _require_any_batch(program)
    graph_module = program.module(check_guards=False)
    fold_numbers(graph_module)
    if not functionalise(graph_module):
        # An empty table: only functionalise, keep composite operators such as linear.
        program = program.run_decompositions({})
        graph_module = program.module(check_guards=False)
        _leave_inputs(graph_module)
        _restore_batch_norm(graph_module)
        _let_views_copy(graph_module)
        fold_numbers(graph_module)
        functionalise(graph_module)
    return _read(graph_module, module, example)


def _read(graph_module: GraphModule, module: nn.Module, example: tuple[Tensor, ...]) -> Captured:
    """Return the nodes of a functional graph in normal form, with the shape of every value."""
    _call_by_first_name(graph_module, module)
    spell_out(graph_module)
    _require_free_batch(graph_module, example)
    recorder = _Recorder(graph_module)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about the network's operators
        recorder.run(*(x.clone() for x in _flat(graph_module, example)))
    return read(graph_module, recorder.values, tuple(recorder.outputs))


def _call_by_first_name(traced: GraphModule, module: nn.Module) -> None:
    """Name shared parameters as ``named_parameters`` lists them."""
    first = {id(value): name for name, value in module.named_parameters()}
    names = {
        name: first[id(value)] for name, value in module.named_parameters(remove_duplicate=False)
    }
    held = dict(traced.named_parameters(remove_duplicate=False))
    for node in traced.graph.nodes:
        name = names.get(str(node.target)) if node.op == "get_attr" else None
        if name is not None and name in held:
            node.target = name


def _flat(module: GraphModule, example: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    count = sum(node.op == "placeholder" for node in module.graph.nodes)
    if count != len(example):
        raise UntraceableModel(
            f"The network takes {count} tensors, the example holds {len(example)}.",
            remedy="Pass each input as one positional tensor.",
        )
    return example


def _require_any_batch(program: torch.export.ExportedProgram) -> None:
    """Refuse a graph that is limited to some batch size."""
    for limits in program.range_constraints.values():
        if limits.upper < _LARGE:
            raise UntraceableModel(
                f"The network computes differently for more than {limits.upper} samples.",
                remedy="Do not branch on the batch size in forward.",
            )


def _require_free_batch(module: GraphModule, example: tuple[Tensor, ...]) -> None:
    inputs = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node, given in zip(inputs, _flat(module, example), strict=True):
        form = form_of(node)
        if form is None or not holds_samples(given, example):
            continue
        if isinstance(form.shape[0], int):
            raise UntraceableModel(
                f"The network works for batches of {form.shape[0]} only (input {node.name}).",
                remedy="Take the batch size from x.shape[0], not from a literal; if an input's "
                "first axis is not the batch, pass an example of another number of samples.",
            )


class _Recorder(Interpreter):
    """Run of a graph that keeps the shape and type of every value."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.values: dict[Node, Any] = {}
        self.outputs: list[Tensor] = []

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n.op == "output":
            flat = result if isinstance(result, (list, tuple)) else [result]
            self.outputs = [x for x in flat if isinstance(x, Tensor)]
        if isinstance(result, Tensor):
            n.meta[DTYPE] = result.dtype
        self.values[n] = _shape_of(result)
        return result


def _shape_of(result: Any) -> Any:
    if isinstance(result, Tensor):
        return tuple(result.shape)
    if isinstance(result, (list, tuple)):
        return [_shape_of(item) for item in result]
    return result


def _leave_inputs(module: GraphModule) -> None:
    """Remove the copies with which torch's decomposition updates inputs and buffers at the end."""
    for node in reversed(list(module.graph.nodes)):
        if op_name(node) == "copy_" and node.args[0].op in _GIVEN and not node.users:
            module.graph.erase_node(node)


def _let_views_copy(module: GraphModule) -> None:
    """Turn views into reshapes: functional results may be laid out differently in memory."""
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default


def _restore_batch_norm(module: GraphModule) -> None:
    """Replace the decomposition's three-output batch norm by ``aten.batch_norm``."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or "native_batch_norm" not in op_name(node):
            continue
        x, weight, bias, mean, variance, momentum, epsilon = node.args
        with graph.inserting_before(node):
            norm = graph.call_function(
                torch.ops.aten.batch_norm.default,
                (x, weight, bias, mean, variance, False, momentum, epsilon, False),
            )
        for user in list(node.users):
            norm.meta = dict(user.meta)
            user.replace_all_uses_with(norm)
            graph.erase_node(user)
        graph.erase_node(node)
