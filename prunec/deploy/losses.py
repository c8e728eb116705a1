"""What a form that changes numbers did to the weights, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn


@dataclass(frozen=True)
class Stored:
    """A tensor of the network as a file holds it.

    Attributes:
        values: what its numbers stand for.
        steps: the unit in the last place of the form, at each value.
    """

    values: np.ndarray
    steps: np.ndarray


@dataclass(frozen=True)
class Loss:
    """What became of a tensor.

    Attributes:
        tensor: its name.
        ratio: the largest filter's norm over the smallest's that is not zero; None where there are
            no filters.
        weights: how many values it has.
        moved: how many of them lie more than half a unit in the form's last place from the
            network's: out of range, or flushed.
        vanished: how many are zero now and were not.
    """

    tensor: str
    ratio: float | None
    weights: int
    moved: int
    vanished: int


def losses(stored: Mapping[str, Stored], module: nn.Module) -> list[Loss]:
    """Return what became of every tensor of a network that a file holds, in order of names."""
    ours = {name: x.detach().cpu().double().numpy() for name, x in module.state_dict().items()}
    return [
        _loss(name, ours[name], stored[name])
        for name in sorted(stored.keys() & ours.keys())
        if ours[name].shape == stored[name].values.shape
    ]


def _loss(name: str, ours: np.ndarray, stored: Stored) -> Loss:
    theirs = stored.values.astype(np.float64)
    half = stored.steps.astype(np.float64) / 2 * (1 + 1e-6)
    near = np.abs(theirs - ours) <= half
    return Loss(
        tensor=name,
        ratio=_ratio(ours),
        weights=ours.size,
        moved=int((~near).sum()),
        vanished=int(((theirs == 0) & (ours != 0)).sum()),
    )


def _ratio(values: np.ndarray) -> float | None:
    if values.ndim < 2:
        return None
    norms = np.linalg.norm(values.reshape(len(values), -1), axis=1)
    alive = norms[norms > 0]
    return float(alive.max() / alive.min()) if alive.size else None
