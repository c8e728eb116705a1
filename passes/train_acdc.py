"""train-acdc: Alternating Compressed/DeCompressed training (Peste et al., NeurIPS 2021).

After a dense warm-up, phases alternate: compressed, with the k largest |w| of all kernels chosen at
its start and the others 0; decompressed, where all weights learn, those that were 0 from 0. The
last phase is compressed, for ``final``: where another compressed one would run into it, the
weights stay dense, as in the authors' 100 epochs (75 to 84 dense, the rest compressed). At the
start of a decompressed phase the momentum of every parameter is forgotten, norms and biases
included, as the authors do; arXiv 2106.12379. Phases are whole epochs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from prunec.errors import PassError
from prunec.recipe.lengths import Share, in_whole_epochs, key_of, stated_wrong
from prunec.sparsity.kernels import sparse_kernels
from prunec.sparsity.masked import Masked
from prunec.sparsity.patterns.option import Patterned
from prunec.sparsity.training_pass import MaskMethod
from prunec.training.context import Context
from prunec.training.method import Moment
from prunec.training.phases import DENSE, SURVIVORS, Phases, divided

AUTHORS = {"warmup": 0.1, "phase": 0.05, "final": 0.15}  # of their 100 epochs: 10, 5, 15


@dataclass(frozen=True)
class TrainAcdc(Patterned):
    """Alternate sparse and dense phases; end with a sparse one."""

    sparsity: Annotated[
        float, Field(gt=0, lt=1, description="share of the weights that end as zero")
    ]
    dense: Annotated[
        tuple[str, ...], Field(description="names of layers that stay whole; * stands for any text")
    ] = ()
    warmup: (
        Annotated[Share, Field(description="share of the training before the first sparse phase")]
        | None
    ) = None
    warmup_epochs: Annotated[int, Field(ge=0)] | None = None
    phase: (
        Annotated[Share, Field(description="length of each phase, as a share of the training")]
        | None
    ) = None
    phase_epochs: Annotated[int, Field(ge=1)] | None = None
    final: (
        Annotated[Share, Field(description="share of the training in the last sparse phase")] | None
    ) = None
    final_epochs: Annotated[int, Field(ge=1)] | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself; what is not stated is the authors'."""
        super().__post_init__()
        if wrong := stated_wrong(self, *AUTHORS):
            raise PassError(f"train-acdc {wrong}")
        for name, share in AUTHORS.items():
            if getattr(self, key_of(self, name)) is None:
                object.__setattr__(self, name, share)

    def phases(self, epochs: int) -> Phases:
        """See :meth:`Training.phases`; they are whole epochs."""
        dense, _, final = self.whole(epochs)
        survivors = divided(self, "train-acdc", epochs, {"warmup": dense, "final": final})
        return {DENSE: dense, "alternate": survivors[SURVIVORS], SURVIVORS: final}

    def whole(self, epochs: int) -> tuple[int, int, int]:
        """Return the epochs of the warm-up, of each phase and of the last one."""
        return (
            in_whole_epochs(self, "warmup", epochs),
            in_whole_epochs(self, "phase", epochs, least=1),
            in_whole_epochs(self, "final", epochs, least=1),
        )

    def kernels(self, module: nn.Module) -> dict[str, Tensor]:
        """See :meth:`SparseTraining.kernels`."""
        return self.divided(module, sparse_kernels(module, self.dense))

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """See :meth:`SparseTraining.method`."""
        return Acdc(self, kernels)


class Acdc(Masked):
    """The masks of a network between phases."""

    def __init__(self, options: TrainAcdc, kernels: Mapping[str, Tensor]) -> None:
        super().__init__(kernels, options.restriction())
        self.options = options

    def is_compressed(self, epoch: int, epochs: int) -> bool:
        """Say whether the weights are sparse in an epoch."""
        warmup, phase, final = self.options.whole(epochs)
        last = epochs - final
        if epoch < warmup or epoch >= last:
            return epoch >= last
        number = (epoch - warmup) // phase
        ends = warmup + (number + 1) * phase
        return number % 2 == 0 and ends < last

    def kind(self, moment: Moment) -> Hashable | None:
        """Steps that leave the masks are alike."""
        return () if moment.step else None

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
        return moment.epoch >= moment.epochs - self.options.whole(moment.epochs)[-1]
