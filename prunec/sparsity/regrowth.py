"""Dynamic sparse training: at a constant number of weights, some drop and others grow.

At every ΔT steps, until ``stop`` of the training, each kernel drops the share
f(t) = α/2·(1 + cos(πt/T)) of its smallest active |w| and grows as many elsewhere.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from prunec.sparsity.masked import Masked
from prunec.sparsity.patterns.option import PatternedSpread
from prunec.sparsity.schedules import cosine
from prunec.training.method import Moment
from prunec.training.phases import Phases, until


@dataclass(frozen=True)
class RegrowthTraining(PatternedSpread):
    """Options of methods that drop and grow.

    Attributes:
        update_steps: ΔT, steps between two updates.
        fraction: α, the share that drops at first.
        stop: share of the training after which masks stay.
    """

    # ΔT = 100, α = 0.3 and ¾ of the training are RigL's (Evci et al. 2020).
    update_steps: Annotated[
        int, Field(ge=1, description="steps between two changes of the masks")
    ] = 100
    fraction: Annotated[
        float, Field(gt=0, lt=1, description="share of the weights left that is exchanged at first")
    ] = 0.3
    stop: Annotated[
        float, Field(gt=0, le=1, description="share of the training after which masks stay")
    ] = 0.75

    def phases(self, epochs: int) -> Phases:
        """See :meth:`Training.phases`."""
        return until(epochs, "fixed masks", regrow=self.stop)


class Regrowth(Masked):
    """Drops the smallest and grows those of the largest score."""

    def __init__(
        self, options: RegrowthTraining, kernels: Mapping[str, Tensor], generator: torch.Generator
    ) -> None:
        super().__init__(kernels, options.restriction())
        self.options = options
        self.masks.draw(options.counts(self.names, self.masks.shapes), generator)
        self.masks.apply()

    @abstractmethod
    def scores(self, moment: Moment) -> Sequence[Tensor]:
        """Return scores of the weights: inactive ones of largest absolute score grow."""

    def is_due(self, moment: Moment) -> bool:
        """Say whether this step is one of the updates; what grew in the last would stay 0."""
        number = moment.number
        due = number > 0 and number % self.options.update_steps == 0
        return due and self.regrows(moment) and not moment.last

    def regrows(self, moment: Moment) -> bool:
        """Say whether masks still change."""
        return moment.share < self.options.stop

    def kind(self, moment: Moment) -> Hashable | None:
        """Steps that leave the masks are alike."""
        return None if self.is_due(moment) else ()

    def share(self, moment: Moment) -> float:
        """f(t), the share of active weights that drops."""
        return cosine(moment.share / self.options.stop, self.options.fraction)

    def dropped(self, share: float, counts: Sequence[int]) -> list[int]:
        """Return how many weights of each kernel drop, of so many active ones."""
        return [int(share * count) for count in counts]

    @torch.no_grad()
    def gradient(self, moment: Moment) -> None:
        """Update the masks in place of a step of the weights; else mask the gradients."""
        if not self.is_due(moment):
            super().gradient(moment)
            return
        scores = self.scores(moment)
        share = self.share(moment)
        counts = self.dropped(share, self.masks.counts())
        self.masks.drop_smallest(counts)
        self.masks.grow(counts, scores)
        self.masks.apply()
        self.mask_momentum()
        self.skip_step()

    def settled(self, moment: Moment) -> bool:
        """Say whether the masks stay."""
        return moment.share >= self.options.stop
