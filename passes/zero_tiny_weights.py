"""zero-tiny-weights: w ← 0 where |w| ≤ floor, if no output moves by more than 1e-10 of its size.

Processors multiply numbers below 1.2e-38 tens of times more slowly than others, and gates, norms
and weight decay leave such weights. It is not bit-exact, as other rewrites are up to rounding: the
floor is the largest of a ladder at which every slice of every output, in float64, on the example
and on random inputs in its range, stays where it was. What it frees, `remove-channels` takes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.contract import EXACT, Remarks, Rewrite
from prunec.deploy.checks.random_inputs import random_batches
from prunec.deploy.checks.rounding import largest, run, slices

# Down to where float32 becomes subnormal: those are the numbers that are slow.
_LADDER = (1e-12, 1e-16, 1e-20, 1e-25, 1e-30, 1e-38)
_BATCHES = 3


@dataclass(frozen=True)
class ZeroTinyWeights(Rewrite):
    """Write exact zeros for weights too small to change an output."""

    forbids: ClassVar[frozenset[str]] = frozenset({"gated"})

    floor: Annotated[
        float, Field(ge=0, le=1e-6, description="largest magnitude that may become zero")
    ] = 1e-12

    def rewrite(self, artifact: Artifact) -> tuple[Artifact, Remarks]:
        """Return the network with zeros for what no output depends on."""
        count = sum(_tiny(weight, self.floor) for weight in artifact.module.parameters())
        if not count:
            return artifact, Remarks((f"no weight is below {self.floor:g}",), {"zeroed": 0})
        for floor in (self.floor, *(step for step in _LADDER if step < self.floor)):
            module, zeroed = _floored(artifact.module, floor)
            moved = _moved(artifact, module) if zeroed else 0.0
            if zeroed and moved <= EXACT:
                note = (
                    f"{zeroed} weights below {floor:g} are zero now: not bit-exact, every slice of "
                    f"every output stays within {moved:.0e} of its size in float64"
                )
                details = {"zeroed": zeroed, "floor": floor, "moved": moved}
                return replace(artifact, module=module), Remarks((note,), details)
        note = f"kept {count} weights below {self.floor:g}: outputs depend on them"
        return artifact, Remarks((note,), {"zeroed": 0, "kept": count})


def _tiny(weight: Tensor, floor: float) -> int:
    return int(((weight != 0) & (weight.abs() <= floor)).sum()) if _floating(weight) else 0


def _floating(weight: Tensor) -> bool:
    return weight.is_floating_point()


def _floored(module: nn.Module, floor: float) -> tuple[nn.Module, int]:
    """A copy whose weights up to a floor are zero, and how many became so."""
    module, zeroed = copy.deepcopy(module), 0
    with torch.no_grad():
        for weight in module.parameters():
            if count := _tiny(weight, floor):
                zeroed += count
                weight.masked_fill_(weight.abs() <= floor, 0.0)
    return module, zeroed


def _moved(artifact: Artifact, floored: nn.Module) -> float:
    """How far a slice of an output moves at most, as a share of its size; infinity for unlike ones.

    In float64; a network that names its type runs in that, and then no bit may move.
    """
    inputs = [artifact.example, *random_batches(artifact.example, _BATCHES)]
    try:
        before, after = (copy.deepcopy(m).double() for m in (artifact.module, floored))
        wide = [tuple(x.double() if _floating(x) else x for x in batch) for batch in inputs]
        return max(_apart(before, after, batch) for batch in wide)
    except (RuntimeError, TypeError, ValueError):
        difference = max(_apart(artifact.module, floored, batch) for batch in inputs)
        return 0.0 if difference == 0 else float("inf")


def _apart(before: nn.Module, after: nn.Module, batch: tuple[Tensor, ...]) -> float:
    pairs = zip(run(before, batch), run(after, batch), strict=True)
    return max((share for ours, theirs in pairs for share in _shares(ours, theirs)), default=0.0)


def _shares(ours: np.ndarray, theirs: np.ndarray) -> Iterator[float]:
    """The largest difference along each axis that is judged, of the slice where it is largest."""
    if ours.shape != theirs.shape or not ours.ndim or not np.issubdtype(ours.dtype, np.floating):
        yield 0.0 if np.array_equal(ours, theirs) else float("inf")
        return
    # Equal infinities and NaNs are alike, but their difference is NaN.
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    if not np.isfinite(ours[~same]).all() or not np.isfinite(theirs[~same]).all():
        yield float("inf")
        return
    apart = np.where(same, 0.0, np.abs(np.where(same, 0.0, ours) - np.where(same, 0.0, theirs)))
    for axis in slices(ours.shape):
        size = largest(np.where(np.isfinite(ours), ours, 0.0), axis)
        gap = largest(apart, axis)
        share = np.divide(gap, size, out=np.where(gap > 0, np.inf, 0.0), where=size > 0)
        yield float(share.max(initial=0.0))
