"""Difference of two networks' outputs; values that are not finite are never close."""

from __future__ import annotations

from torch import Tensor

Outputs = tuple[list[Tensor], str]


class Incomparable(Exception):
    """The outputs have another structure, or are not finite."""


def difference(wanted: Outputs, actual: Outputs) -> float:
    """Largest difference of the outputs, relative to the largest value of each.

    Args:
        wanted: leaves of the output and the text of its structure, as ``oracles.outputs`` gives.
        actual: the same of the other network.
    """
    (mine, shape), (theirs, same) = wanted, actual
    if shape != same or [x.shape for x in mine] != [x.shape for x in theirs]:
        raise Incomparable(f"the outputs changed their structure: {shape} became {same}")
    for who, leaves in (("masked", mine), ("compact", theirs)):
        if not all(bool(x.isfinite().all()) for x in leaves):
            raise Incomparable(f"the {who} network's outputs are not finite")
    return max(
        ((a - b).abs().max() / (a.abs().max().item() or 1.0)).item()
        for a, b in zip(mine, theirs, strict=True)
    )
