"""A captured network written anew with only the channels that stay."""

from __future__ import annotations

import warnings
from collections.abc import Collection

from torch.fx import GraphModule

from prunec.graph.capture import Lengths
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
        fixed = structure.captured.lengths()
        compact = TorchWriter(structure, decision, folded).write()
    if fixed:
        compact.register_forward_pre_hook(Lengths(fixed))
    return compact
