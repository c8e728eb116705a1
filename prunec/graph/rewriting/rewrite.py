"""Rewriting of a captured network with only the kept channels."""

from __future__ import annotations

import warnings
from collections.abc import Collection

from torch.fx import GraphModule

from prunec.graph.capture import Node, insist
from prunec.graph.channels.structure import Structure
from prunec.graph.removal.decide import Decision
from prunec.graph.rewriting.torch_writer import TorchWriter


def rewrite(structure: Structure, decision: Decision, folded: Collection[str] = ()) -> GraphModule:
    """Write the compact network; the captured graph is consumed.

    Args:
        structure: structure of the captured network.
        decision: kept channels and weights.
        folded: batch norm nodes that are already folded into the decision's weights.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fx warns that modules of new calls are not placed yet
        writer = TorchWriter(structure, decision, folded)
        fixed = structure.captured.lengths(_not_written(structure, writer.needed()))
        compact = writer.write()
    insist(compact, fixed)
    return compact


def _not_written(structure: Structure, needed: Collection[Node]) -> frozenset[str]:
    """Return the calls inside channel shuffles, which an index replaces."""
    replaced: set[Node] = set()
    for end, shuffle in structure.shuffles.items():
        left = [end]
        while left:
            node = left.pop()
            if node is not shuffle.entry and node not in replaced:
                replaced.add(node)
                left += [n for n in node.operands if n not in needed]
    return frozenset(node.name for node in replaced)
