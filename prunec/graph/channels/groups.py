"""Channel groups as plain data: the slices of parameters that must be cut together."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from prunec.graph.capture import capture
from prunec.graph.capture.computed import evaluated
from prunec.graph.channels.analyse import analyse
from prunec.graph.channels.operators.kernel import Kernel
from prunec.graph.channels.structure import Structure


@dataclass(frozen=True)
class Slice:
    """What a channel group cuts off one parameter.

    Attributes:
        parameter: name of the parameter or buffer.
        axis: the axis; −1 for the input channels of a grouped kernel, counted through its groups,
            −2 for such outputs of a transposed one.
        indices: for each channel of the group its positions along the axis.
    """

    parameter: str
    axis: int
    indices: tuple[tuple[int, ...], ...]


class Positions:
    """Where channels stand along the axes of parameters."""

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._sorted: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def of(self, axis: tuple[str, int], classes: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Return for each class its positions along an axis of a parameter."""
        if axis not in self._sorted:
            found = self._structure.class_of(self._structure.slices[axis])
            self._sorted[axis] = torch.sort(found, stable=True)
        ordered, places = self._sorted[axis]
        wanted = torch.tensor(classes)
        start = torch.searchsorted(ordered, wanted)
        stop = torch.searchsorted(ordered, wanted, right=True)
        if bool((stop - start == 1).all()):
            return tuple(zip(places[start].tolist(), strict=True))
        listed = places.tolist()
        return tuple(tuple(listed[a:b]) for a, b in zip(start.tolist(), stop.tolist(), strict=True))


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that the same parameters make and read; each is cut on its own, whole.

    Attributes:
        name: of the first kernel that makes them.
        size: number of channels.
        axes: parameter and axis of each slice.
        pinned: why they must stay, or empty.
        channels: their class numbers in the analysis that found them.
        found: the positions of channels along axes.
    """

    name: str
    size: int
    axes: tuple[tuple[str, int], ...]
    pinned: str
    channels: tuple[int, ...]
    found: Positions = field(repr=False, compare=False)

    @property
    def members(self) -> tuple[str, ...]:
        """Parameters that the group cuts."""
        return tuple(dict.fromkeys(parameter for parameter, _ in self.axes))

    @cached_property
    def slices(self) -> tuple[Slice, ...]:
        """What the group cuts off which parameter; worked out when it is first asked for."""
        return tuple(Slice(*axis, self.found.of(axis, self.channels)) for axis in self.axes)

    def to_dict(self) -> dict[str, Any]:
        """The group as JSON's kinds of values; the class numbers, which mean nothing, left out."""
        return {
            "name": self.name,
            "size": self.size,
            "slices": [asdict(item) for item in self.slices],
            "pinned": self.pinned,
            "members": self.members,
        }


def channel_groups(module: nn.Module, example: tuple[Tensor, ...]) -> tuple[ChannelGroup, ...]:
    """The channel groups of a network, in the order of computation.

    Args:
        module: the network; it is not changed.
        example: its positional inputs, batch first, at least two samples.

    Raises:
        UntraceableModel: the network cannot be captured.
    """
    return groups_of(analyse(evaluated(capture(module, example)).captured))


def class_bundles(structure: Structure) -> dict[tuple[tuple[str, int], ...], Tensor]:
    """Return classes by the parameter slices they appear in: slices → class numbers, ascending."""
    bundle_of = torch.zeros(len(structure.classes), dtype=torch.long)
    slices: list[tuple[tuple[str, int], ...]] = [()]
    for key, atoms in structure.slices.items():
        numbers = torch.unique(structure.class_of(atoms))
        before, which = torch.unique(bundle_of[numbers], return_inverse=True)
        bundle_of[numbers] = len(slices) + which
        slices += [(*slices[bundle], key) for bundle in before.tolist()]
    bundle_of[structure.pinned_classes()] = 0
    bundles: dict[int, list[int]] = defaultdict(list)
    for number, bundle in enumerate(bundle_of.tolist()):
        if bundle:
            bundles[bundle].append(number)
    return {slices[bundle]: torch.tensor(numbers) for bundle, numbers in bundles.items()}


def groups_of(structure: Structure) -> tuple[ChannelGroup, ...]:
    """The channel groups of an analysed network, the pinned ones too."""
    found = [(keys, numbers.tolist(), "") for keys, numbers in class_bundles(structure).items()]
    found += _pinned_bundles(structure)
    makers = {k.weight: i for i, k in enumerate(structure.of(Kernel).values())}
    found.sort(
        key=lambda item: (
            min(
                (makers.get(n, len(makers)) for n, a in item[0] if a in (0, -2)),
                default=len(makers),
            ),
            item[1][0],
        )
    )
    names: Counter[str] = Counter()
    positions = Positions(structure)
    groups = []
    for keys, numbers, reason in found:
        base = _name(keys, makers)
        names[base] += 1
        name = base if names[base] == 1 else f"{base}#{names[base]}"
        group = ChannelGroup(name, len(numbers), keys, reason, tuple(numbers), positions)
        groups.append(group)
    return tuple(groups)


def _name(keys: tuple[tuple[str, int], ...], makers: dict[str, int]) -> str:
    made = sorted((n for n, a in keys if a in (0, -2) and n in makers), key=makers.__getitem__)
    first = made[0] if made else keys[0][0]
    return first.removesuffix(".weight")


def _pinned_bundles(
    structure: Structure,
) -> list[tuple[tuple[tuple[str, int], ...], list[int], str]]:
    """Pinned classes by the slices they appear in and the reason, the lowest class first."""
    reasons = structure.pinned()
    reasons.pop(0, None)
    if not reasons:
        return []
    words = list(dict.fromkeys(reasons.values()))
    code = {reason: i for i, reason in enumerate(words, 1)}
    bundle_of = torch.zeros(len(structure.classes), dtype=torch.long)
    bundle_of[torch.tensor(list(reasons))] = torch.tensor(list(map(code.get, reasons.values())))
    found: list[tuple[tuple[tuple[str, int], ...], str]] = [((), reason) for reason in ("", *words)]
    for key, atoms in structure.slices.items():
        numbers = torch.unique(structure.class_of(atoms))
        numbers = numbers[bundle_of[numbers] > 0]
        before, which = torch.unique(bundle_of[numbers], return_inverse=True)
        bundle_of[numbers] = len(found) + which
        found += [((*found[i][0], key), found[i][1]) for i in before.tolist()]
    numbers = torch.nonzero(bundle_of > len(words)).flatten()
    order = torch.sort(bundle_of[numbers], stable=True)
    bundles, sizes = torch.unique_consecutive(order.values, return_counts=True)
    parts = [part.tolist() for part in torch.split(numbers[order.indices], sizes.tolist())]
    pairs = sorted(zip(parts, bundles.tolist(), strict=True))
    return [(found[i][0], part, found[i][1]) for part, i in pairs]
