"""Kernels: weights that compute new channels from the channels they read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.borders import Bordered, Borders, settings
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import NAN, along, on_axis
from prunec.graph.channels.operator import Known, Mark, Writer, Written, WrittenLayer
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class Kernel(Family):
    """One call with a weight that mixes channels: a convolution or a linear map.

    Attributes:
        node: the call.
        weight: name of the weight: (O, I/groups, k…), transposed (I, O/groups, k…), linear (O, I).
        bias: name of the bias, or None.
        source: operand.
        axis: channel axis of the operand and of the result.
        inputs: atom of each input channel, shape (I,).
        outputs: atom of each output channel, shape (O,).
        groups: number of groups.
        transposed: whether it is a transposed convolution.
        border: taps that read padding at some output position, bool (taps,), or None if none does.
        positions: MACs per sample for one pair of an input and an output channel.
        room: name for a bias that may be added where there is none, or None.
    """

    node: Node
    weight: str
    bias: str | None
    source: Node
    axis: int
    inputs: Tensor
    outputs: Tensor
    groups: int
    transposed: bool
    border: Tensor | None
    positions: int
    room: str | None = None

    @property
    def depthwise(self) -> bool:
        """Whether each input channel forms a group of its own."""
        return self.groups == len(self.inputs) > 1

    @property
    def places_differ(self) -> bool:
        """Whether input channels may be read at different positions, which rules out a carrier."""
        return False

    @property
    def bias_name(self) -> str | None:
        """Name of the bias, or of the bias that may be added; None if there can be none."""
        return self.room if self.bias is None else self.bias

    def matrix(self, weight: Tensor) -> Tensor:
        """Return the weight as (groups, O/groups, I/groups, taps).

        The result is a view where the layout allows it, so that writing to it writes to the weight.
        """
        inputs, outputs, groups = len(self.inputs), len(self.outputs), self.groups
        taps = math.prod(weight.shape[2:])  # not −1: torch cannot infer it once no inputs are left
        if self.transposed:
            shape = (groups, inputs // groups, outputs // groups, taps)
            return weight.reshape(shape).transpose(1, 2)
        return weight.reshape(groups, outputs // groups, inputs // groups, taps)

    def at_border(self, matrix: Tensor) -> Tensor:
        """Return for each pair of channels whether a non-zero tap reads padding."""
        if self.border is None:
            return torch.zeros(matrix.shape[:3], dtype=torch.bool)
        return (matrix[..., self.border] != 0).any(-1)

    def values_read(self, known: Known) -> Tensor:
        """Return the constants of the input channels, NaN where unknown, shape (I,)."""
        return along(known[self.source], self.axis, len(self.inputs))

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return constants of outputs that read only constants, and at the border only zeros."""
        reads = weights.reads(self)
        values = self.values_read(known).reshape(self.groups, 1, -1)
        usable = ~values.isnan()
        doubtful = usable & (values != 0)
        if self.border is not None and bool(doubtful.any()):
            # Zero padding mixes with a constant at the border, so only 0 stays constant there.
            usable = usable & ~(doubtful & self.at_border(weights.matrix(self)))
        constant = ~(reads & ~usable).any(-1)
        result = torch.full(constant.shape, NAN, dtype=torch.float64)
        if bool(constant.any()):
            filled = torch.where(usable, values, 0.0).expand(reads.shape)[constant]
            taps = weights.matrix(self)[constant].sum(-1, dtype=torch.float64)
            result[constant] = (taps * filled).sum(-1)
        result = result.reshape(-1)
        name = self.bias_name
        result = result + weights[name] if name is not None and name in weights else result
        return on_axis(result, self.axis, len(self.node.shape))

    def bordered(self, known: Known, borders: Borders, weights: Weights) -> Bordered | None:
        """Return uneven constants through a kernel of one tap."""
        if self.source not in borders or self.border is not None or weights.taps(self) > 1:
            return None
        made = self.at_each_position([self.source], known, borders, weights, linear=True)
        return None if made is None else made.moved(settings(self.node))

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark inputs with a non-zero weight to a live output, except those known to be zero."""
        outputs = live.reshape(self.groups, -1, 1)
        zero = self.values_read(known) == 0
        read = (weights.reads(self) & outputs).any(1).reshape(-1) & ~zero
        mark(self.source, on_axis(read, self.axis, len(self.source.shape)))

    @property
    def cuts(self) -> tuple[str, ...]:
        """The weight."""
        return (self.weight,)

    def only_cuts(self, name: str) -> bool:
        """Return False also where the weight is at the same time the operand."""
        return name == self.weight and self.source.stored != name

    def emit(self, writer: Writer) -> Written:
        """Write a layer with the groups that remain."""
        named = self.node.arguments
        if "bias" not in named:
            return writer.copy(self.node)
        bias = self.bias or (self.room if writer.has(self.room) else None)
        changes = {}
        if "groups" in named:
            padding = writer.padding(self.node, self.weight)
            changes = {"groups": self._groups_left(writer), "padding": padding}
        names = {"weight": self.weight, "bias": bias}
        tensor = None if bias is None else writer.tensor(bias)
        if tensor is not None and self.bias is None:  # an added bias has no slice, so cut it here
            tensor = tensor[writer.kept_atoms(self.outputs)]
        tensors = {"weight": writer.tensor(self.weight), "bias": tensor}
        return writer.layer(self.node, self.source, WrittenLayer(names, tensors, changes))

    def _groups_left(self, writer: Writer) -> int:
        return len(self.staying_groups(writer.kept_atoms)) if self.groups > 1 else self.groups

    def staying_groups(self, kept: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the groups that keep a channel on either side, by ``kept`` of atoms."""
        inputs = kept(self.inputs).reshape(self.groups, -1).any(1)
        outputs = kept(self.outputs).reshape(self.groups, -1).any(1)
        return torch.nonzero(inputs | outputs).flatten()


def add_kernel(
    kind: type[Kernel], builder: Builder, node: Node, source: Node, weight: str, bias: str | None,
    size: int, axis: int, positions: int, groups: int = 1, transposed: bool = False,
    border: Tensor | None = None, has_room: bool = True,
) -> None:  # fmt: skip
    """Record a kernel: input atoms are those of its operand, output atoms are new.

    Args:
        kind: family of the kernel.
        builder: running analysis.
        node: the call.
        source: operand.
        weight: name of the weight.
        bias: name of the bias, or None.
        size: number of output channels.
        axis: channel axis of the operand and of the result.
        positions: MACs per sample for one pair of channels.
        groups: number of groups.
        transposed: whether the weight's first axis counts inputs.
        border: taps that read padding.
        has_room: whether the operator accepts a bias.
    """
    structure = builder.structure
    if builder.uses.setdefault(weight, (transposed, groups)) != (transposed, groups):
        builder.refuse(node, [source], f"{weight} is also used by another kind of kernel")
        for (owner, _), atoms in structure.slices.items():
            if owner == weight:
                builder.pin(atoms, f"{weight} is used by kernels of two kinds")
        return
    inputs = builder.along(source, axis)
    if groups == 1:
        builder.slice(weight, 0 if transposed else 1, inputs, len(inputs))
    else:
        builder.slice(weight, -1, inputs, len(inputs))  # −1: input channels counted over all groups
    out_axis = -2 if transposed and groups > 1 else int(transposed)
    outputs = builder.slice(weight, out_axis, None, size)
    if bias is not None:
        builder.slice(bias, 0, outputs, size)
    if groups == len(inputs) > 1:
        builder.join(inputs.repeat_interleave(size // groups), outputs)
    room = _room_for_bias(builder, weight) if bias is None and has_room else None
    kernel = kind(
        node, weight, bias, source, axis, inputs, outputs, groups, transposed, border, positions,
        room,
    )  # fmt: skip
    builder.bind(kernel, on_axis(outputs, axis, len(node.shape)))


def stored_name(node: Node | None) -> str | None:
    """Return the name of a stored tensor, or None."""
    return None if node is None else node.stored


def _room_for_bias(builder: Builder, weight: str) -> str | None:
    """Return a name for an added bias, if the kernel's module holds only the weight."""
    owner, _, last = weight.rpartition(".")
    fits = last == "weight" and owner
    return f"{owner}.bias" if fits and builder.captured.held_by(owner) == {weight} else None
