"""train-acdc: Alternating Compressed/DeCompressed training (Peste et al., NeurIPS 2021).

After a dense warm-up, phases alternate: compressed, with the k largest |w| of all kernels chosen at
its start and the others 0; decompressed, where all weights learn, those that were 0 from 0. The
last phase is compressed, for ``final_epochs``: where another compressed one would run into it, the
weights stay dense, as in the authors' 100 epochs (75 to 84 dense, the rest compressed). At the
start of a decompressed phase momentum is forgotten; arXiv 2106.12379.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from prunec.errors import PassError
from prunec.sparsity.kernels import sparse_kernels
from prunec.sparsity.masked import Masked
from prunec.sparsity.training_pass import MaskMethod, SparseTraining
from prunec.training.context import Context
from prunec.training.method import Moment


@dataclass(frozen=True)
class TrainAcdc(SparseTraining):
    """Alternate sparse and dense phases; end with a sparse one."""

    sparsity: Annotated[float, Field(gt=0, lt=1)]
    dense: tuple[str, ...] = ()
    warmup_epochs: Annotated[int, Field(ge=0)] = 10
    phase_epochs: Annotated[int, Field(ge=1)] = 5
    final_epochs: Annotated[int, Field(ge=1)] = 15

    def kernels(self, module: nn.Module) -> dict[str, Tensor]:
        """See :meth:`SparseTraining.kernels`."""
        return sparse_kernels(module, self.dense)

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """See :meth:`SparseTraining.method`."""
        epochs = context.recipe.train.epochs
        if self.warmup_epochs + self.final_epochs > epochs:
            raise PassError(
                f"train-acdc: warmup_epochs + final_epochs is "
                f"{self.warmup_epochs + self.final_epochs}, train.epochs only {epochs}",
                remedy="Raise train.epochs, or lower one of the two.",
            )
        return Acdc(self, kernels)


class Acdc(Masked):
    """The masks of a network between phases."""

    def __init__(self, options: TrainAcdc, kernels: Mapping[str, Tensor]) -> None:
        super().__init__(kernels)
        self.options = options

    def is_compressed(self, epoch: int, epochs: int) -> bool:
        """Say whether the weights are sparse in an epoch."""
        options = self.options
        last = epochs - options.final_epochs
        if epoch < options.warmup_epochs or epoch >= last:
            return epoch >= last
        number = (epoch - options.warmup_epochs) // options.phase_epochs
        ends = options.warmup_epochs + (number + 1) * options.phase_epochs
        return number % 2 == 0 and ends < last

    @torch.no_grad()
    def before_forward(self, moment: Moment) -> None:
        """Change the phase at the first step of an epoch."""
        super().before_forward(moment)
        if moment.step:
            return
        now = self.is_compressed(moment.epoch, moment.epochs)
        before = moment.epoch > 0 and self.is_compressed(moment.epoch - 1, moment.epochs)
        if now and not before:
            self.masks.keep_largest_of_all(round((1 - self.options.sparsity) * self.masks.total))
            self.masks.apply()
        if before and not now:
            self.forget_momentum()
            self.masks.keep_largest_of_all(self.masks.total)

    def settled(self, moment: Moment) -> bool:
        """Say whether the last phase has begun."""
        return moment.epoch >= moment.epochs - self.options.final_epochs
