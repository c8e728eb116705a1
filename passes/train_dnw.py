"""train-dnw: Discovering Neural Wirings, for sparse kernels (Wortsman et al., NeurIPS 2019).

    W̃ = W where |W| is among the largest of its kernel, 0 elsewhere;      ∂L/∂W ← ∂L/∂W̃,

chosen anew at every step, at a constant sparsity from the first one on; arXiv 1906.00586.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from prunec.sparsity.choice import largest_places
from prunec.sparsity.straight_through import Projected
from prunec.sparsity.training_pass import MaskMethod, SpreadTraining
from prunec.training.context import Context

MARGIN = 0.95  # of the last one: weights move little in a step


@dataclass(frozen=True)
class TrainDnw(SpreadTraining):
    """Compute with the largest weights of each layer; all learn."""

    spread: Literal["uniform", "er", "erk", "budget"] = "uniform"

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """See :meth:`SparseTraining.method`."""
        return Dnw(self, kernels)


class Dnw(Projected):
    """The largest weights, at every step.

    Attributes:
        least: the smallest |W| that each kernel kept last: the next one is near it.
    """

    name = "train-dnw"

    def __init__(self, options: TrainDnw, kernels: Mapping[str, Tensor]) -> None:
        super().__init__(kernels)
        self.counts = options.counts(self.names, [tuple(w.shape) for w in self.weights])
        self.least = torch.zeros(len(self.counts), dtype=torch.float64)

    def project(self) -> None:
        """Keep the largest |W|."""
        found = []
        for raw, shown, count, least in zip(
            self.kernels.raw, self.kernels.shown, self.counts, self.least.tolist(), strict=True
        ):
            torch.abs(raw, out=shown)  # memory that is there: fresh memory costs as much again
            places, now = largest_places(shown, count, MARGIN * least)
            found.append(now)
            whole = (raw.numel(),), (1,)
            kept = raw.as_strided(*whole)[places]
            shown.zero_().as_strided(*whole)[places] = kept
        self.least.copy_(torch.tensor(found))

    def tensors(self) -> dict[str, Tensor]:
        """What was kept last: it decides between equal weights."""
        return {"least": self.least}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the same back."""
        self.least.copy_(tensors["least"])
