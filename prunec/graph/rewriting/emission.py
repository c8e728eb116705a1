"""Nodes of the graph that is written anew, and what stays of the tensors that they read."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.fx import Node
from torch.fx.node import map_arg

from prunec.graph.capture import aten as ops
from prunec.graph.channels.structure import Structure, varying
from prunec.graph.removal.cut import cut_layout, cut_tensor, kept_along
from prunec.graph.removal.decide import Decision
from prunec.graph.removal.taps import trim
from prunec.graph.rewriting import modules as leaves


class Emission:
    """The graph that is being written, and what has been emitted of it.

    Attributes:
        graph: the captured one; new nodes are put in before the old.
        root: holds the modules, parameters and buffers of the new network.
        made: captured node → its new value.
    """

    def __init__(self, structure: Structure, decision: Decision) -> None:
        self.structure = structure
        self.captured = structure.captured
        self.decision = decision
        self.keep = decision.keep
        self.graph = structure.captured.module.graph
        self.root = nn.Module()
        self.made: dict[Node, Node] = {}

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
        """The same call on emitted values."""
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
        """A parameter or buffer of the network, cut, where it was."""
        value = self.tensor(name).detach().clone()
        original = self.captured.tensor(name)
        trains = isinstance(original, nn.Parameter)
        leaves.place(
            self.root, name, nn.Parameter(value, original.requires_grad) if trains else value
        )
        return self.graph.create_node("get_attr", name)

    def buffer(self, name: str, value: Tensor) -> Node:
        """A new buffer of the network."""
        leaves.place(self.root, name, value)
        return self.graph.create_node("get_attr", name)

    def constant(self, node: Node) -> Node:
        """A value that was found to be constant, as a buffer."""
        value = self.frozen_value(node)
        return self.buffer(f"constant_{node.name}", value)

    def frozen_value(self, node: Node) -> Tensor:
        """What stays of a value that was found to be constant."""
        layout = self.structure.layouts[node]
        value = cut_layout(self.structure, self.keep, layout, self.decision.frozen[node])
        reference = node.meta.get("val")
        first = next(p for p in self.captured.module.parameters())
        kind = reference.dtype if isinstance(reference, Tensor) else first.dtype
        return value.to(first.device, kind).contiguous()

    # -- what stays of a value

    def stays(self, node: Node) -> bool:
        """Whether any channel of a value stays."""
        return bool(self.keep[self.structure.class_of(self.structure.layouts[node])].any())

    def kept(self, node: Node, axis: int) -> Tensor:
        """Positions that stay along an axis of a node's layout."""
        return kept_along(self.structure, self.keep, self.structure.layouts[node], axis)

    def count_kept(self, node: Node, axis: int) -> int:
        """How many positions stay along an axis, of which a layout may be all alike."""
        alike = self.structure.layouts[node].shape[axis] == 1
        return self.captured.shape(node)[axis] if alike else len(self.kept(node, axis))

    def channel_axis(self, node: Node) -> int | None:
        """The axis along which a value's channels differ, if it is one."""
        axes = varying(self.structure.layouts[node])
        return axes[0] if len(axes) == 1 else None

    def is_whole(self, node: Node) -> bool:
        """Whether all channels of a value stay."""
        return bool(self.keep[self.structure.class_of(self.structure.layouts[node])].all())
