"""Kept values and tensors of a network, by a decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.layouts import varying
from prunec.graph.channels.operator import Writer
from prunec.graph.channels.structure import Structure
from prunec.graph.removal.cut import cut_layout, cut_tensor, kept_along
from prunec.graph.removal.decide import Decision
from prunec.graph.removal.taps import padding_after, trim


class Kept:
    """The part of a writer that is independent of the kind of graph."""

    def __init__(self, structure: Structure, decision: Decision) -> None:
        self.structure = structure
        self.captured = structure.captured
        self.decision = decision
        self.keep = decision.keep

    # -- calls --------------------------------------------------------------------------------

    def needed(self) -> set[Node]:
        """Return the nodes whose values the outputs need."""
        nodes = self.captured.nodes
        needed: set[Node] = {nodes[-1]}
        for node in reversed(nodes):
            if node in needed:
                needed.update(n for n in self._sources(node) if n not in self.decision.frozen)
        return needed

    def _sources(self, node: Node) -> Sequence[Node]:
        if node in self.structure.shuffles:
            return [self.structure.shuffles[node].entry]
        operation = self.structure.operators.get(node)
        return node.operands if operation is None else operation.sources(cast("Writer", self))

    # -- tensors ------------------------------------------------------------------------------

    def has(self, name: str | None) -> bool:
        """Return whether a tensor of this name is stored or was added."""
        return name in self.decision.weights

    def tensor(self, name: str) -> Tensor:
        """Return a parameter or buffer, cut, in its original type and on its device; −0
        becomes 0.
        """
        value = self.decision.weights[name]
        cut = cut_tensor(self.structure, self.keep, name, value)
        cut = trim(cut, self.decision.taps.get(name, ()))
        stored = self.captured.stored
        # An added bias has no original; it takes type and device of its weight.
        original = stored.get(name, stored.get(name.rpartition(".")[0] + ".weight"))
        assert original is not None
        # + 0.0 turns −0 into 0.
        return cut.to(original) + 0.0 if value.is_floating_point() else cut.to(original.device)

    def padding(self, node: Node, weight: str) -> Any:
        """Return the padding of a convolution, reduced by the border taps that are cut."""
        taps = self.decision.taps.get(weight)
        return node.arguments["padding"] if taps is None else padding_after(node, taps)

    # -- constants ----------------------------------------------------------------------------

    def frozen_value(self, node: Node) -> Tensor:
        """Return the kept part of a constant value."""
        layout = self.structure.layouts[node]
        value = cut_layout(self.structure, self.keep, layout, self.decision.frozen[node])
        device = next((x.device for x in self.captured.stored.values()), value.device)
        return value.to(device, node.dtype or torch.get_default_dtype()).contiguous()

    def frozen_to_zero(self, node: Node) -> bool:
        """Return whether a value is replaced by a constant that is zero everywhere."""
        return node in self.decision.frozen and not bool(self.frozen_value(node).any())

    # -- values -------------------------------------------------------------------------------

    def atoms(self, node: Node) -> Tensor:
        """Return a node's layout."""
        return self.structure.layouts[node]

    def kept_atoms(self, atoms: Tensor) -> Tensor:
        """Return whether each atom is kept, a bool tensor in the shape of ``atoms``."""
        return self.keep[self.structure.class_of(atoms)]

    def stays(self, node: Node) -> bool:
        """Return whether at least one channel of a value is kept."""
        return node not in self.structure.layouts or bool(self.kept_atoms(self.atoms(node)).any())

    def is_whole(self, node: Node) -> bool:
        """Return whether all channels of a value are kept."""
        return bool(self.kept_atoms(self.atoms(node)).all())

    def channel_axis(self, node: Node) -> int | None:
        """Return the axis along which a value's channels lie; None if there is not exactly one."""
        axes = varying(self.atoms(node))
        return axes[0] if len(axes) == 1 else None

    def kept(self, node: Node, axis: int) -> Tensor:
        """Return the kept positions along an axis of a node's layout."""
        return kept_along(self.structure, self.keep, self.atoms(node), axis)

    def count_kept(self, node: Node, axis: int) -> int:
        """Return the number of kept positions along an axis; all, where no atoms differ along
        it.
        """
        uniform = self.atoms(node).shape[axis] == 1
        return node.shape[axis] if uniform else len(self.kept(node, axis))
