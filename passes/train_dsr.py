"""train-dsr: Dynamic Sparse Reparameterization (Mostafa & Wang, ICML 2019, 1902.05967).

A network that is sparse from the start. At an update all weights with |w| < H drop, K of them in
all kernels; H doubles when K is below the number wanted, halves when it is above. As many grow at
random, at 0, shared out over kernels in proportion to the weights left in them. Updates come every
P steps, P doubling after a quarter, half and three quarters of the training, as the paper's
1000/2000/4000/8000 do; the paper leaves the stem and the shortcuts' kernels dense (``dense``).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from prunec.sparsity.masked import Masked
from prunec.sparsity.spread import shared_out
from prunec.sparsity.training_pass import MaskMethod, SpreadTraining, mask_generator
from prunec.training.context import Context
from prunec.training.method import Moment
from prunec.training.phases import Phases, until

NEAR = 0.1  # of the number wanted: H stays as it is


@dataclass(frozen=True)
class TrainDsr(SpreadTraining):
    """Sparse from the start; dropped weights grow again at random."""

    spread: Annotated[
        Literal["uniform", "er", "erk", "densities"],
        Field(description="how the first masks share the sparsity"),
    ] = "uniform"
    update_steps: Annotated[
        int, Field(ge=1, description="steps between two changes of the masks")
    ] = 1000
    moved: Annotated[
        float, Field(gt=0, lt=1, description="share of the weights left that is to move each time")
    ] = 0.05
    # The paper's H₀.
    threshold: Annotated[
        float, Field(gt=0, description="size below which a weight drops, at first")
    ] = 1e-3
    # The paper's masks change until epoch 95 of 100.
    stop: Annotated[
        float, Field(gt=0, le=1, description="share of the training after which masks stay")
    ] = 0.95

    def phases(self, epochs: int) -> Phases:
        """See :meth:`Training.phases`."""
        return until(epochs, "fixed masks", regrow=self.stop)

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """See :meth:`SparseTraining.method`."""
        return Dsr(self, kernels, mask_generator(context))


class Dsr(Masked):
    """The masks of a network whose weights wander over its layers.

    Attributes:
        h: the threshold H, float64.
    """

    def __init__(
        self, options: TrainDsr, kernels: Mapping[str, Tensor], generator: torch.Generator
    ) -> None:
        super().__init__(kernels)
        self.options = options
        counts = options.counts(self.names, self.masks.shapes)
        self.masks.draw(counts, generator)
        self.masks.apply()
        self.wanted = max(1, round(options.moved * sum(counts)))
        self.h = torch.tensor(options.threshold, dtype=torch.float64)

    def is_due(self, moment: Moment) -> bool:
        """Say whether this step ends with an update; what grew in the last would stay 0."""
        # P, 2P, 4P, 8P from 0, ¼, ½ and ¾ of the training.
        every = self.options.update_steps * 2 ** min(int(4 * moment.share), 3)
        due = moment.number % every == every - 1 and moment.share < self.options.stop
        return due and not moment.last

    def kind(self, moment: Moment) -> Hashable | None:
        """Steps that leave the masks are alike."""
        return None if self.is_due(moment) else ()

    def after_step(self, moment: Moment) -> None:
        """Mask, and move weights when it is time."""
        super().after_step(moment)
        if self.is_due(moment):
            self.move(moment.generator(self.weights[0].device))

    @torch.no_grad()
    def move(self, generator: torch.Generator) -> None:
        """Drop below H, steer H, grow as many at random."""
        masks = self.masks
        before = masks.counts()
        h = float(self.h)
        masks.align()
        masks.memory.memory.mul_(masks.flat.raw.memory.abs() >= h)
        left = masks.counts()
        dropped = sum(before) - sum(left)
        if dropped < (1 - NEAR) * self.wanted:
            self.h.mul_(2)
        elif dropped > (1 + NEAR) * self.wanted:
            self.h.div_(2)
        room = [mask.numel() - count for mask, count in zip(masks.values, left, strict=True)]
        scores = [torch.rand(m.shape, generator=generator, device=m.device) for m in masks.values]
        masks.apply()
        masks.grow(shared_out(dropped, [float(n) for n in left], room), scores)
        if self.optimizer is not None:
            self.mask_momentum()

    def settled(self, moment: Moment) -> bool:
        """Say whether the masks stay."""
        return moment.share >= self.options.stop

    def tensors(self) -> dict[str, Tensor]:
        """Masks and threshold."""
        return {**super().tensors(), "h": self.h}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the same back."""
        super().load_tensors(tensors)
        self.h.copy_(tensors["h"])
