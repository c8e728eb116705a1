"""train-snfs: Sparse Networks From Scratch, sparse momentum (Dettmers & Zettlemoyer 2019).

A network that is sparse from the start. The momentum m of every weight is kept, masked ones
included, by the optimizer too: weights alone are masked, after every step, so that what grows
starts at 0 and moves with its momentum at once. Between epochs each kernel drops the share p of its
smallest |w|, p falling as a cosine; what dropped everywhere is shared out in proportion to the
layers' mean |m| over active weights, and grows where |m| is largest; arXiv 1907.04840.

``surplus`` says what happens to what a full layer cannot take. With ``momentum`` the other layers
share it by their mean |m|. ``equal`` is the authors' code: a layer grows to 0.99 of its room at
most, all layers get equal parts of the rest, and one that is more than 80 % dense and whose mean
|m| is above the average drops no more than its sparsity; what drops is rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from prunec.sparsity.masked import Masked
from prunec.sparsity.schedules import cosine
from prunec.sparsity.spread import shared_equally, shared_out
from prunec.sparsity.training_pass import MaskMethod, SpreadTraining, mask_generator
from prunec.training.context import Context
from prunec.training.method import Moment

LAST = 0.005  # the share that drops at the end
NEARLY_DENSE = 0.2  # the sparsity of a layer below which less drops: the authors'
SHARED = {"equal": shared_equally, "momentum": shared_out}


@dataclass(frozen=True)
class TrainSnfs(SpreadTraining):
    """Sparse from the start; weights grow where momentum is large."""

    fraction: Annotated[
        float, Field(gt=0, lt=1, description="share of the weights left that is exchanged at first")
    ] = 0.5
    momentum: Annotated[
        float, Field(ge=0, lt=1, description="of the gradients that say where weights grow")
    ] = 0.9
    surplus: Annotated[
        Literal["equal", "momentum"],
        Field(
            description="how layers share what a full one cannot take: by momentum, or all alike, "
            "as the authors do"
        ),
    ] = "momentum"

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """See :meth:`SparseTraining.method`."""
        return Snfs(self, kernels, mask_generator(context))


class Snfs(Masked):
    """Masks that follow the momentum.

    Attributes:
        m: the momentum of every weight, of its dense gradient.
    """

    def __init__(
        self, options: TrainSnfs, kernels: Mapping[str, Tensor], generator: torch.Generator
    ) -> None:
        super().__init__(kernels)
        self.options = options
        self.masks.draw(options.counts(self.names, self.masks.shapes), generator)
        self.masks.apply()
        self.m = [torch.zeros_like(w, requires_grad=False) for w in self.weights]

    def kind(self, moment: Moment) -> Hashable | None:
        """Steps that leave the masks are alike."""
        return None if moment.epoch and not moment.step else ()

    def before_forward(self, moment: Moment) -> None:
        """Move weights when an epoch begins: the one before was evaluated as it had learned."""
        super().before_forward(moment)
        if moment.epoch and not moment.step:
            self.move(cosine(moment.share, self.options.fraction, LAST))

    @torch.no_grad()
    def gradient(self, moment: Moment) -> None:
        """Let m ← μm + ∂L/∂W, masked weights included; the gradient stays dense."""
        torch._foreach_mul_(self.m, self.options.momentum)
        torch._foreach_add_(self.m, self.masks.gradients())

    def moving(self, gradients: Mapping[Tensor, Tensor]) -> list[Tensor]:
        """Return the gradients that move weights: masked weights' are left out of the norm.

        At 99 % zeros they would be most of it.
        """
        masks = dict(zip(self.weights, self.masks.values, strict=True))
        known = [weight for weight in masks if weight in gradients]
        active = torch._foreach_mul([gradients[w] for w in known], [masks[w] for w in known])
        return [*active, *(grad for weight, grad in gradients.items() if weight not in masks)]

    @torch.no_grad()
    def move(self, share: float) -> None:
        """Drop the share of each kernel, and grow as many where the momentum is."""
        before = self.masks.counts()
        size = [m.abs() for m in self.m]
        pairs = zip(size, self.masks.values, strict=True)
        # clamp: a kernel without active weights has a mean of 0, not 0/0.
        means = torch.stack([(a * m).sum() / m.sum().clamp(min=1) for a, m in pairs]).tolist()
        dropped = self.dropped(share, before, means)
        self.masks.drop_smallest(dropped)
        room = [
            # What dropped just now is room again.
            w.numel() - count + gone
            for w, count, gone in zip(self.weights, before, dropped, strict=True)
        ]
        grown = SHARED[self.options.surplus](sum(dropped), means, room)
        self.masks.grow(grown, size)
        self.masks.apply()

    def dropped(self, share: float, counts: Sequence[int], means: Sequence[float]) -> list[int]:
        """Return how many weights of each kernel drop.

        Args:
            share: of the active weights.
            counts: how many are active.
            means: of |m| over them.
        """
        if self.options.surplus == "momentum":
            return [int(share * count) for count in counts]
        average = sum(means) / len(means)
        counts_dropped = []
        for weight, count, mean in zip(self.weights, counts, means, strict=True):
            sparsity = 1 - count / weight.numel()
            slower = sparsity < NEARLY_DENSE and mean > average
            counts_dropped.append(math.ceil((min(share, sparsity) if slower else share) * count))
        return counts_dropped

    def tensors(self) -> dict[str, Tensor]:
        """Masks and momentum."""
        pairs = zip(self.names, self.m, strict=True)
        return {**super().tensors(), **{f"m.{name}": value for name, value in pairs}}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the same back."""
        super().load_tensors(tensors)
        for name, value in zip(self.names, self.m, strict=True):
            value.copy_(tensors[f"m.{name}"])
