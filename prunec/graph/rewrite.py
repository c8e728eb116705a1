"""A captured network written anew with only the channels that stay.

Every node is emitted with its channel axis cut: kernels and norms as modules with smaller tensors,
views with their literals recomputed, selections along channels by position, concatenations without
what has become empty. A run of moves that permutes channels becomes one ``index_select``.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from prunec.graph import leaves
from prunec.graph import operators as ops
from prunec.graph.cut import cut_layout, cut_tensor, kept_along, staying_groups
from prunec.graph.decide import Decision
from prunec.graph.moves import picked_axes
from prunec.graph.plan import Plan
from prunec.graph.recurrent import Item, Recurrent, is_zeros
from prunec.graph.structure import Structure, varying
from prunec.graph.taps import padding_after, trim

_SIZED = frozenset(("view", "reshape", "_unsafe_view", "expand", "unflatten"))
_ALONG = ops.PICKS | {"channel_shuffle", "native_channel_shuffle"}


def rewrite(structure: Structure, decision: Decision, plan: Plan) -> GraphModule:
    """Write the network anew; the captured graph is used up.

    Args:
        structure: of the captured network.
        decision: what stays, and the weights.
        plan: names the batch norms that are folded already in the decision's weights.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fx warns of modules that are placed only at the end
        return _Writer(structure, decision, frozenset(plan.folded)).write()


class _Writer:
    def __init__(self, structure: Structure, decision: Decision, folded: frozenset[str]) -> None:
        self.structure = structure
        self.captured = structure.captured
        self.decision = decision
        self.keep = decision.keep
        self.folded = folded
        self.graph = structure.captured.module.graph
        self.root = nn.Module()
        self.made: dict[Node, Node] = {}
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

    def stays(self, node: Node) -> bool:
        return bool(self.keep[self.structure.class_of(self.structure.layouts[node])].any())

    # -- values -------------------------------------------------------------------------------

    def new(self, node: Node) -> Node:
        """The emitted value of a node; parameters and constants are made when first asked for."""
        if node.op == "placeholder":
            return node
        if node not in self.made:
            if node.op == "get_attr":
                self.made[node] = self.parameter(str(node.target))
            elif node in self.decision.frozen:
                self.made[node] = self.constant(node)
            else:
                raise AssertionError(f"{node.name} was not emitted")
        return self.made[node]

    def copy(self, node: Node) -> Node:
        return self.graph.node_copy(node, self.new)

    def call(self, node: Node, **changes: Any) -> Node:
        """The call with some of its arguments changed, by the names of its schema."""
        named = {
            key: map_arg(v, self.new)
            for key, v in ops.arguments(node).items()
            if key not in changes
        }
        named |= changes
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        args = tuple(named[a.name] for a in schema if not a.kwarg_only)
        kwargs = {a.name: named[a.name] for a in schema if a.kwarg_only}
        assert callable(node.target)
        return self.graph.call_function(node.target, args, kwargs)

    def tensor(self, name: str) -> Tensor:
        """A parameter or buffer, cut, in its own type and where it was."""
        value = self.decision.weights[name]
        cut = cut_tensor(self.structure, self.keep, name, value)
        cut = trim(cut, self.decision.taps.get(name, ()))
        like = self.original(name)
        return cut.to(like) if value.is_floating_point() else cut.to(like.device)

    def original(self, name: str) -> Tensor:
        """The parameter or buffer before the cut; for a bias that was added, its weight."""
        try:
            return self.captured.tensor(name)
        except AttributeError:
            return self.captured.tensor(name.rpartition(".")[0] + ".weight")

    def parameter(self, name: str) -> Node:
        value = self.tensor(name).detach().clone()
        original = self.captured.tensor(name)
        trains = isinstance(original, nn.Parameter)
        leaves.place(
            self.root, name, nn.Parameter(value, original.requires_grad) if trains else value
        )
        return self.graph.create_node("get_attr", name)

    def buffer(self, name: str, value: Tensor) -> Node:
        leaves.place(self.root, name, value)
        return self.graph.create_node("get_attr", name)

    def constant(self, node: Node) -> Node:
        value = self.frozen_value(node)
        return self.buffer(f"constant_{node.name}", value)

    def frozen_value(self, node: Node) -> Tensor:
        layout = self.structure.layouts[node]
        value = cut_layout(self.structure, self.keep, layout, self.decision.frozen[node])
        reference = node.meta.get("val")
        first = next(p for p in self.captured.module.parameters())
        kind = reference.dtype if isinstance(reference, Tensor) else first.dtype
        return value.to(first.device, kind).contiguous()

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

    # -- moves --------------------------------------------------------------------------------

    def kept(self, node: Node, axis: int) -> Tensor:
        """Positions that stay along an axis of a node's layout."""
        return kept_along(self.structure, self.keep, self.structure.layouts[node], axis)

    def count_kept(self, node: Node, axis: int) -> int:
        """How many positions stay along an axis, of which a layout may be all alike."""
        alike = self.structure.layouts[node].shape[axis] == 1
        return self.captured.shape(node)[axis] if alike else len(self.kept(node, axis))

    def channel_axis(self, node: Node) -> int | None:
        axes = varying(self.structure.layouts[node])
        return axes[0] if len(axes) == 1 else None

    def move(self, node: Node) -> Node:
        name = ops.op_name(node)
        axis = self.channel_axis(node)
        whole = all(self.is_whole(n) for n in (node, *self.structure.links[node].operands))
        if whole and not (name == "getitem" and self.selects_channels(node)):
            return self.copy(node)
        if name in ("cat", "concat", "stack"):
            return self.concatenation(node)
        if name in ops.PADS and axis is not None:
            return self.channel_pad(node, axis)
        if self.selects_channels(node):
            return self.selection(node)
        if name in _SIZED and axis is not None:
            return self.resize(node, axis)
        return self.copy(node)

    def is_whole(self, node: Node) -> bool:
        """Whether all channels of a value stay."""
        return bool(self.keep[self.structure.class_of(self.structure.layouts[node])].all())

    def concatenation(self, node: Node) -> Node:
        listed = node.args[0]
        assert isinstance(listed, (list, tuple))
        parts = [self.new(n) for n in listed if isinstance(n, Node) and self.stays(n)]
        if len(parts) == 1 and ops.op_name(node) != "stack":
            return parts[0]
        return self.call(node, tensors=parts)

    def channel_pad(self, node: Node, axis: int) -> Node:
        link = self.structure.links[node]
        kept = self.kept(node, axis)
        real = torch.nonzero(link.index >= 0).flatten()
        before, after = int((kept < real[0]).sum()), int((kept > real[-1]).sum())
        widths = list(ops.arguments(node)["pad"])
        place = 2 * (len(self.captured.shape(node)) - 1 - axis)
        widths[place : place + 2] = [before, after]
        return self.call(node, pad=widths)

    def selects_channels(self, node: Node) -> bool:
        """Whether a move picks positions along its operand's channel axis, and does only that."""
        link = self.structure.links.get(node)
        call = node.args[0] if ops.op_name(node) == "getitem" else node
        if link is None or not isinstance(call, Node) or ops.op_name(call) not in _ALONG:
            return False
        source = link.operands[0]
        axis = self.channel_axis(source)
        return axis is not None and picked_axes(self.captured, call, source) == [axis]

    def selection(self, node: Node) -> Node:
        source = self.structure.links[node].operands[0]
        axis = self.channel_axis(source)
        assert axis is not None
        layout = self.structure.layouts[node]
        kept = self.keep[self.structure.class_of(layout.reshape(-1))]
        origin = self.structure.links[node].index[kept]
        positions = torch.searchsorted(self.kept(source, axis), origin)
        if layout.dim() < len(self.captured.shape(source)):
            return self.graph.call_function(
                torch.ops.aten.select.int, (self.new(source), axis, int(positions[0]))
            )
        return self.pick(node, source, axis, positions)

    def shuffle(self, node: Node) -> Node:
        shuffle = self.structure.shuffles[node]
        kept = self.kept(node, shuffle.axis)
        positions = torch.searchsorted(self.kept(shuffle.entry, shuffle.axis), shuffle.index[kept])
        return self.pick(node, shuffle.entry, shuffle.axis, positions)

    def pick(self, node: Node, source: Node, axis: int, positions: Tensor) -> Node:
        """Positions along an axis: nothing to do, a slice, or an index."""
        value = self.new(source)
        count = len(self.kept(source, axis))
        start, length = int(positions[0]), len(positions)
        if torch.equal(positions, torch.arange(start, start + length)):
            if length == count:
                return value
            return self.graph.call_function(
                torch.ops.aten.slice.Tensor, (value, axis, start, start + length)
            )
        index = self.buffer(f"index_{node.name}", positions)
        return self.graph.call_function(torch.ops.aten.index_select.default, (value, axis, index))

    def resize(self, node: Node, axis: int) -> Node:
        key = "sizes" if ops.op_name(node) == "unflatten" else "size"
        named = ops.arguments(node)
        key = key if key in named else "shape"
        sizes = [self.new(n) if isinstance(n, Node) else n for n in named[key]]
        offset = 0
        if key == "sizes":
            offset = int(named["dim"]) % len(self.captured.shape(node.all_input_nodes[0]))
        place = axis - offset
        if 0 <= place < len(sizes) and sizes[place] != -1:
            sizes[place] = self.cut_size(sizes[place], node, axis)
        return self.call(node, **{key: sizes})

    def cut_size(self, size: int | Node, node: Node, axis: int) -> int | Node:
        """The size of a channel axis: a number, or its part of a product with the batch."""
        kept, real = len(self.kept(node, axis)), self.captured.shape(node)[axis]
        if not isinstance(size, Node) or kept == real:
            return size if isinstance(size, Node) else kept
        common = math.gcd(kept, real)
        product = self.graph.call_function(operator.mul, (size, kept // common))
        return self.graph.call_function(operator.floordiv, (product, real // common))
