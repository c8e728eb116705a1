"""Peak activation memory of a graph, by lifetimes: no device, no measurement.

Definition. Operations run in the order of the file. A value is held from the operation that makes
it, an input from the start, to the last operation that reads it, an output to the end; one that
nobody reads is held while it is made. While operation t runs,

    M_t = Σ bytes(v)   over the values v that are held,        peak = max_t M_t

Weights, and whatever depends on no input, are no activations. A view (a reshape, say) is the buffer
that it shows. Nothing is computed in place, and no kernel has space of its own: an allocator that
packs without gaps reaches the peak, one that works in place may stay below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Operation:
    """A step of a graph: its name, what it does, the values that it reads and makes."""

    name: str
    operator: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True)
class Flow:
    """What a file computes, as its activations see it.

    Attributes:
        inputs: values that are there from the start.
        outputs: values that are there at the end.
        operations: in the order in which they run.
        bytes: of each activation; a value that is missing is none.
        shows: view → the value whose buffer it is.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    bytes: Mapping[str, int]
    shows: Mapping[str, str] = field(default_factory=dict)

    def buffer(self, value: str) -> str:
        """Return the value whose buffer a value is: its own, but for a view."""
        while value in self.shows:
            value = self.shows[value]
        return value


@dataclass(frozen=True)
class Peak:
    """Where a graph holds most.

    Attributes:
        bytes: that are held there.
        operation: its name.
        operator: what it does.
        held: value → bytes, the largest first.
    """

    bytes: int
    operation: str
    operator: str
    held: tuple[tuple[str, int], ...]


def peak(flow: Flow) -> Peak:
    """Return the most that a graph holds at once; the first such place where there are several."""
    spans = _spans(flow)
    change = [0] * (len(flow.operations) + 1)
    for value, (first, last) in spans.items():
        change[first] += flow.bytes[value]
        change[last + 1] -= flow.bytes[value]
    held, most, place = 0, -1, 0
    for index in range(len(flow.operations)):
        held += change[index]
        if held > most:
            most, place = held, index
    there = [(v, flow.bytes[v]) for v, (first, last) in spans.items() if first <= place <= last]
    operation = flow.operations[place]
    ordered = tuple(sorted(there, key=lambda entry: -entry[1]))
    return Peak(most, operation.name, operation.operator, ordered)


def _spans(flow: Flow) -> dict[str, tuple[int, int]]:
    """First and last operation that each buffer is held for."""
    spans: dict[str, tuple[int, int]] = {}

    def hold(values: Sequence[str], place: int) -> None:
        for value in map(flow.buffer, values):
            if value in flow.bytes:
                spans[value] = (spans.get(value, (place, place))[0], place)

    hold(flow.inputs, 0)
    for index, operation in enumerate(flow.operations):
        hold(operation.reads, index)
        hold(operation.writes, index)
    hold(flow.outputs, len(flow.operations) - 1)
    return spans
