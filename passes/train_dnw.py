"""train-dnw: Discovering Neural Wirings, for sparse kernels (Wortsman et al., NeurIPS 2019).

    W̃ = W where |W| is among the largest of its kernel, 0 elsewhere;      ∂L/∂W ← ∂L/∂W̃,

chosen anew at every step, at a constant sparsity from the first one on; arXiv 1906.00586.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from prunec.sparsity.largest import bound_of_largest
from prunec.sparsity.straight_through import Projected
from prunec.sparsity.training_pass import MaskMethod, SpreadTraining
from prunec.training.context import Context


@dataclass(frozen=True)
class TrainDnw(SpreadTraining):
    """Compute with the largest weights of each layer; all learn."""

    spread: Annotated[
        Literal["uniform", "er", "erk", "densities"],
        Field(description="how the sparsity is shared by the layers"),
    ] = "uniform"

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """See :meth:`SparseTraining.method`."""
        return Dnw(self, kernels)


class Dnw(Projected):
    """The largest weights, at every step.

    Attributes:
        bounds: of |W| in each kernel, as of the last step: the next is near it, and found sooner.
    """

    def __init__(self, options: TrainDnw, kernels: Mapping[str, Tensor]) -> None:
        super().__init__(kernels)
        self.counts = options.counts(self.names, [tuple(w.shape) for w in self.weights])
        self.bounds = [0.0] * len(self.counts)

    def project(self) -> None:
        """Keep the largest |W|."""
        kernels = zip(self.kernels.raw, self.kernels.shown, self.counts, self.bounds, strict=True)
        found = []
        for raw, shown, count, guess in kernels:
            torch.abs(raw, out=shown)  # memory that is there: fresh memory costs as much again
            found.append(bound_of_largest(shown, count, guess))
            torch.ops.aten.hardshrink.out(raw, found[-1], out=shown)
        self.bounds = found
