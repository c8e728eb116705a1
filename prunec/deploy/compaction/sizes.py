"""Sizes to run a file at: fixed by the file, given by the user, or guessed."""

from __future__ import annotations

import onnx

from prunec.cost.onnx_sizes import Sizes, dims_of, inputs_of

_BATCHES = (2, 3)  # of an open first axis, in the two runs
_LENGTHS = (64, 96)  # of an open axis of positions, in the two runs


def chosen_sizes(graph: onnx.GraphProto, given: Sizes, turn: int) -> dict[str, tuple[int, ...]]:
    """Return the sizes of every input for one of two runs, which differ in all open axes.

    Sizes given by the user are kept, except an open first axis, the batch; for an input that is a
    single number, the given number takes the place of sizes.
    """
    chosen: dict[str, tuple[int, ...]] = {}
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
        chosen[value.name] = tuple(sizes) if own else tuple(asked or ())
    return chosen


def is_open(graph: onnx.GraphProto) -> bool:
    """Return whether any size of any input is open."""
    return any(size is None for value in inputs_of(graph) for size in dims_of(value))
