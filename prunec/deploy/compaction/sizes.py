"""Sizes to run a file at: those that it fixes, those that the user gives, and a guess elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from prunec.errors import PrunecError
from prunec.wording import did_you_mean

_BATCHES = (2, 3)
_LENGTHS = (64, 96)  # of an axis of positions that the file leaves open


def parse_sizes(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return input → sizes of what was written as ``x=1x3x224x224``.

    Raises:
        PrunecError: it is not written so.
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in given:
        name, _, sizes = text.rpartition("=")
        parts = sizes.lower().split("x")
        if not name or not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise PrunecError(
                f"--input {text} is not NAME=SIZES", remedy="Write it as --input x=1x3x224x224."
            )
        found[name] = tuple(map(int, parts))
    return found


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return what a caller gives."""
    stored = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in stored]


def require_fit(graph: onnx.GraphProto, given: Mapping[str, tuple[int, ...]]) -> None:
    """Check sizes that were given against what the file says of its inputs.

    Raises:
        PrunecError: it has no such input, or the input has another number of axes or fixes a size.
    """
    inputs = {value.name: value for value in inputs_of(graph)}
    for name, sizes in given.items():
        if name not in inputs:
            raise PrunecError(
                f"the file has no input {name}",
                remedy=f"{did_you_mean(name, list(inputs))}Its inputs: {', '.join(inputs)}.",
            )
        own = _dims(inputs[name])
        fits = len(own) == len(sizes) and all(
            size in (None, asked) for size, asked in zip(own, sizes, strict=True)
        )
        if not fits:
            told = "x".join("?" if size is None else str(size) for size in own)
            raise PrunecError(
                f"--input {name}={'x'.join(map(str, sizes))} does not fit {told}",
                remedy="Give a size for every axis; those that the file fixes as they are.",
            )


def chosen_sizes(
    graph: onnx.GraphProto, given: Mapping[str, tuple[int, ...]], turn: int
) -> dict[str, tuple[int, ...]]:
    """Return the sizes of every input for one of two runs, which differ in whatever is open.

    Sizes that the user gave hold, but for an open first axis, the batch.
    """
    found: dict[str, tuple[int, ...]] = {}
    for value in inputs_of(graph):
        own, asked = _dims(value), given.get(value.name)
        sizes = []
        for axis, size in enumerate(own):
            if size is not None:
                sizes.append(size)
            elif axis == 0 and len(own) > 1:
                sizes.append(_BATCHES[turn])
            else:
                sizes.append(asked[axis] if asked else _LENGTHS[turn])
        found[value.name] = tuple(sizes)
    return found


def is_open(graph: onnx.GraphProto) -> bool:
    """Say whether any size of any input is open."""
    return any(size is None for value in inputs_of(graph) for size in _dims(value))


def _dims(value: onnx.ValueInfoProto) -> list[int | None]:
    """The sizes of an input; None where one is open, or written as 0 or −1."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        raise PrunecError(
            f"input {value.name} has no shape", remedy="Export the file with shapes of its inputs."
        )
    return [dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim]
