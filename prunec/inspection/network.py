"""Inspection of a network: its layers and channel groups, and the kept share of each."""

from __future__ import annotations

import json
import re
from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import RenderableType
from torch import Tensor, nn

from prunec.cost import Cost
from prunec.cost.torch_graph import count
from prunec.errors import PrunecError
from prunec.graph.channels.groups import ChannelGroup, channel_groups
from prunec.graph.rewriting.plan import Input, Plan
from prunec.inspection.groups import GroupSummary, added_up, groups_text
from prunec.inspection.layer_tree import layers_table
from prunec.inspection.layers import Layer, layers_of
from prunec.tables import counts_table


@dataclass(frozen=True)
class Inspection:
    """Content of ``prunec inspect``.

    Attributes:
        title: name of the network.
        inputs: shapes and types of the inputs.
        cost: cost of the network now.
        dense: cost of the dense network.
        layers: layers with MACs or weights, in the order of computation.
        groups: channel groups of the dense network, with their kept channels.
    """

    title: str
    inputs: tuple[Input, ...]
    cost: Cost
    dense: Cost
    layers: tuple[Layer, ...]
    groups: tuple[GroupSummary, ...]

    @property
    def refusals(self) -> dict[str, int]:
        """Reason why channels may not be removed → their number, the largest first."""
        return added_up((group.pinned, group.size) for group in self.groups if group.pinned)

    def to_dict(self) -> dict[str, Any]:
        """Return the inspection as JSON values."""
        return {
            "title": self.title,
            "inputs": [asdict(item) for item in self.inputs],
            "cost": _plain(self.cost),
            "dense": _plain(self.dense),
            "layers": [_plain_layer(layer) for layer in self.layers],
            "groups": [group.to_dict() for group in self.groups],
            "refusals": self.refusals,
        }

    def to_json(self) -> str:
        """Return the inspection as JSON text."""
        return json.dumps(self.to_dict(), indent=2)


def inspect_module(
    title: str,
    dense: nn.Module,
    example: tuple[Tensor, ...],
    *,
    now: nn.Module | None = None,
    plans: Sequence[Plan] = (),
    because: Mapping[str, Mapping[str, int]] | None = None,
) -> Inspection:
    """Inspect a network, and its compact form if there is one.

    Args:
        title: name to show.
        dense: original network.
        example: positional inputs, batch first, at least two samples.
        now: compact network; by default ``dense``.
        plans: plans that cut ``now`` from ``dense``, in order.
        because: channel group → reason for keeping channels → their number, if known.

    Raises:
        UntraceableModel: a network cannot be captured.
    """
    groups = channel_groups(dense, example)
    before = count(dense, example)
    after = before if now is None else count(now, example)
    left = _Left(dense if now is None else now, plans)
    reports = tuple(left.report(group, (because or {}).get(group.name)) for group in groups)
    layers = layers_of(dense, before, dense if now is None else now, after)
    inputs = tuple(Input(tuple(x.shape), str(x.dtype).removeprefix("torch.")) for x in example)
    return Inspection(title, inputs, after, before, layers, reports)


_DTYPES = frozenset(
    {"float32", "float64", "float16", "bfloat16", "complex64", "bool", "uint8", "int8", "int16"}
    | {"int32", "int64"}
)


def parse_input(text: str) -> Input:
    """Return the input that a text such as ``3x224x224`` or ``128:int64`` describes.

    The text holds the sizes of one sample and a dtype; the batch size of the result is 2.

    Raises:
        PrunecError: the text does not describe an input.
    """
    parts = re.fullmatch(r"([1-9]\d*(?:[x×,][1-9]\d*)*)(?::(\w+))?", text.strip())
    dtype = parts[2] or "float32" if parts else ""
    if not parts or dtype not in _DTYPES:
        raise PrunecError(
            f"--input {text!r} is not an input",
            remedy="Write the sizes of one sample, and a dtype if it is not float32: 3x224x224, "
            "128:int64.",
        )
    # Two samples: with one, a batch axis looks like any axis of size 1.
    return Input((2, *map(int, re.split("[x×,]", parts[1]))), dtype)


class _Left:
    """Positions of the dense network's parameters that remain after some plans."""

    def __init__(self, now: nn.Module, plans: Sequence[Plan]) -> None:
        self._names = set(now.state_dict())
        self._plans = plans

    def report(self, group: ChannelGroup, because: Mapping[str, int] | None) -> GroupSummary:
        kept = self._kept(group)
        reason = {f"pinned: {group.pinned}": kept} if group.pinned else {}
        return GroupSummary(
            name=group.name,
            size=group.size,
            kept=kept,
            members=group.members,
            pinned=group.pinned,
            because=dict(reason if because is None else because),
        )

    def _kept(self, group: ChannelGroup) -> int:
        """Return the number of kept channels, by the parameters that remain; 0 if none remains."""
        here = [s for s in group.slices if s.parameter in self._names]
        # No parameter of the group is left: its layers were removed as a whole.
        gone: set[int] = set() if here else set(range(group.size))
        for cut in here:
            lost = self._lost(f"{cut.parameter}:{cut.axis}")
            gone.update(i for i, places in enumerate(cut.indices) if lost.intersection(places))
        return group.size - len(gone)

    def _lost(self, key: str) -> set[int]:
        """Return the positions of the dense network that the plans removed along an axis.

        Each plan counts positions of the network before it, so its positions shift by the earlier
        removals.
        """
        lost: list[int] = []  # ascending
        for plan in self._plans:
            earlier = tuple(lost)
            for position in plan.removed.get(key, ()):
                for place in earlier:
                    # Every removed position at or before this one shifts it by one.
                    position += place <= position
                insort(lost, position)
        return set(lost)


def _plain(cost: Cost) -> dict[str, Any]:
    return {"macs": cost.macs, "nonzero_macs": cost.nonzero_macs, **asdict(cost)}


def _plain_layer(layer: Layer) -> dict[str, Any]:
    return {
        key: {"kept": value[0], "total": value[1]} if isinstance(value, tuple) else value
        for key, value in asdict(layer).items()
    }


def inspection_tables(seen: Inspection) -> tuple[RenderableType, ...]:
    """Return an inspection as tables: tree of layers, channel groups, pinned channels."""
    refusals = counts_table("Pinned channels by reason", seen.refusals)
    layers = layers_table(seen.title, seen.layers, seen.cost, seen.dense)
    return layers, groups_text(seen.groups), refusals
