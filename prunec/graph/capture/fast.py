"""Fast capture: a graph from two recordings of the forward pass, at two batch sizes.

Numbers that differ between the recordings depend on the batch size, linearly. If they do not, or if
the network does anything else that a recording cannot represent, there is no graph, and the caller
uses ``torch.export``.
"""

from __future__ import annotations

import inspect
import operator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo
from torch.utils import _pytree as pytree

from prunec.graph.capture.agreement import Traced
from prunec.graph.capture.form import KEY, Form
from prunec.graph.capture.of_batch import BATCHES, OfBatch, united, united_form
from prunec.graph.capture.recording import Call, Hollow, Recording, TensorRef, Unrecorded
from prunec.graph.capture.samples import holds_samples
from prunec.graph.capture.surroundings import undisturbed


def fast_trace(module: nn.Module, example: tuple[Tensor, ...]) -> Traced | None:
    """Trace a network in evaluation mode with the batch open.

    Args:
        module: the network; it is not changed.
        example: positional inputs, batch first.

    Returns:
        The graph as ``torch.export`` would write it; None if a recording cannot represent it.
    """
    names = _argument_names(module, example)
    # A recording has only shapes, and would assume contiguous inputs.
    if names is None or not all(given.is_contiguous() for given in example):
        return None
    held = [*module.parameters(), *module.buffers(), *example]
    # A recording has one device for all tensors.
    if len({tensor.device for tensor in held}) != 1 or held[0].is_meta:
        return None
    try:
        hollow = Hollow(module)
        recordings = [_record(hollow, example, batch) for batch in BATCHES]
        drawing = _Drawing(module, example, names)
        graph = drawing.draw(*recordings)
        return Traced(graph, module, hollow, recordings[0], tuple(drawing.calls))
    except Exception:  # any error of tensors without values; torch.export reports real ones
        return None


def _argument_names(module: nn.Module, example: tuple[Tensor, ...]) -> list[str] | None:
    """Return a name for each input, numbered for ``*inputs``; None if they do not fit."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    plain = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = [p.name for p in parameters if p.kind in plain][: len(example)]
    rest = parameters[len(names) :]
    starred = next((p.name for p in rest if p.kind is inspect.Parameter.VAR_POSITIONAL), None)
    missing = len(example) - len(names)
    if missing and starred is None:
        return None
    names += [f"{starred}_{i}" for i in range(missing)]
    free = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
    return names if all(p.default is not p.empty or p.kind in free for p in rest) else None


def _record(hollow: Hollow, example: tuple[Tensor, ...], batch: int) -> Recording:
    inputs = tuple(
        torch.empty(_shape(given, example, batch), dtype=given.dtype, device="meta")
        for given in example
    )
    with undisturbed(hollow.module):  # caches outside the module would keep tensors without values
        return hollow.record(inputs, example[0].device)


def _shape(given: Tensor, example: tuple[Tensor, ...], batch: Any) -> tuple[Any, ...]:
    """Return the shape of an input for a given batch size."""
    rest = tuple(given.shape)
    return (batch, *rest[1:]) if holds_samples(given, example) else rest


class _Drawing:
    """Graph under construction."""

    def __init__(self, module: nn.Module, example: tuple[Tensor, ...], names: list[str]) -> None:
        self.graph = Graph()
        self.device = example[0].device
        self.module, self.example, self.names = module, example, names
        self.calls: list[str] = []  # node name of each call
        self._numbers: dict[OfBatch, Node] = {}
        self._made: dict[TensorRef, Node] = {}

    def draw(self, first: Recording, second: Recording) -> GraphModule:
        """Return the graph of both recordings; raise Unrecorded if they differ in structure."""
        # A network that branches on the batch size makes other calls.
        if len(first.calls) != len(second.calls) or first.structure != second.structure:
            raise Unrecorded("The calls depend on the batch.")
        self._draw_held()
        for number, (a, b) in enumerate(zip(first.calls, second.calls, strict=True)):
            self._draw_call(number, a, b)
        results = [self._made[value] for value in united(first.outputs, second.outputs)]
        self.graph.output(tuple(results))
        _, signature = pytree.tree_flatten((tuple(self.example), {}))
        self.graph.set_codegen(_PyTreeCodeGen(_PyTreeInfo(self.names, signature, first.structure)))
        return self._filled()

    def _draw_held(self) -> None:
        for name, tensor in (*self.module.named_parameters(), *self.module.named_buffers()):
            node = self.graph.create_node("get_attr", name, name=name.replace(".", "_"))
            node.meta[KEY] = Form(tuple(tensor.shape), tensor.dtype, self.device)
            self._made[TensorRef(name, "stored")] = node
        for i, (name, given) in enumerate(zip(self.names, self.example, strict=True)):
            node = self.graph.placeholder(name)
            shape = _shape(given, self.example, OfBatch(1, 0))
            node.meta[KEY] = Form(shape, given.dtype, self.device)
            self._made[TensorRef(i, "input")] = node

    def _draw_call(self, number: int, a: Call, b: Call) -> None:
        if a.target is not b.target or a.path != b.path:
            raise Unrecorded("The calls depend on the batch.")
        args, kwargs = (
            self._put(united(x, y)) for x, y in ((a.args, b.args), (a.kwargs, b.kwargs))
        )
        stack = {"": ("", ""), a.path: (a.path, "")} if a.path else {"": ("", "")}
        node = self._call(a.target, tuple(args), kwargs, stack)
        self.calls.append(node.name)
        if isinstance(a.result, Form) and isinstance(b.result, Form):
            node.meta[KEY] = united_form(a.result, b.result)
            self._made[TensorRef(number, "call")] = node
            return
        assert not isinstance(a.result, Form)
        assert not isinstance(b.result, Form)
        if len(a.result) != len(b.result):
            raise Unrecorded("The number of tensors that a call returns depends on the batch.")
        forms = [united_form(x, y) for x, y in zip(a.result, b.result, strict=True)]
        for i, form in enumerate(forms):
            part = self._call(operator.getitem, (node, i), {}, stack)
            part.meta[KEY] = form
            self._made[TensorRef(number, "call", i)] = part

    def _call(self, target: Any, args: Any, kwargs: Any, stack: dict[str, Any]) -> Node:
        packet = getattr(target, "overloadpacket", target)
        node = self.graph.create_node("call_function", target, args, kwargs, name=packet.__name__)
        node.meta["nn_module_stack"] = stack
        return node

    def _put(self, given: Any) -> Any:
        """Return arguments with nodes in place of tensors and of numbers that depend on the
        batch.
        """
        if isinstance(given, TensorRef):
            return self._made[given]
        if isinstance(given, OfBatch):
            return self._number(given)
        if isinstance(given, list):
            return [self._put(item) for item in given]
        if isinstance(given, dict):
            return {key: self._put(item) for key, item in given.items()}
        return given

    def _number(self, given: OfBatch) -> Node:
        if given in self._numbers:
            return self._numbers[given]
        one = OfBatch(1, 0)
        if given == one:
            target: Any = torch.ops.aten.sym_size.int
            args: tuple[Any, ...] = (self._made[TensorRef(0, "input")], 0)
        elif given.rest:
            target, args = operator.add, (self._number(OfBatch(given.slope, 0)), given.rest)
        else:
            target, args = operator.mul, (self._number(one), given.slope)
        node = self._call(target, args, {}, {})
        self._numbers[given] = node
        return node

    def _filled(self) -> GraphModule:
        """Return the graph with the network's own parameters and buffers."""
        root = nn.Module()
        for name, parameter in self.module.named_parameters(remove_duplicate=False):
            parent, leaf = _parent(root, name)
            parent.register_parameter(leaf, parameter)
        kept = self.module.state_dict(keep_vars=True).keys()
        for name, buffer in self.module.named_buffers(remove_duplicate=False):
            parent, leaf = _parent(root, name)
            parent.register_buffer(leaf, buffer, persistent=name in kept)
        # The constructor copies only tensors that its graph reads; unread ones must stay in the
        # state too.
        made = GraphModule(nn.Module(), Graph())
        for leaf, child in root.named_children():
            made.add_module(leaf, child)
        for leaf, parameter in root.named_parameters(recurse=False):
            made.register_parameter(leaf, parameter)
        for leaf, buffer in root.named_buffers(recurse=False):
            made.register_buffer(leaf, buffer, persistent=leaf in kept)
        made.graph = self.graph
        return made


def _parent(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    *parents, leaf = name.split(".")
    for inner in parents:
        if inner not in root._modules:
            root.add_module(inner, nn.Module())
        root = root.get_submodule(inner)
    return root, leaf
