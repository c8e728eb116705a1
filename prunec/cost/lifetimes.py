"""Peak activation memory of a graph by lifetimes, computed without a device.

Definition. Operations run in the order of the file. A value is held from the operation that makes
it (an input: from the start) to the last operation that reads it (an output: to the end); an unread
value is held while it is made. While operation t runs,

    M_t = Σ bytes(v)   over the values v that are held,        peak = max_t M_t

Weights, and values that do not depend on an input, are not activations. A view (for example a
reshape) shares the buffer of its source. Nothing is computed in place, and kernels have no
workspace: an allocator that packs without gaps reaches this peak, one that works in place may stay
below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Operation:
    """One step of a graph: name, operator, values read and written."""

    name: str
    operator: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True)
class Flow:
    """Activations of a graph and the operations on them.

    Attributes:
        inputs: values held from the start.
        outputs: values held to the end.
        operations: operations in the order of execution.
        bytes: activation → size in bytes; other values are not activations.
        shows: view → the value whose buffer it shares.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    bytes: Mapping[str, int]
    shows: Mapping[str, str] = field(default_factory=dict)

    def buffer(self, value: str) -> str:
        """Return the value that owns a value's buffer: itself, except for views."""
        while value in self.shows:
            value = self.shows[value]
        return value


@dataclass(frozen=True)
class Peak:
    """Operation during which a graph holds the most activation memory.

    Attributes:
        bytes: bytes held.
        operation: name of the operation.
        operator: operator of the operation.
        held: (value, bytes) pairs, the largest first.
    """

    bytes: int
    operation: str
    operator: str
    held: tuple[tuple[str, int], ...]


def peak(flow: Flow) -> Peak:
    """Return the first operation that holds the most bytes."""
    spans = _spans(flow)
    change = [0] * (len(flow.operations) + 1)
    for value, (first, last) in spans.items():
        change[first] += flow.bytes[value]
        # Difference array: running sums give the held bytes at every operation.
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
    """Return buffer → first and last operation during which it is held."""
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
