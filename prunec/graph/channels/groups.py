"""Channel groups as plain data: the slices of parameters that make and read the same channels.

See docs/glossary.md: channel group, pinned, atom.
"""

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
    """Part of one parameter that a channel group cuts.

    Attributes:
        parameter: name of the parameter or buffer.
        axis: axis of the parameter. Two numbers name channels of a grouped kernel, counted over all
            groups: −1 its input channels, −2 the output channels of a transposed one.
        indices: positions along the axis, one tuple per channel of the group.
    """

    parameter: str
    axis: int
    indices: tuple[tuple[int, ...], ...]


class Positions:
    """Positions of channels along the axes of parameters."""

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._sorted: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def of(self, axis: tuple[str, int], classes: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Return, for each class, its positions along an axis of a parameter."""
        if axis not in self._sorted:
            classes_along = self._structure.class_of(self._structure.slices[axis])
            self._sorted[axis] = torch.sort(classes_along, stable=True)
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
    """Channels that the same parameters make and read; each can be cut without the others.

    See the glossary: [channel group](glossary.md#channel-group), [pinned](glossary.md#pinned).

    Attributes:
        name: name of the first kernel that makes the channels.
        size: number of channels.
        axes: parameter and axis of each slice.
        pinned: reason why the channels must stay; empty if they may be cut.
        channels: class number of each channel in the analysis.
        positions: positions of channels along axes.
    """

    name: str
    size: int
    axes: tuple[tuple[str, int], ...]
    pinned: str
    channels: tuple[int, ...]
    positions: Positions = field(repr=False, compare=False)

    @property
    def members(self) -> tuple[str, ...]:
        """Parameters that the group cuts."""
        return tuple(dict.fromkeys(parameter for parameter, _ in self.axes))

    @cached_property
    def slices(self) -> tuple[Slice, ...]:
        """Slices that the group cuts, computed at first use."""
        return tuple(Slice(*axis, self.positions.of(axis, self.channels)) for axis in self.axes)

    def to_dict(self) -> dict[str, Any]:
        """Return the group as JSON values, without the class numbers, which are arbitrary."""
        return {
            "name": self.name,
            "size": self.size,
            "slices": [asdict(item) for item in self.slices],
            "pinned": self.pinned,
            "members": self.members,
        }


def channel_groups(module: nn.Module, example: tuple[Tensor, ...]) -> tuple[ChannelGroup, ...]:
    """Return the channel groups of a network, in the order of computation.

    Args:
        module: the network; it is not changed.
        example: positional inputs, batch first, at least two samples.

    Raises:
        UntraceableModel: the network cannot be captured.
    """
    return groups_of(analyse(evaluated(capture(module, example)).captured))


def class_bundles(structure: Structure) -> dict[tuple[tuple[str, int], ...], Tensor]:
    """Return bundles: slices of parameters → numbers of the classes in all of them, ascending."""
    bundle_of = torch.zeros(len(structure.classes), dtype=torch.long)
    slices: list[tuple[tuple[str, int], ...]] = [()]
    for key, atoms in structure.slices.items():
        numbers = torch.unique(structure.class_of(atoms))
        former, place = torch.unique(bundle_of[numbers], return_inverse=True)
        # A bundle is split if only some of its classes are in this slice.
        bundle_of[numbers] = len(slices) + place
        slices += [(*slices[bundle], key) for bundle in former.tolist()]
    # Bundle 0 is left out below: pinned classes are listed by reason, see _pinned_bundles.
    bundle_of[structure.pinned_classes()] = 0
    bundles: dict[int, list[int]] = defaultdict(list)
    for number, bundle in enumerate(bundle_of.tolist()):
        if bundle:
            bundles[bundle].append(number)
    return {slices[bundle]: torch.tensor(numbers) for bundle, numbers in bundles.items()}


def groups_of(structure: Structure) -> tuple[ChannelGroup, ...]:
    """Return the channel groups of an analysed network, pinned ones included."""
    bundles = [(keys, numbers.tolist(), "") for keys, numbers in class_bundles(structure).items()]
    bundles += _pinned_bundles(structure)
    makers = {k.weight: i for i, k in enumerate(structure.of(Kernel).values())}
    bundles.sort(
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
    for keys, numbers, reason in bundles:
        base = _name(keys, makers)
        # Several groups may start at one kernel; their names are numbered.
        names[base] += 1
        name = base if names[base] == 1 else f"{base}#{names[base]}"
        group = ChannelGroup(name, len(numbers), keys, reason, tuple(numbers), positions)
        groups.append(group)
    return tuple(groups)


def _name(keys: tuple[tuple[str, int], ...], makers: dict[str, int]) -> str:
    """Return the first kernel that makes a bundle's channels; else its first parameter."""
    made = sorted((n for n, a in keys if a in (0, -2) and n in makers), key=makers.__getitem__)
    first = made[0] if made else keys[0][0]
    return first.removesuffix(".weight")


def _pinned_bundles(
    structure: Structure,
) -> list[tuple[tuple[tuple[str, int], ...], list[int], str]]:
    """Return (slices, classes, reason) of pinned classes, the lowest class first."""
    reasons = structure.pinned()
    reasons.pop(0, None)
    if not reasons:
        return []
    distinct = list(dict.fromkeys(reasons.values()))
    number_of = {reason: i for i, reason in enumerate(distinct, 1)}
    first_bundles = [number_of[reason] for reason in reasons.values()]
    bundle_of = torch.zeros(len(structure.classes), dtype=torch.long)
    bundle_of[torch.tensor(list(reasons))] = torch.tensor(first_bundles)
    entries: list[tuple[tuple[tuple[str, int], ...], str]] = [
        ((), reason) for reason in ("", *distinct)
    ]
    for key, atoms in structure.slices.items():
        numbers = torch.unique(structure.class_of(atoms))
        numbers = numbers[bundle_of[numbers] > 0]
        former, place = torch.unique(bundle_of[numbers], return_inverse=True)
        bundle_of[numbers] = len(entries) + place
        entries += [((*entries[i][0], key), entries[i][1]) for i in former.tolist()]
    # Pinned classes that no slice holds are left out.
    numbers = torch.nonzero(bundle_of > len(distinct)).flatten()
    order = torch.sort(bundle_of[numbers], stable=True)
    bundles, sizes = torch.unique_consecutive(order.values, return_counts=True)
    members = [part.tolist() for part in torch.split(numbers[order.indices], sizes.tolist())]
    pairs = sorted(zip(members, bundles.tolist(), strict=True))
    return [(entries[i][0], classes, entries[i][1]) for classes, i in pairs]
