"""train-str: Soft Threshold weight Reparameterization (Kusupati et al., ICML 2020, 2002.03231).

    W̃ = S(W, s) = sign(W)·max(|W| − g(s), 0),      g = sigmoid

with one learned s a layer (or one in all, or one a filter). By the chain rule alone

    ∂L/∂W = 1[|W| > g(s)]·∂L/∂W̃,
    ∂L/∂s = −g'(s)·Σ_{|W|>g(s)} sign(W)·∂L/∂W̃,    g' = g·(1 − g),

and s has the weights' decay λ: while s ≪ −88, g underflows and s moves by decay alone, so λ and the
start s_init decide how sparse the network becomes, and its layers share the sparsity as they learn.
s is moved by SGD with the recipe's momentum, whatever moves the weights.

Ours, not the paper's: ``sparsity``. Where it is given, all s are shifted together, up to
``SHIFTS`` times, so that the density follows d(p) = 1 − sparsity·(1 − (1 − p)³) until ``ramp`` of
the training, and stays; what the layers learned of their differences stays too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from prunec.sparsity.kernels import sparse_kernels
from prunec.sparsity.schedules import cubic
from prunec.sparsity.straight_through import Projected
from prunec.sparsity.training_pass import MaskMethod, SparseTraining
from prunec.training.context import Context
from prunec.training.loop import Moment

SHIFTS = 400  # in a training: so often the density is looked at
GAIN, LARGEST = 0.2, 0.25  # of a shift: by the density's logarithm, and at most
BITES = -12.0  # a threshold of 6e-6: where a shift begins


@dataclass(frozen=True)
class TrainStr(SparseTraining):
    """Learn a threshold for each layer; the sparsity follows, or is steered."""

    s_init: float = -3200.0
    granularity: Literal["layer", "global", "filter"] = "layer"
    dense: tuple[str, ...] = ()
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ramp: Annotated[float, Field(gt=0, le=1)] = 0.75

    def kernels(self, module: nn.Module) -> dict[str, Tensor]:
        """See :meth:`SparseTraining.kernels`."""
        return sparse_kernels(module, self.dense)

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """See :meth:`SparseTraining.method`."""
        train = context.recipe.train
        return Str(
            self,
            kernels,
            weight_decay=train.weight_decay,
            momentum=float(dict(train.optimizer).get("momentum", 0.9)),
        )


class Str(Projected):
    """The thresholds of a network while it trains.

    Attributes:
        s: one number a layer, a filter, or in all; float32.
    """

    name = "train-str"

    def __init__(
        self,
        options: TrainStr,
        kernels: Mapping[str, Tensor],
        *,
        weight_decay: float,
        momentum: float,
    ) -> None:
        super().__init__(kernels)
        self.options, self.weight_decay, self.momentum = options, weight_decay, momentum
        self.parts = [w.shape[0] if options.granularity == "filter" else 1 for w in self.weights]
        count = 1 if options.granularity == "global" else sum(self.parts)
        device = self.weights[0].device
        self.s = torch.full((count,), options.s_init, device=device)
        self.velocity = torch.zeros_like(self.s)
        self.slope = torch.zeros_like(self.s)

    def thresholds(self) -> list[Tensor]:
        """g(s) for each kernel: [1], or [O] where filters have their own."""
        g = torch.sigmoid(self.s)
        if self.options.granularity == "global":
            return [g] * len(self.weights)
        return list(torch.split(g, self.parts))

    def project(self) -> None:
        """W̃ = S(W, s)."""
        kernels = self.kernels
        if self.options.granularity == "filter":
            for raw, g, shown in zip(kernels.raw, self.thresholds(), kernels.shown, strict=True):
                bound = g.view(-1, *[1] * (raw.dim() - 1))
                torch.clamp(raw, -bound, bound, out=shown)
                torch.sub(raw, shown, out=shown)
            return
        bounds = torch.cat(self.thresholds()).tolist()
        for raw, bound, shown in zip(kernels.raw, bounds, kernels.shown, strict=True):
            torch.ops.aten.softshrink.out(raw, bound, out=shown)

    @torch.no_grad()
    def gradient(self, moment: Moment) -> None:
        """Mask the kernels' gradient, and sum up that of each threshold."""
        kernels = self.kernels
        kernels.hide()
        sums = []
        for shown, gradient, parts in zip(
            kernels.shown, kernels.gradients(), self.parts, strict=True
        ):
            torch.ops.aten.hardshrink_backward.grad_input(gradient, shown, 0, grad_input=gradient)
            sums.append(_dots(shown.sign_(), gradient, parts))
        total = torch.cat(sums)
        if self.options.granularity == "global":
            total = total.sum().view(1)
        g = torch.sigmoid(self.s)
        self.slope = -g * (1 - g) * total

    @torch.no_grad()
    def after_step(self, moment: Moment) -> None:
        """Move s: v ← μv + ∂L/∂s + λs, s ← s − ηv; shift it where a sparsity is asked for."""
        self.velocity.mul_(self.momentum).add_(self.slope).add_(self.s, alpha=self.weight_decay)
        self.s.sub_(self.velocity, alpha=moment.learning_rate)
        if self.options.sparsity and self._is_due(moment):
            self._shift(moment)

    def _is_due(self, moment: Moment) -> bool:
        every = max(1, moment.epochs * moment.steps_per_epoch // SHIFTS)
        return moment.number % every == every - 1

    def _shift(self, moment: Moment) -> None:
        """Bring the density nearer to what the schedule wants."""
        # gradient() left the signs of W̃ in the memory of what was shown
        found = torch.stack([torch.count_nonzero(signs) for signs in self.kernels.shown])
        density = max(int(found.sum()), 1) / sum(w.numel() for w in self.weights)
        wanted = 1 - self.options.sparsity * cubic(moment.share / self.options.ramp)
        self.s.clamp_(min=BITES)
        shift = GAIN * math.log(density / wanted)
        self.s.add_(min(max(shift, -LARGEST), LARGEST))

    def after_epoch(self, moment: Moment) -> dict[str, Any]:
        """Sparsity, densities and thresholds."""
        metrics = super().after_epoch(moment)
        layers = [name.removesuffix(".weight") for name in self.names]
        means = torch.stack([g.mean() for g in self.thresholds()]).tolist()
        metrics["layers"]["threshold g(s)"] = dict(zip(layers, means, strict=True))
        return metrics

    def settled(self, moment: Moment) -> bool:
        """Say whether the schedule of the sparsity has ended."""
        return not self.options.sparsity or moment.share >= self.options.ramp

    def tensors(self) -> dict[str, Tensor]:
        """The thresholds and their velocity."""
        return {"s": self.s, "velocity": self.velocity}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the same back."""
        self.s.copy_(tensors["s"])
        self.velocity.copy_(tensors["velocity"])


def _dots(a: Tensor, b: Tensor, parts: int) -> Tensor:
    """Σ a·b of each filter, or of all; one pass over memory where both lie alike."""
    if parts > 1:
        return (a * b).sum(tuple(range(1, a.dim())))
    if a.stride() != b.stride() or not _dense(a):
        return (a * b).sum().view(1)
    flat = [x.as_strided((x.numel(),), (1,)) for x in (a, b)]
    return torch.dot(*flat).view(1)


def _dense(a: Tensor) -> bool:
    """Whether a tensor fills its memory without gaps, as kernels do in both layouts."""
    return a.is_contiguous() or a.is_contiguous(memory_format=torch.channels_last)
