"""train-set: Sparse Evolutionary Training (Mocanu et al., Nature Communications 2018, 1707.04780).

A network that is sparse from the start (ER, or ERK, over its layers). Every ΔT steps each kernel
drops the share f of its smallest |w| and grows as many at random, at 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunec.sparsity.regrowth import Regrowth, RegrowthTraining
from prunec.sparsity.training_pass import MaskMethod, mask_generator
from prunec.training.context import Context
from prunec.training.method import Moment


@dataclass(frozen=True)
class TrainSet(RegrowthTraining):
    """Sparse from the start; the smallest drop, random ones grow."""

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """See :meth:`SparseTraining.method`."""
        return Set(self, kernels, mask_generator(context))


class Set(Regrowth):
    """Grows at random."""

    def scores(self, moment: Moment) -> Sequence[Tensor]:
        """Random numbers, the same on every rank."""
        generator = moment.generator(self.weights[0].device)
        return [torch.rand(w.shape, generator=generator, device=w.device) for w in self.weights]
