"""A captured network written anew with only the channels that stay."""

from __future__ import annotations

import warnings
from collections.abc import Collection

from torch.fx import GraphModule

from prunec.graph.capture import Node, insist
from prunec.graph.channels.structure import Structure
from prunec.graph.removal.decide import Decision
from prunec.graph.rewriting.torch_writer import TorchWriter


def rewrite(structure: Structure, decision: Decision, folded: Collection[str] = ()) -> GraphModule:
    """Write the network anew; the captured graph is used up.

    Args:
        structure: of the captured network.
        decision: what stays, and the weights.
        folded: nodes of the batch norms that are folded already in the decision's weights.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fx warns of modules that are placed only at the end
        writer = TorchWriter(structure, decision, folded)
        fixed = structure.captured.lengths(_not_written(structure, writer.needed()))
        compact = writer.write()
    insist(compact, fixed)
    return compact


def _not_written(structure: Structure, needed: Collection[Node]) -> frozenset[str]:
    """The calls of channel shuffles: a choice of channels is written in their place."""
    found: set[Node] = set()
    for end, shuffle in structure.shuffles.items():
        left = [end]
        while left:
            node = left.pop()
            if node is not shuffle.entry and node not in found:
                found.add(node)
                left += [n for n in node.operands if n not in needed]
    return frozenset(node.name for node in found)
