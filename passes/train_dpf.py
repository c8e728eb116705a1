"""train-dpf: Dynamic Pruning with Feedback (Lin et al., ICLR 2020, 2006.07253).

    W̃ = M ⊙ W computes,      ∂L/∂W ← ∂L/∂W̃, to all weights,

so that a masked weight goes on learning and may return. Every ``update_steps`` steps M keeps the
largest |w| of all kernels together, at a sparsity s(p) = s_f·(1 − (1 − p)³) that is reached at
``end`` of the training. The classifier is left dense by naming it in ``dense``.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from prunec.sparsity.kernels import sparse_kernels
from prunec.sparsity.masks import Masks
from prunec.sparsity.patterns.option import Patterned
from prunec.sparsity.schedules import cubic
from prunec.sparsity.straight_through import Projected
from prunec.sparsity.training_pass import MaskMethod
from prunec.training.context import Context
from prunec.training.method import Moment
from prunec.training.phases import Phases, until


@dataclass(frozen=True)
class TrainDpf(Patterned):
    """Prune the smallest; gradients reach the pruned weights too."""

    sparsity: Annotated[
        float, Field(gt=0, lt=1, description="share of the weights that end as zero")
    ]
    dense: Annotated[
        tuple[str, ...], Field(description="names of layers that stay whole; * stands for any text")
    ] = ()
    # Lin et al. choose masks every 16 steps.
    update_steps: Annotated[int, Field(ge=1, description="steps between two choices of masks")] = 16
    end: Annotated[
        float,
        Field(gt=0, le=1, description="share of the training after which the sparsity is reached"),
    ] = 0.75

    def phases(self, epochs: int) -> Phases:
        """See :meth:`Training.phases`."""
        return until(epochs, dense=0.0, prune=self.end)

    def kernels(self, module: nn.Module) -> dict[str, Tensor]:
        """See :meth:`SparseTraining.kernels`."""
        return self.divided(module, sparse_kernels(module, self.dense))

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """See :meth:`SparseTraining.method`."""
        return Dpf(self, kernels)


class Dpf(Projected):
    """Masked weights that learn.

    Attributes:
        ended: whether the last sparsity was seen to be reached.
    """

    def __init__(self, options: TrainDpf, kernels: Mapping[str, Tensor]) -> None:
        super().__init__(kernels)
        self.options = options
        self.masks = Masks(kernels, self.kernels.flat, options.restriction())
        self.ended = False

    def count(self, p: float) -> int:
        """Return how many weights stay at ``p`` of the schedule."""
        return round((1 - self.options.sparsity * cubic(p)) * self.masks.total)

    def kind(self, moment: Moment) -> Hashable | None:
        """Steps that leave the masks are alike."""
        ends = moment.reached(self.options.end) and not self.ended
        return None if ends or moment.number % self.options.update_steps == 0 else ()

    def before_forward(self, moment: Moment) -> None:
        """Choose the masks anew when it is time, and when the schedule ends; show what is left."""
        ends = moment.reached(self.options.end)
        count = self.count(1.0 if ends else moment.share / self.options.end)
        due = moment.number % self.options.update_steps == 0
        # The schedule may end between two updates: one more reaches the last sparsity.
        if due or (ends and not self.ended and sum(self.masks.counts()) != count):
            self.kernels.hide()
            self.masks.align()
            self.masks.keep_largest_of_all(count)
        self.ended = ends
        super().before_forward(moment)

    def project(self) -> None:
        """W̃ = M ⊙ W."""
        self.masks.align()
        raw, masks = self.kernels.flat.raw.memory, self.masks.memory.memory
        torch.mul(raw, masks, out=self.kernels.room.memory)

    def settled(self, moment: Moment) -> bool:
        """Say whether the last sparsity was reached, at a step after the schedule's end."""
        return self.ended

    def tensors(self) -> dict[str, Tensor]:
        """The masks."""
        return self.masks.tensors()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the same back."""
        self.masks.load_tensors(tensors)
