"""Where a cut unties channels, so that the network is to be cut again, and what stays after that.

Channels are joined where values meet. Three joins end with a cut: to a value that is a stored
constant now; of what a depthwise kernel reads with what it makes, once it has one channel; of the
depth of attention heads, once there is one head.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from prunec.graph.channels.groups import ChannelGroup
from prunec.graph.channels.layouts import varying
from prunec.graph.channels.operators.attention import Attention
from prunec.graph.channels.operators.kernel import Kernel
from prunec.graph.channels.operators.product import Product
from prunec.graph.channels.structure import Structure
from prunec.graph.removal.cut import kept_along
from prunec.graph.removal.decide import Decision
from prunec.graph.rewriting.plan import Plan


def unties(structure: Structure, decision: Decision) -> bool:
    """Whether a cut may leave channels that are no longer joined to what kept them."""
    if decision.frozen:
        return True
    keep = decision.keep
    for kernel in structure.of(Kernel).values():
        if kernel.depthwise and int(keep[structure.class_of(kernel.inputs)].sum()) == 1:
            return True
    for node in (*structure.of(Attention), *structure.of(Product)):
        layout = structure.layouts[node]
        if any(len(kept_along(structure, keep, layout, axis)) == 1 for axis in varying(layout)):
            return True
    return False


def kept_after(
    structure: Structure, keep: Tensor, plan: Plan, groups: Iterable[ChannelGroup]
) -> Tensor:
    """Which classes stay of those that stayed, after a further cut of the compact network.

    Args:
        structure: of the network before the first cut.
        keep: class → whether it stayed.
        plan: of the further cut.
        groups: the channel groups of the network that it cut.
    """
    known = {axis for group in groups for axis in group.axes}
    stays, goes = torch.zeros_like(keep), torch.zeros_like(keep)
    for (name, axis), atoms in structure.slices.items():
        if (name, axis) in known:
            classes = structure.class_of(atoms)
            classes = classes[keep[classes]]
            removed = torch.zeros(len(classes), dtype=torch.bool)
            removed[torch.tensor(plan.removed.get(f"{name}:{axis}", ()), dtype=torch.long)] = True
            stays[classes[~removed]] = True
            goes[classes[removed]] = True
    return keep & ~(goes & ~stays)
