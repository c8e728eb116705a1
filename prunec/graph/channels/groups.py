"""Channel groups as plain data: the slices of parameters that must be cut together."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that the same parameters make and read; each is cut on its own, whole.

    Attributes:
        name: of the first kernel that makes them.
        size: number of channels.
        slices: what they cut off which parameter.
        pinned: why they must stay, or empty.
        channels: their class numbers in the analysis that found them.
    """

    name: str
    size: int
    slices: tuple[Slice, ...]
    pinned: str
    channels: tuple[int, ...]

    @property
    def members(self) -> tuple[str, ...]:
        """Parameters that the group cuts."""
        return tuple(dict.fromkeys(s.parameter for s in self.slices))

    def to_dict(self) -> dict[str, Any]:
        """The group as JSON's kinds of values; the class numbers, which mean nothing, left out."""
        whole = {**asdict(self), "members": self.members}
        del whole["channels"]
        return whole


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
    ordered = {
        key: torch.sort(structure.class_of(atoms), stable=True)
        for key, atoms in structure.slices.items()
    }
    groups = []
    for keys, numbers, reason in found:
        base = _name(keys, makers)
        names[base] += 1
        name = base if names[base] == 1 else f"{base}#{names[base]}"
        slices = tuple(Slice(*key, _positions(*ordered[key], numbers)) for key in keys)
        groups.append(ChannelGroup(name, len(numbers), slices, reason, tuple(numbers)))
    return tuple(groups)


def _name(keys: tuple[tuple[str, int], ...], makers: dict[str, int]) -> str:
    made = sorted((n for n, a in keys if a in (0, -2) and n in makers), key=makers.__getitem__)
    first = made[0] if made else keys[0][0]
    return first.removesuffix(".weight")


def _positions(classes: Tensor, places: Tensor, numbers: list[int]) -> tuple[tuple[int, ...], ...]:
    """For each class its positions, from the sorted classes of an axis and where they stand."""
    wanted = torch.tensor(numbers)
    start = torch.searchsorted(classes, wanted)
    stop = torch.searchsorted(classes, wanted, right=True)
    if bool((stop - start == 1).all()):
        return tuple(zip(places[start].tolist(), strict=True))
    listed = places.tolist()
    return tuple(tuple(listed[a:b]) for a, b in zip(start.tolist(), stop.tolist(), strict=True))


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
