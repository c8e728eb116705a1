"""Cuts that untie channels, so that the network can be cut once more.

Channels are joined where values meet. Three kinds of joins end with a cut: to a value that is now a
stored constant; between inputs and outputs of a depthwise kernel, once it has a single channel;
along the depth of attention heads, once there is a single head.
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
    """Return whether a cut may leave channels that are no longer joined to the ones that kept
    them.
    """
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
    """Return the kept classes after a further cut of the compact network.

    Args:
        structure: structure of the network before the first cut.
        keep: class → whether it stayed in the first cut.
        plan: plan of the further cut.
        groups: channel groups of the compact network.
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
    # A class may be cut in one tensor and stay in another since the first cut untied them.
    return keep & ~(goes & ~stays)
