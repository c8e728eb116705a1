"""train-two-of-four: 2:4 sparsity, the pattern that sparse tensor cores compute twice as fast.

    W̃ = W where |W| is among the two largest of four neighbours along the input channels, else 0;
    ∂L/∂W ← ∂L/∂W̃ + λ_W·(1 − M)⊙W,

chosen anew at every step: a masked weight learns by the straight-through gradient and is pulled to
0 meanwhile, SR-STE (Zhou et al., ICLR 2021, 2102.04010). Kernels whose input channels (a group's)
are no multiple of four stay dense, as that hardware would have them; so do transposed ones. A pass
that removes channels afterwards moves weights to other neighbours: leave it out.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from prunec.errors import PassError
from prunec.sparsity.kernels import TRANSPOSED, sparse_kernels
from prunec.sparsity.largest import two_of_four_
from prunec.sparsity.straight_through import Projected
from prunec.sparsity.training_pass import MaskMethod, SparseTraining
from prunec.training.context import Context
from prunec.training.method import Moment

ROWS = 2**18  # fours that a processor masks at once: four megabytes, and three beside them


@dataclass(frozen=True)
class TrainTwoOfFour(SparseTraining):
    """Compute with two of every four weights; all learn."""

    dense: Annotated[
        tuple[str, ...], Field(description="names of layers that stay whole; * stands for any text")
    ] = ()
    decay: Annotated[
        float,
        Field(ge=0, description="pull of the weights that are not computed with towards zero"),
    ] = 2e-4

    def kernels(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the kernels whose input channels are a multiple of four."""
        transposed = {id(part.weight) for part in module.modules() if isinstance(part, TRANSPOSED)}
        fitting = {
            name: weight
            for name, weight in sparse_kernels(module, self.dense).items()
            if weight.shape[1] % 4 == 0 and id(weight) not in transposed
        }
        if not fitting:
            raise PassError(
                "train-two-of-four: no kernel has a multiple of four input channels",
                remedy="Widen the network, or choose a method without a pattern.",
            )
        return fitting

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """See :meth:`SparseTraining.method`."""
        return TwoOfFour(self, kernels)


class TwoOfFour(Projected):
    """The two largest of four, at every step.

    Attributes:
        scores: |W| of all kernels, then their masks, fours of one kernel after the other's, [N, 4].
        masks: the same memory as each kernel's shape.
        room: for what comes between, [3, rows at once].
    """

    def __init__(self, options: TrainTwoOfFour, kernels: Mapping[str, Tensor]) -> None:
        super().__init__(kernels)
        self.decay = options.decay
        self._make_room(self.weights)

    def kind(self, moment: Moment) -> Hashable | None:
        """All steps are alike."""
        return ()

    def project(self) -> None:
        """Keep the larger two: all kernels' at once, for launches take the time on a GPU."""
        kernels = self.kernels
        torch._foreach_copy_(self.masks, kernels.raw)
        for scores in torch.split(self.scores, self.room.shape[1]):
            two_of_four_(scores.abs_(), self.room[:, : len(scores)])
        torch._foreach_copy_(kernels.shown, kernels.raw)
        torch._foreach_mul_(kernels.shown, self.masks)

    def _make_room(self, kernels: Sequence[Tensor]) -> None:
        # With input channels last, four neighbours along them are four neighbours in memory.
        lasts = [w.movedim(1, -1) for w in kernels]
        flat = kernels[0].new_empty(sum(w.numel() for w in kernels))
        parts = torch.split(flat, [w.numel() for w in kernels])
        self.masks = [p.view(w.shape).movedim(-1, 1) for p, w in zip(parts, lasts, strict=True)]
        self.scores = flat.view(-1, 4)
        # A GPU masks all fours in one launch.
        most = ROWS if flat.device.type == "cpu" else len(self.scores)
        self.room = flat.new_empty(3, min(most, len(self.scores)))

    @torch.no_grad()
    def gradient(self, moment: Moment) -> None:
        """Pull masked weights to 0: (1 − M) ⊙ W = W − W̃."""
        super().gradient(moment)
        gradients = self.kernels.gradients()
        torch._foreach_add_(gradients, self.kernels.raw, alpha=self.decay)
        torch._foreach_sub_(gradients, self.kernels.shown, alpha=self.decay)
