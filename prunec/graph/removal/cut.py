"""Parameters cut to the kept channels."""

from __future__ import annotations

import torch
from torch import Tensor

from prunec.graph.channels.layouts import varying
from prunec.graph.channels.operators.kernel import Kernel
from prunec.graph.channels.structure import Structure


def kept_along(structure: Structure, keep: Tensor, layout: Tensor, axis: int) -> Tensor:
    """Return kept positions along one axis of a layout whose atoms differ along no other axis."""
    for other in range(layout.dim()):
        if other != axis:
            layout = layout.narrow(other, 0, 1)
    return torch.nonzero(keep[structure.class_of(layout.reshape(-1))]).flatten()


def cut_layout(structure: Structure, keep: Tensor, layout: Tensor, values: Tensor) -> Tensor:
    """Return values in a layout's shape, cut to the kept positions."""
    for axis in varying(layout):
        values = values.index_select(axis, kept_along(structure, keep, layout, axis))
    return values


def cut_tensor(structure: Structure, keep: Tensor, name: str, tensor: Tensor) -> Tensor:
    """Return a parameter, buffer or mask of the captured network, cut to the kept channels.

    Args:
        structure: structure of the captured network.
        keep: class → whether it stays, bool.
        name: the parameter's name.
        tensor: tensor of the parameter's shape.
    """
    if (name, -1) in structure.slices:
        kernel = next(k for k in structure.of(Kernel).values() if k.weight == name)
        return _cut_grouped(structure, keep, kernel, tensor)
    for axis in range(tensor.dim()):
        atoms = structure.slices.get((name, axis))
        if atoms is not None:
            kept = torch.nonzero(keep[structure.class_of(atoms)]).flatten()
            if len(kept) < len(atoms):
                tensor = tensor.index_select(axis, kept.to(tensor.device))
    return tensor


def _cut_grouped(structure: Structure, keep: Tensor, kernel: Kernel, tensor: Tensor) -> Tensor:
    """Cut each group to its own kept positions, equally many in each."""
    groups = kernel.groups
    inputs = keep[structure.class_of(kernel.inputs)].reshape(groups, -1)
    outputs = keep[structure.class_of(kernel.outputs)].reshape(groups, -1)
    first, second = (inputs, outputs) if kernel.transposed else (outputs, inputs)
    blocks = tensor.reshape(groups, first.shape[1], second.shape[1], *tensor.shape[2:])
    staying = kernel.staying_groups(lambda atoms: keep[structure.class_of(atoms)])
    # torch needs one group, even of a kernel that is removed afterwards.
    staying = staying if len(staying) else torch.zeros(1, dtype=torch.long)
    rows, columns = (_kept_in_each(side[staying]).to(tensor.device) for side in (first, second))
    numbers = staying.to(tensor.device)
    return blocks[numbers[:, None, None], rows[:, :, None], columns[:, None, :]].flatten(0, 1)


def _kept_in_each(kept: Tensor) -> Tensor:
    """Return the kept positions of every row, equally many in each: (rows, kept)."""
    return torch.nonzero(kept)[:, 1].reshape(len(kept), -1)
