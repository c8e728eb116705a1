"""Checks that both counters agree with each other and with the file's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest

from prunec.cost import Cost
from prunec.deploy.checks.check import Check, equal, failed
from prunec.deploy.signature import MACS

_LONGEST = 40  # characters of a metadata number that are shown, so that one line suffices


def compare_macs(torch_cost: Cost, onnx_cost: Cost) -> Check:
    """Return the check that file and network have equal MACs."""
    if torch_cost.uncounted:
        return _at_least(torch_cost, onnx_cost)
    if onnx_cost.uncounted:
        return failed("MACs", torch_cost.macs, "not counted", f"{_listed(onnx_cost)}.")
    where = _first_difference(torch_cost, onnx_cost)
    wrong = f"the network has other layers: {where}."
    return equal("MACs", torch_cost.macs, onnx_cost.macs, wrong)


def compare_costs(metadata: Mapping[str, str], torch_cost: Cost, onnx_cost: Cost) -> list[Check]:
    """Return the checks of MACs, non-zero MACs, MACs in the metadata and parameters."""
    recorded = metadata.get(MACS)
    elsewhere = "the file's weights have zeros in other places than the network's."
    counted = onnx_cost if not torch_cost.uncounted else torch_cost
    checks = [
        compare_macs(torch_cost, onnx_cost),
        equal("non-zero MACs", torch_cost.nonzero_macs, onnx_cost.nonzero_macs, elsewhere),
        metadata_macs(recorded, counted.macs, torch_cost.macs),
        equal(
            "parameters",
            torch_cost.params - torch_cost.unread_params,
            onnx_cost.params,
            "weights were added to the file or are missing from it.",
        ),
        equal(
            "non-zero parameters",
            torch_cost.nonzero_params - torch_cost.nonzero_unread_params,
            onnx_cost.nonzero_params,
            elsewhere,
        ),
    ]
    uncounted = torch_cost.uncounted or onnx_cost.uncounted
    # Sums without an operator cannot be compared.
    return [c for c in checks if c.name != "non-zero MACs" or not uncounted]


def metadata_macs(recorded: str | None, counted: int, ours: int | None = None) -> Check:
    """Return the check that the MACs in a file's metadata equal the counted MACs.

    Args:
        recorded: number in the metadata, as text.
        counted: MACs of the file's graph.
        ours: MACs of the torch graph, if it belongs to the same network.
    """
    wrong = _metadata(recorded, ours, counted)
    return equal("MACs in metadata", counted, _number(recorded), wrong)


def _at_least(torch_cost: Cost, onnx_cost: Cost) -> Check:
    """Compare MACs if an operator of the network cannot be counted: the file may have more.

    Operators that cannot be counted in the file either are in neither sum.
    """
    listed = _listed(torch_cost)
    passed = onnx_cost.macs >= torch_cost.macs
    wrong = (
        "" if passed else f"the file has fewer MACs than the network's other operators ({listed})."
    )
    actual = f"{onnx_cost.macs:,} with {listed}"
    return Check("MACs", f"at least {torch_cost.macs:,}", actual, None, passed, wrong)


def _listed(cost: Cost) -> str:
    return "; ".join(map(str, cost.uncounted))


def _number(recorded: str | None) -> int | str | None:
    """Return the number that a text represents, or the text, cut to one line."""
    # int() also reads signs, underscores and digits of other scripts, and refuses thousands.
    if recorded is None or not (recorded.isascii() and recorded.isdecimal()):
        return recorded and recorded[:_LONGEST]
    return int(recorded) if len(recorded) <= _LONGEST else recorded[:_LONGEST]


def _metadata(recorded: str | None, ours: int | None, theirs: int) -> str:
    if recorded is None:
        return "the metadata holds no MACs: was the file exported by prunec?"
    if ours is not None and recorded == str(ours):
        return f"the metadata says {ours:,}, as torch does, but the graph has {theirs:,}."
    return f"the MAC metadata was edited: it says {recorded[:_LONGEST]}, the graph has {theirs:,}."


def _first_difference(ours: Cost, theirs: Cost) -> str:
    """Return the first layer with different MACs, in words."""
    for a, b in zip_longest(ours.layers, theirs.layers):
        if a is None:
            return f"{b.name} is in the file alone"
        if b is None:
            return f"{a.name} is not in the file"
        if a.macs != b.macs:
            return f"{b.name} has {b.macs:,} MACs in the file, {a.macs:,} in torch ({a.name})"
    return "the same layers"
