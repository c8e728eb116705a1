"""train-gmp: gradual magnitude pruning (Zhu & Gupta 2017, 1710.01878).

From dense to sparse along s(p) = s_f·(1 − (1 − p)³), p from ``begin`` to ``end`` of the training:
every ``update_steps`` steps each kernel keeps its largest |w|. A masked weight gets no gradient; it
keeps its value, and returns with it when it is among the largest again.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from prunec.errors import PassError
from prunec.sparsity.masked import Masked
from prunec.sparsity.patterns.option import PatternedSpread
from prunec.sparsity.schedules import cubic, phase
from prunec.sparsity.training_pass import MaskMethod
from prunec.training.context import Context
from prunec.training.method import Moment
from prunec.training.phases import Phases, until


@dataclass(frozen=True)
class TrainGmp(PatternedSpread):
    """Prune the smallest weights of each layer, gradually."""

    spread: Annotated[
        Literal["uniform", "er", "erk", "densities"],
        Field(description="how the sparsity is shared by the layers"),
    ] = "uniform"
    update_steps: Annotated[int, Field(ge=1, description="steps between two choices of masks")] = (
        100
    )
    begin: Annotated[
        float, Field(ge=0, lt=1, description="share of the training at which pruning begins")
    ] = 0.0
    end: Annotated[
        float,
        Field(gt=0, le=1, description="share of the training after which the sparsity is reached"),
    ] = 0.75

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        super().__post_init__()
        if self.begin >= self.end:
            raise PassError(
                f"train-gmp: begin is {self.begin:g}, end {self.end:g}",
                remedy="Let begin be before end; both are shares of the training.",
            )

    def phases(self, epochs: int) -> Phases:
        """See :meth:`Training.phases`."""
        return until(epochs, dense=self.begin, prune=self.end)

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """See :meth:`SparseTraining.method`."""
        return Gmp(self, kernels)


class Gmp(Masked):
    """The masks of a network that is pruned gradually.

    Attributes:
        aside: the values of masked weights; 0 where nothing is masked.
    """

    def __init__(self, options: TrainGmp, kernels: Mapping[str, Tensor]) -> None:
        super().__init__(kernels, options.restriction())
        self.options = options
        self.final = options.counts(self.names, self.masks.shapes)
        self.ended = False
        self.aside = [torch.zeros_like(w, requires_grad=False) for w in self.weights]

    def counts(self, p: float) -> list[int]:
        """How many weights of each kernel stay at ``p`` of the schedule."""
        part = cubic(p)
        pairs = zip(self.weights, self.final, strict=True)
        return [round(w.numel() - part * (w.numel() - final)) for w, final in pairs]

    def is_due(self, moment: Moment) -> bool:
        """Say whether masks are chosen before this step."""
        options = self.options
        due = moment.number % options.update_steps == 0 or moment.reached(options.end)
        return due and not self.ended and moment.share >= options.begin

    def kind(self, moment: Moment) -> Hashable | None:
        """Steps that leave the masks are alike."""
        return None if self.is_due(moment) else ()

    def before_forward(self, moment: Moment) -> None:
        """Choose anew when it is time, and once when the schedule ends."""
        super().before_forward(moment)
        options, ends = self.options, moment.reached(self.options.end)
        if not self.is_due(moment):
            return
        # The last regular choice may have reached the final counts already.
        if not (ends and self.masks.counts() == self.final):
            p = phase(moment.share, options.begin, options.end)
            self.choose(self.final if ends else self.counts(p))
        self.ended = ends

    @torch.no_grad()
    def choose(self, counts: list[int]) -> None:
        """Keep the largest |w| of each kernel, masked ones considered too."""
        # Masked weights are 0 and have their values aside, so that the sum is W as it was.
        torch._foreach_add_(self.weights, self.aside)
        self.masks.keep_largest(counts)
        torch._foreach_copy_(self.aside, self.weights)
        self.masks.apply()
        # W − M ⊙ W: the values of masked weights, 0 elsewhere.
        torch._foreach_sub_(self.aside, self.weights)

    def settled(self, moment: Moment) -> bool:
        """Say whether the last sparsity was reached, at a step after the schedule's end."""
        return self.ended

    def tensors(self) -> dict[str, Tensor]:
        """Masks, and what is kept aside."""
        aside = zip(self.names, self.aside, strict=True)
        return {**super().tensors(), **{f"aside.{name}": value for name, value in aside}}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the same back."""
        super().load_tensors(tensors)
        for name, value in zip(self.names, self.aside, strict=True):
            value.copy_(tensors[f"aside.{name}"])
