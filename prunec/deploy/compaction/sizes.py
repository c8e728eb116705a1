"""Sizes to run a file at: those that it fixes, those that the user gives, and a guess elsewhere."""

from __future__ import annotations

import onnx

from prunec.cost.onnx_sizes import Sizes, dims_of, inputs_of

_BATCHES = (2, 3)
_LENGTHS = (64, 96)  # of an axis of positions that the file leaves open


def chosen_sizes(graph: onnx.GraphProto, given: Sizes, turn: int) -> dict[str, tuple[int, ...]]:
    """Return the sizes of every input for one of two runs, which differ in whatever is open.

    Sizes that the user gave hold, but for an open first axis, the batch; of an input that is one
    number, the number that was given stands in place of sizes.
    """
    found: dict[str, tuple[int, ...]] = {}
    for value in inputs_of(graph):
        own, asked = dims_of(value), given.get(value.name)
        sizes = []
        for axis, size in enumerate(own):
            if size is not None:
                sizes.append(size)
            elif axis == 0 and len(own) > 1:
                sizes.append(_BATCHES[turn])
            else:
                sizes.append(asked[axis] if asked else _LENGTHS[turn])
        found[value.name] = tuple(sizes) if own else tuple(asked or ())
    return found


def is_open(graph: onnx.GraphProto) -> bool:
    """Say whether any size of any input is open."""
    return any(size is None for value in inputs_of(graph) for size in dims_of(value))
