"""train-dnw: Discovering Neural Wirings, for sparse kernels (Wortsman et al., NeurIPS 2019).

    W̃ = W where |W| is among the largest of its kernel, 0 elsewhere;      ∂L/∂W ← ∂L/∂W̃,

chosen anew at every step, at a constant sparsity from the first one on; arXiv 1906.00586.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from prunec.sparsity.flat import hardshrink
from prunec.sparsity.largest import bounds_of_largest
from prunec.sparsity.straight_through import Projected
from prunec.sparsity.training_pass import MaskMethod, SpreadTraining
from prunec.training.context import Context
from prunec.training.method import Moment


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
        bounds: of |W| in each kernel, as of the last step: a processor finds the next near it.
    """

    def __init__(self, options: TrainDnw, kernels: Mapping[str, Tensor]) -> None:
        super().__init__(kernels)
        counts = options.counts(self.names, [tuple(w.shape) for w in self.weights])
        self.counts = torch.tensor(counts, device=self.weights[0].device)
        self.bounds = self.weights[0].new_zeros(len(self.counts)).detach()

    def kind(self, moment: Moment) -> Hashable | None:
        """All steps are alike."""
        return ()

    def project(self) -> None:
        """Keep the largest |W|."""
        raw, room = self.kernels.flat.raw.memory, self.kernels.room.memory
        for span in self.kernels.flat.spans:
            # memory that is there: fresh memory costs as much again
            torch.abs(span.of(raw), out=span.of(room))
            near = self.bounds[span.kernels]
            near.copy_(bounds_of_largest(span, room, self.counts[span.kernels], near))
            hardshrink(span, raw, near, room)
