"""train-rigl: the Rigged Lottery (Evci et al., ICML 2020, 1911.11134).

A network that is sparse from the start (ERK, ER, or uniform: then the first layer stays dense, and
its weights do not count). Every ΔT steps until ¾ of the training, in place of a step of the
weights, each kernel drops the share f(t) = α/2·(1 + cos(πt/T)) of its smallest |w| and grows as
many where |∂L/∂W| of that batch, masked weights included, is largest. What grows starts at 0, its
momentum too; what was dropped just now and grows at once stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from prunec.sparsity.kernels import sparse_kernels
from prunec.sparsity.regrowth import Regrowth, RegrowthTraining
from prunec.sparsity.training_pass import MaskMethod, mask_generator
from prunec.training.context import Context
from prunec.training.method import Moment


@dataclass(frozen=True)
class TrainRigl(RegrowthTraining):
    """Sparse from the start; weights of large gradients grow."""

    def kernels(self, module: nn.Module) -> dict[str, Tensor]:
        """See :meth:`SparseTraining.kernels`."""
        kernels = super().kernels(module)
        if self.spread == "uniform" and len(kernels) > 1:
            kernels.pop(next(iter(sparse_kernels(module))), None)
        return kernels

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """See :meth:`SparseTraining.method`."""
        return Rigl(self, kernels, mask_generator(context))


class Rigl(Regrowth):
    """Grows where the gradient is largest."""

    def scores(self, moment: Moment) -> Sequence[Tensor]:
        """∂L/∂W, averaged over processes already."""
        return self.masks.gradients()
