"""A captured network written anew with only the channels that stay.

Every node that is needed is emitted with its channel axis cut: kernels, norms and recurrent layers
as modules with smaller tensors, moves as :mod:`prunec.graph.rewriting.rewrite_moves` writes them.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Collection, Sequence
from typing import Any

from torch import nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from prunec.graph.capture import aten as ops
from prunec.graph.channels.operators.recurrent import Item, Recurrent, is_zeros
from prunec.graph.channels.structure import Structure
from prunec.graph.removal.cut import staying_groups
from prunec.graph.removal.decide import Decision
from prunec.graph.removal.taps import padding_after
from prunec.graph.rewriting import modules as leaves
from prunec.graph.rewriting.rewrite_moves import MovingEmission


def rewrite(structure: Structure, decision: Decision, folded: Collection[str] = ()) -> GraphModule:
    """Write the network anew; the captured graph is used up.

    Args:
        structure: of the captured network.
        decision: what stays, and the weights.
        folded: nodes of the batch norms that are folded already in the decision's weights.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fx warns of modules that are placed only at the end
        return _Writer(structure, decision, frozenset(folded)).write()


class _Writer(MovingEmission):
    def __init__(self, structure: Structure, decision: Decision, folded: frozenset[str]) -> None:
        super().__init__(structure, decision)
        self.folded = folded
        self.leaf_of: dict[str, str] = {}

    def write(self) -> GraphModule:
        nodes = self.captured.nodes
        needed = self.needed(nodes)
        for node in nodes:
            if node.op == "call_function" and node in needed:
                with self.graph.inserting_before(node):
                    self.made[node] = self.emit(node)
        output = nodes[-1]
        with self.graph.inserting_before(output):
            output.args = map_arg(output.args, self.new)
        for node in reversed(list(self.graph.nodes)):
            if not node.users and node.op not in ("placeholder", "output"):
                self.graph.erase_node(node)
        module = GraphModule(self.root, self.graph)
        module.graph.lint()
        return module.eval()

    # -- what is needed -----------------------------------------------------------------------

    def needed(self, nodes: list[Node]) -> set[Node]:
        found: set[Node] = {nodes[-1]}
        for node in reversed(nodes):
            if node in found:
                found.update(self.sources(node))
        return found

    def sources(self, node: Node) -> list[Node]:
        if node in self.structure.shuffles:
            return [self.structure.shuffles[node].entry]
        listed = node.all_input_nodes
        if (
            self.structure.kinds.get(node) == "move"
            and len(self.structure.links[node].operands) > 1
        ):
            listed = [n for n in listed if n not in self.structure.layouts or self.stays(n)]
        if ops.op_name(node) == "getitem" and self.selects_channels(node):
            listed = list(self.structure.links[node].operands)
        return [n for n in listed if n not in self.decision.frozen]

    # -- nodes --------------------------------------------------------------------------------

    def emit(self, node: Node) -> Node:
        kind = self.structure.kinds.get(node, "refused")
        if node in self.structure.shuffles:
            return self.shuffle(node)
        if kind == "kernel":
            return self.kernel(node)
        if kind == "norm":
            return self.norm(node)
        if kind == "elementwise":
            return self.elementwise(node)
        if kind == "move":
            return self.move(node)
        if kind == "identity":
            return self.identity(node)
        if kind == "rule" and isinstance(self.structure.rules[node], Recurrent):
            return self.recurrent(node)
        if kind == "rule" and isinstance(self.structure.rules[node], Item):
            return self.item(node)
        if ops.op_name(node) in ops.FACTORIES and self.channel_axis(node) is not None:
            return self.resize(node, 1)
        if kind == "rule":
            changes = self.structure.rules[node].changes(self.count_kept)
            return self.call(node, **changes) if changes else self.copy(node)
        return self.copy(node)

    def module(self, path: str, leaf: nn.Module, source: Node) -> Node:
        leaves.place(self.root, path, leaf)
        return self.graph.create_node("call_module", path, (self.new(source),))

    def claims(self, path: str | None, node: Node) -> bool:
        """Whether a call may be the module at a path: the first there, or of the same settings."""
        if path is None or (path not in self.leaf_of and leaves.stands(self.root, path)):
            return False
        named = ops.arguments(node)
        settings = repr([(k, v) for k, v in named.items() if k not in ("input", "self")])
        return self.leaf_of.setdefault(path, settings) == settings

    def kernel(self, node: Node) -> Node:
        kernel = self.structure.kernels[node]
        named = ops.arguments(node)
        if "bias" not in named:
            return self.copy(node)
        bias = kernel.bias or (kernel.room if kernel.room in self.decision.weights else None)
        computed = named["bias"] is not None and kernel.bias is None
        path = None if computed else leaves.owner_of((kernel.weight, "weight"), (bias, "bias"))
        groups = kernel.groups
        if groups > 1:
            groups = len(staying_groups(self.structure, self.keep, kernel))
        if not self.claims(path, node):
            assert bias is None or named["bias"] is not None, (
                "a bias was added where none can stand"
            )
            if "groups" not in named:
                return self.copy(node)
            return self.call(node, groups=groups, padding=self.padding(node, kernel.weight))
        assert path is not None
        weight = self.tensor(kernel.weight)
        value = None if bias is None else self.tensor(bias)
        if value is not None and kernel.bias is None:  # added: no slice of the network knows it
            value = value[self.keep[self.structure.class_of(kernel.outputs)]]
        leaf = (
            leaves.linear(weight, value)
            if ops.op_name(node) == "linear"
            else leaves.convolution(node, weight, value, groups, self.padding(node, kernel.weight))
        )
        return self.module(path, leaf, kernel.source)

    def padding(self, node: Node, weight: str) -> Any:
        taps = self.decision.taps.get(weight)
        return ops.arguments(node)["padding"] if taps is None else padding_after(node, taps)

    def norm(self, node: Node) -> Node:
        norm = self.structure.norms[node]
        if node.name in self.folded:
            return self.new(norm.source)
        names = {
            "weight": norm.weight,
            "bias": norm.bias,
            "running_mean": norm.mean,
            "running_var": norm.variance,
        }
        path = leaves.owner_of(*((name, key) for key, name in names.items()))
        if not self.claims(path, node):
            return self.copy(node)
        assert path is not None
        tensors = {key: None if name is None else self.tensor(name) for key, name in names.items()}
        leaf = leaves.batch_norm(node, len(self.captured.shape(node)), tensors)
        return self.module(path, leaf, norm.source)

    def recurrent(self, node: Node) -> Node:
        """A module of fewer units; a call where the parameters are those of no one module."""
        named = ops.arguments(node)
        names = [str(n.target) for n in named["params"]]
        path = leaves.owner_of(*((name, name.rpartition(".")[2]) for name in names))
        states = named["hx"] if isinstance(named["hx"], (list, tuple)) else [named["hx"]]
        rule = self.structure.rules[node]
        assert isinstance(rule, Recurrent)
        usual = names[0].endswith("weight_ih_l0")
        if path is None or not usual or not self.claims(path, node):
            return self.call(node, hx=self.states(rule, states, listed=rule.kind == "lstm"))
        tensors = {name.rpartition(".")[2]: self.tensor(name) for name in names}
        leaves.place(self.root, path, leaves.recurrent(node, tensors))
        given: tuple[Any, ...] = (self.new(rule.source),)
        if not rule.from_zero:
            made = [self.new(state) for state in states]
            given = (*given, tuple(made) if rule.kind == "lstm" else made[0])
        return self.graph.create_node("call_module", path, given)

    def states(self, rule: Recurrent, states: Sequence[Node], *, listed: bool) -> Any:
        """First states for as many units as stay."""
        made = []
        for state, atoms in zip(states, (rule.cells[0].outputs, rule.cells[0].units), strict=False):
            if is_zeros(state):
                kept = int(self.keep[self.structure.class_of(atoms)].sum())
                sizes = [
                    self.new(n) if isinstance(n, Node) else n for n in ops.arguments(state)["size"]
                ]
                made.append(self.call(state, size=[*sizes[:-1], kept]))
            else:
                made.append(self.new(state))
        return made if listed else made[0]

    def item(self, node: Node) -> Node:
        """An item of what a recurrent module or call returns."""
        source, index = node.args
        assert isinstance(source, Node)
        made = self.new(source)
        if made.op != "call_module":
            return self.copy(node)
        if index == 0:
            return self.graph.call_function(operator.getitem, (made, 0))
        state = self.graph.call_function(operator.getitem, (made, 1))
        rule = self.structure.rules[source]
        if isinstance(rule, Recurrent) and rule.kind == "lstm":
            assert isinstance(index, int)
            return self.graph.call_function(operator.getitem, (state, index - 1))
        return state

    def identity(self, node: Node) -> Node:
        source = node.all_input_nodes[0]
        if ops.op_name(node) in ("lift_fresh_copy", "alias", "detach"):
            return self.new(source)
        if "dropout" not in ops.op_name(node):
            return self.copy(node)
        leaf = leaves.dropout(node)
        if leaf is None or float(ops.arguments(node)["p"]) == 0.0:
            return self.new(source)
        path = leaves.module_path(node)
        path = path if path and self.claims(path, node) else f"dropout_{node.name}"
        return self.module(path, leaf, source)

    def elementwise(self, node: Node) -> Node:
        for operand in node.all_input_nodes:
            rest = [n for n in node.all_input_nodes if n is not operand]
            if (
                operand in self.decision.frozen
                and ops.op_name(node) == "add"
                and len(rest) == 1
                and not bool(self.frozen_value(operand).any())
            ):
                return self.new(rest[0])
        return self.copy(node)
