"""Writer of torch modules: a captured torch.fx graph rewritten as a compact GraphModule.

Calls that own tensors become modules again, under the original paths, if a single module held the
tensors; all other calls stay functions.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import GraphModule

from prunec.graph.capture.node import Node, replaced
from prunec.graph.capture.torch_nodes import TorchGraph
from prunec.graph.channels.operator import WrittenLayer
from prunec.graph.channels.operators.recurrent import first_states, is_zeros
from prunec.graph.channels.structure import Structure
from prunec.graph.removal.decide import Decision
from prunec.graph.rewriting import modules
from prunec.graph.rewriting.kept import Kept

aten = torch.ops.aten


class TorchWriter(Kept):
    """Writer of new nodes into the captured graph, before the nodes that they replace.

    Attributes:
        graph: captured graph.
        root: holder of the modules, parameters and buffers of the new network.
        made: node → its new value.
    """

    def __init__(
        self, structure: Structure, decision: Decision, folded: Collection[str] = ()
    ) -> None:
        super().__init__(structure, decision)
        self.source: TorchGraph = structure.captured.source
        self.graph: fx.Graph = self.source.module.graph
        self.root = nn.Module()
        self.made: dict[Node, fx.Node] = {}
        self._own = {theirs: node for node, theirs in self.source.fx_nodes.items()}
        self._folded = frozenset(folded)
        self._settings: dict[str, str] = {}

    def write(self) -> GraphModule:
        """Write everything that the outputs need; the captured graph is consumed."""
        nodes = self.captured.nodes
        needed = self.needed()
        for node in nodes:
            if node.kind == "call" and node in needed:
                with self.graph.inserting_before(self.source.fx_nodes[node]):
                    self.made[node] = self._emit(node)
        output = self.source.fx_nodes[nodes[-1]]
        with self.graph.inserting_before(output):
            output.args = fx.node.map_arg(output.args, self._theirs)
        # Backwards, so that readers go before the nodes that they read.
        for old in reversed(list(self.graph.nodes)):
            if not old.users and old.op not in ("placeholder", "output"):
                self.graph.erase_node(old)
        module = GraphModule(self.root, self.graph)
        module.graph.lint()
        return module.eval()

    def _emit(self, node: Node) -> fx.Node:
        if node in self.structure.shuffles:
            return self._shuffle(node)
        written: fx.Node = self.structure.operators[node].emit(self)
        return written

    # -- values -------------------------------------------------------------------------------

    def new(self, node: Node) -> fx.Node:
        """Return the written value of a node; stored tensors are placed at first use."""
        if node.kind == "input":
            return self.source.fx_nodes[node]
        if node not in self.made:
            if node.kind == "stored":
                self.made[node] = self._parameter(node)
            elif node in self.decision.frozen:
                self.made[node] = self._buffer(f"constant_{node.name}", self.frozen_value(node))
            else:
                raise AssertionError(f"{node.name} was not written")
        return self.made[node]

    def _theirs(self, node: fx.Node) -> fx.Node:
        return self.new(self._own[node])

    def _parameter(self, node: Node) -> fx.Node:
        value = self.tensor(node.stored).detach().clone()
        if isinstance(node.tensor, nn.Parameter):
            value = nn.Parameter(value, node.tensor.requires_grad)
        return self._buffer(node.stored, value)

    def _buffer(self, name: str, value: Tensor) -> fx.Node:
        modules.place(self.root, name, value)
        return self.graph.create_node("get_attr", name)

    # -- calls --------------------------------------------------------------------------------

    def copy(self, node: Node) -> fx.Node:
        """Write a call as it was, on written values."""
        return self.graph.node_copy(self.source.fx_nodes[node], self._theirs)

    def call(self, node: Node, **changes: Any) -> fx.Node:
        """Write a call with other arguments, by their names."""
        named = {
            key: replaced(value, self.new)
            for key, value in node.arguments.items()
            if key not in changes
        }
        named |= changes
        target: Any = self.source.fx_nodes[node].target
        schema = target._schema.arguments
        args = tuple(named[a.name] for a in schema if not a.kwarg_only)
        kwargs = {a.name: named[a.name] for a in schema if a.kwarg_only}
        return self.graph.call_function(target, args, kwargs)

    def pick(self, node: Node, source: Node, axis: int, positions: Tensor) -> fx.Node:
        """Write positions along an axis: as nothing, a slice, or an index."""
        value = self.new(source)
        count = len(self.kept(source, axis))
        start, length = int(positions[0]), len(positions)
        if torch.equal(positions, torch.arange(start, start + length)):
            if length == count:
                return value
            return self.graph.call_function(aten.slice.Tensor, (value, axis, start, start + length))
        index = self._buffer(f"index_{node.name}", positions)
        return self.graph.call_function(aten.index_select.default, (value, axis, index))

    def pick_one(self, source: Node, axis: int, position: int) -> fx.Node:
        """Write the selection of one position along an axis; the axis is dropped."""
        return self.graph.call_function(aten.select.int, (self.new(source), axis, position))

    def scaled(self, value: fx.Node, factor: float) -> fx.Node:
        """Write a value times a number."""
        return self.graph.call_function(aten.mul.Tensor, (value, factor))

    def bounded(self, value: fx.Node, bound: float, *, above: bool) -> fx.Node:
        """Write a clamp by one bound: an upper bound where ``above``, else a lower bound."""
        target = aten.clamp_max.default if above else aten.clamp_min.default
        return self.graph.call_function(target, (value, bound))

    def _shuffle(self, node: Node) -> fx.Node:
        """Write a run of moves that permutes channels as one index after its entry."""
        shuffle = self.structure.shuffles[node]
        kept = self.kept(node, shuffle.axis)
        positions = torch.searchsorted(self.kept(shuffle.entry, shuffle.axis), shuffle.index[kept])
        return self.pick(node, shuffle.entry, shuffle.axis, positions)

    def resize(self, node: Node, axis: int) -> fx.Node:
        """Write a view with its literal size of the channel axis set to the kept count."""
        key = next(key for key in ("sizes", "size", "shape") if key in node.arguments)
        sizes = [replaced(size, self.new) for size in node.arguments[key]]
        offset = 0
        if node.operator == "unflatten":
            offset = int(node.arguments["dim"]) % len(node.operands[0].shape)
        place = axis - offset
        if 0 <= place < len(sizes) and sizes[place] != -1:
            sizes[place] = self._cut_size(sizes[place], node, axis)
        return self.call(node, **{key: sizes})

    def _cut_size(self, size: int | fx.Node, node: Node, axis: int) -> int | fx.Node:
        """Return the size of a channel axis: a number, or a share of a product with the batch."""
        kept, real = len(self.kept(node, axis)), node.shape[axis]
        if not isinstance(size, fx.Node) or kept == real:
            return size if isinstance(size, fx.Node) else kept
        # The size is a multiple of `real`, so dividing after multiplying is exact in integers.
        common = math.gcd(kept, real)
        product = self.graph.call_function(operator.mul, (size, kept // common))
        return self.graph.call_function(operator.floordiv, (product, real // common))

    # -- modules ------------------------------------------------------------------------------

    def layer(self, node: Node, source: Node, layer: WrittenLayer) -> fx.Node:
        """Write a call that owns tensors: as a module, if the network had a module for this call
        alone.
        """
        path = modules.owner_of(*((name, key) for key, name in layer.names.items()))
        held = {name for name in layer.names.values() if name is not None}
        if not modules.is_usual(layer.names) or not self._claims(path, node, held):
            added = layer.names.get("bias") and node.arguments.get("bias") is None
            assert not added, "a bias was added to a call that cannot hold one"
            return self.call(node, **layer.changes) if layer.changes else self.copy(node)
        assert path is not None
        made = modules.layer(node, layer.tensors, layer.changes)
        return self._module(path, made, self.new(source))

    def dropout(self, node: Node, source: Node) -> fx.Node:
        """Write a dropout as a module, so that it stays active in training."""
        made = modules.dropout(node)
        if made is None or float(node.arguments["p"]) == 0.0:
            return self.new(source)
        own = node.module and self._claims(node.module, node, ())
        path = node.module if own else f"dropout_{node.name}"
        return self._module(path, made, self.new(source))

    def is_folded(self, node: Node) -> bool:
        """Return whether a batch norm was folded into the kernel before it."""
        return node.name in self._folded

    def recurrent(self, node: Node, from_zero: bool, first_states_of: Sequence[Tensor]) -> fx.Node:
        """Write a module of fewer units, or a call if no single module holds the parameters."""
        names = [n.stored for n in node.arguments["params"]]
        path = modules.owner_of(*((name, name.rpartition(".")[2]) for name in names))
        states = first_states(node)
        several = isinstance(node.arguments["hx"], (list, tuple))
        usual = names[0].endswith("weight_ih_l0")
        if path is None or not usual or not self._claims(path, node, names):
            made = [self._state(s, a) for s, a in zip(states, first_states_of, strict=False)]
            return self.call(node, hx=made if several else made[0])
        tensors = {name.rpartition(".")[2]: self.tensor(name) for name in names}
        given: list[Any] = [self.new(node.arguments["input"])]
        if not from_zero:
            begun = tuple(self.new(state) for state in states)
            given.append(begun if several else begun[0])
        return self._module(path, modules.recurrent(node, tensors), *given)

    def _state(self, state: Node, atoms: Tensor) -> fx.Node:
        """Return an initial state for the kept units."""
        if not is_zeros(state):
            return self.new(state)
        kept = int(self.kept_atoms(atoms).sum())
        sizes = [replaced(size, self.new) for size in state.arguments["size"]]
        return self.call(state, size=[*sizes[:-1], kept])

    def item(self, node: Node) -> fx.Node:
        """Write one item of the result of a recurrent module or call."""
        source, index = node.arguments["input"], int(node.arguments["index"])
        made = self.new(source)
        if made.op != "call_module":
            return self.copy(node)
        if index == 0:
            return self.graph.call_function(operator.getitem, (made, 0))
        state = self.graph.call_function(operator.getitem, (made, 1))
        if source.operator == "lstm":
            return self.graph.call_function(operator.getitem, (state, index - 1))
        return state

    def _module(self, path: str, module: nn.Module, *given: Any) -> fx.Node:
        modules.place(self.root, path, module)
        return self.graph.create_node("call_module", path, given)

    def _claims(self, path: str | None, node: Node, held: Collection[str]) -> bool:
        """Return whether a call may become the module at a path: the first there, or of equal
        settings.

        The call must use everything that the network reads of that module.
        """
        if path is None or (path not in self._settings and modules.is_placed(self.root, path)):
            return False
        if not self.captured.held_by(path) <= set(held):
            return False
        named = node.arguments
        settings = repr([(k, v) for k, v in named.items() if k not in ("input", "self")])
        return self._settings.setdefault(path, settings) == settings
