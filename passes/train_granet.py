"""train-granet: gradual pruning with zero-cost neuroregeneration (Liu et al., NeurIPS 2021).

From the density of the start (ERK, or dense) to s_f along s(p) = s_f + (s_i − s_f)·(1 − p)³: every
ΔT steps the smallest |w| of all kernels together are masked; then each kernel drops the share
f(t) of its smallest and grows as many where |∂L/∂W| is largest, as RigL does; arXiv 2106.10404.

The exchange ends with the ramp, its share falling to 0 by then. In the authors' code (``exchange =
"training"``) it goes on to the last step, its share along a cosine from ``fraction`` to 0.005 over
the whole training, rounded up in each kernel.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from prunec.sparsity.regrowth import Regrowth, RegrowthTraining
from prunec.sparsity.schedules import cosine, cubic
from prunec.sparsity.training_pass import MaskMethod, mask_generator
from prunec.training.context import Context
from prunec.training.method import Moment
from prunec.training.phases import Phases, until

LAST = 0.005  # the share that is exchanged at the end: the authors'


@dataclass(frozen=True)
class TrainGranet(RegrowthTraining):
    """Prune gradually over all layers; regrow weights by gradient."""

    spread: Annotated[
        Literal["uniform", "er", "erk"], Field(description="how the first masks share the sparsity")
    ] = "erk"  # of the start; densities would be of the end
    initial_sparsity: Annotated[
        float, Field(ge=0, lt=1, description="share of the weights that are zero at first")
    ] = 0.5
    fraction: Annotated[
        float, Field(gt=0, lt=1, description="share of the weights left that is exchanged")
    ] = 0.5
    stop: Annotated[
        float,
        Field(gt=0, le=1, description="share of the training after which the sparsity is reached"),
    ] = 0.75
    exchange: Annotated[
        Literal["training", "ramp"],
        Field(
            description="how long weights drop and grow: until stop, or to the last step, as the "
            "authors do"
        ),
    ] = "ramp"

    def counts(
        self, names: Sequence[str], shapes: Sequence[Sequence[int]], sparsity: float | None = None
    ) -> list[int]:
        """See :meth:`SpreadTraining.counts`; at first those of the start."""
        # A network that shall be denser than the usual start begins at what is asked for.
        start = min(self.initial_sparsity, self.sparsity)
        return super().counts(names, shapes, start if sparsity is None else sparsity)

    def phases(self, epochs: int) -> Phases:
        """See :meth:`Training.phases`."""
        return until(epochs, *(["regrow"] if self.is_long else []), prune=self.stop)

    @property
    def is_long(self) -> bool:
        """Whether weights are exchanged to the last step."""
        return self.exchange == "training"

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """See :meth:`SparseTraining.method`."""
        return Granet(self, kernels, mask_generator(context))


class Granet(Regrowth):
    """Fewer weights at every update, then as many others."""

    options: TrainGranet

    def regrows(self, moment: Moment) -> bool:
        """See :meth:`Regrowth.regrows`."""
        return self.options.is_long or super().regrows(moment)

    def share(self, moment: Moment) -> float:
        """See :meth:`Regrowth.share`."""
        if self.options.is_long:
            return cosine(moment.share, self.options.fraction, LAST)
        return super().share(moment)

    def dropped(self, share: float, counts: Sequence[int]) -> list[int]:
        """See :meth:`Regrowth.dropped`."""
        if self.options.is_long:
            return [math.ceil(share * count) for count in counts]
        return super().dropped(share, counts)

    def scores(self, moment: Moment) -> Sequence[Tensor]:
        """∂L/∂W, averaged over processes already; fewer weights are active from here on."""
        self.prune(moment.share / self.options.stop)
        return self.masks.gradients()

    def kind(self, moment: Moment) -> Hashable | None:
        """Steps that leave the masks are alike."""
        ends = moment.reached(self.options.stop) and not self.ended
        return None if ends else super().kind(moment)

    def before_forward(self, moment: Moment) -> None:
        """Reach the last sparsity when the ramp ends."""
        super().before_forward(moment)
        if moment.reached(self.options.stop) and not self.ended:
            self.prune(1.0)
            self.masks.apply()
            self.ended = True

    ended = False

    def settled(self, moment: Moment) -> bool:
        """Say whether the last sparsity was reached, at a step after the ramp."""
        return self.ended

    @torch.no_grad()
    def prune(self, p: float) -> None:
        """Mask the smallest |w| of all kernels beyond what the schedule allows at p."""
        options = self.options
        start = min(options.initial_sparsity, options.sparsity)
        sparsity = cubic(p, start, options.sparsity)
        # At most as many as are active: pruning grows none.
        wanted = min(round((1 - sparsity) * self.masks.total), sum(self.masks.counts()))
        self.masks.keep_largest_of_all(wanted, active=True)
