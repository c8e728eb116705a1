"""Changes of weights by a lossy form, per tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn


@dataclass(frozen=True)
class Stored:
    """Tensor of the network as a file stores it.

    Attributes:
        values: represented values.
        steps: unit in the last place of the form, at each value.
    """

    values: np.ndarray
    steps: np.ndarray


@dataclass(frozen=True)
class Loss:
    """Change of one tensor.

    Attributes:
        tensor: name of the tensor.
        ratio: largest filter norm divided by the smallest non-zero one; None without filters.
        weights: number of values.
        moved: number of values that differ by more than half a unit in the form's last place:
            clipped or flushed.
        vanished: number of values that became zero.
    """

    tensor: str
    ratio: float | None
    weights: int
    moved: int
    vanished: int


def losses(stored: Mapping[str, Stored], module: nn.Module) -> list[Loss]:
    """Return the changes of all tensors that a file stores, ordered by name."""
    ours = {name: x.detach().cpu().double().numpy() for name, x in module.state_dict().items()}
    return [
        _loss(name, ours[name], stored[name])
        for name in sorted(stored.keys() & ours.keys())
        if ours[name].shape == stored[name].values.shape
    ]


def _loss(name: str, ours: np.ndarray, stored: Stored) -> Loss:
    theirs = stored.values.astype(np.float64)
    half = stored.steps.astype(np.float64) / 2 * (1 + 1e-6)  # 1e-6: rounding of the step itself
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
