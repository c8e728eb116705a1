"""Learned soft thresholds, S(W, s) = sign(W)·max(|W| − g(s), 0), as in STR for any g."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from prunec.sparsity.flat import softshrink
from prunec.sparsity.schedules import cubic
from prunec.sparsity.straight_through import Projected
from prunec.training.method import Moment
from prunec.wording import percent

Granularity = Literal["layer", "global", "filter"]

SHIFTS = 400  # in a training: so often the density is looked at
GAIN, LARGEST = 0.2, 0.25  # of a shift: by the density's logarithm, and at most
BITES = -12.0  # a threshold of 6e-6: where a shift begins
SETTLED, REPORTED = (
    0.01,
    0.005,
)  # off in density: where a training may end, and what the report says


class Thresholding(Protocol):
    """Options of a pass that learns thresholds: initial s, target sparsity and ramp."""

    @property
    def s_init(self) -> float:
        """Initial value of s."""

    @property
    def sparsity(self) -> float:
        """Target sparsity; 0: none."""

    @property
    def ramp(self) -> float:
        """Share of the training at which the target is reached."""


class SoftThreshold(Projected):
    """The thresholds of a network while it trains.

    Attributes:
        s: one number per layer, per filter, or in all, which the optimizer moves.
        sparsity: what they are steered to; 0: they are not.
    """

    def __init__(
        self,
        options: Thresholding,
        kernels: Mapping[str, Tensor],
        granularity: Granularity = "layer",
    ) -> None:
        super().__init__(kernels)
        self.granularity = granularity
        self.sparsity, self.ramp = options.sparsity, options.ramp
        self.parts = [w.shape[0] if granularity == "filter" else 1 for w in self.weights]
        count = 1 if granularity == "global" else sum(self.parts)
        self.s = nn.Parameter(self.weights[0].new_full((count,), options.s_init))
        self.wanted, self.due = self.weights[0].detach().new_zeros(2).unbind()

    @abstractmethod
    def g(self, s: Tensor) -> Tensor:
        """Return the threshold of s: positive, increasing."""

    @abstractmethod
    def g_slope(self, s: Tensor) -> Tensor:
        """Return g′(s)."""

    def thresholds(self) -> list[Tensor]:
        """Return g(s) of each kernel: [1], or [O] with one per filter."""
        g = self.g(self.s.detach())
        if self.granularity == "global":
            return [g] * len(self.weights)
        return list(torch.split(g, self.parts))

    def prepare(self, moment: Moment) -> None:
        """Write what a step depends on into tensors, for recorded steps."""
        self.wanted.fill_(self._wanted(moment))
        self.due.fill_(self._is_due(moment))

    def project(self) -> None:
        """W̃ = S(W, s)."""
        kernels = self.kernels
        if self.granularity == "filter" and kernels.flat.at_once:
            raw, shown = kernels.flat.raw.memory, kernels.room.memory
            bounds = kernels.filters().spread(self.g(self.s.detach()))
            torch.clamp(raw, -bounds, bounds, out=shown)
            torch.sub(raw, shown, out=shown)
            return
        if self.granularity == "filter":
            for raw, g, shown in zip(kernels.raw, self.thresholds(), kernels.shown, strict=True):
                bound = g.view(-1, *[1] * (raw.dim() - 1))
                torch.clamp(raw, -bound, bound, out=shown)
                torch.sub(raw, shown, out=shown)
            return
        bounds = torch.cat(self.thresholds())
        for span in kernels.flat.spans:
            softshrink(span, kernels.flat.raw.memory, bounds[span.kernels], kernels.room.memory)

    @torch.no_grad()
    def gradient(self, moment: Moment) -> None:
        """Mask the kernels' gradient, and sum up that of each threshold."""
        kernels = self.kernels
        kernels.hide()
        total = self._slopes(kernels.gradients())
        if self.granularity == "global":
            total = total.sum().view(1)
        self.s.grad = -self.g_slope(self.s) * total

    def parameters(self) -> dict[str, nn.Parameter]:
        """See :meth:`Method.parameters`: s, under a name that no module can have."""
        return {"method:s": self.s}

    def _slopes(self, gradients: list[Tensor]) -> Tensor:
        """Mask the gradients; return Σ sign(W̃)·∂L/∂W̃ over the weights of each threshold.

        Leaves the signs in the memory of what was shown.
        """
        if self.kernels.flat.at_once:
            return self._slopes_at_once(gradients)
        sums = []
        for shown, gradient, parts in zip(self.kernels.shown, gradients, self.parts, strict=True):
            torch.ops.aten.hardshrink_backward.grad_input(gradient, shown, 0, grad_input=gradient)
            sums.append(_dots(shown.sign_(), gradient, parts))
        return torch.cat(sums)

    def _slopes_at_once(self, gradients: list[Tensor]) -> Tensor:
        flat, signs = self.kernels.flat, self.kernels.room.memory.sign_()
        products = flat.room()
        torch.abs(signs, out=products.memory)
        torch._foreach_mul_(gradients, products.parts)
        torch._foreach_copy_(products.parts, gradients)
        products.memory.mul_(signs)
        if self.granularity == "filter":
            return self.kernels.filters().sums(products.memory).to(self.s.dtype)
        (span,) = flat.spans
        return span.sums(span.of(products.memory)).to(self.s.dtype)

    def after_step(self, moment: Moment) -> None:
        """Shift s where a sparsity is asked for."""
        if self.sparsity and self._shifts_at_once():
            self._shift_at_once()
        elif self.sparsity and self._is_due(moment):
            self.shift(moment)

    def kind(self, moment: Moment) -> Hashable | None:
        """Return one kind for all steps but those that read the density."""
        looks = self.sparsity and not self._shifts_at_once()
        return None if looks and self._is_due(moment) else ()

    def _is_due(self, moment: Moment) -> bool:
        every = max(1, moment.epochs * moment.steps_per_epoch // SHIFTS)
        return moment.number % every == every - 1

    @torch.no_grad()
    def shift(self, moment: Moment) -> None:
        """Move s so that the density approaches the schedule's."""
        # gradient() left the signs of W̃ in the memory of what was shown
        nonzero = sum(self.kernels.flat.counts(self.kernels.room))
        density = max(nonzero, 1) / sum(w.numel() for w in self.weights)
        self.s.clamp_(min=BITES)
        shift = GAIN * math.log(density / self._wanted(moment))
        self.s.add_(min(max(shift, -LARGEST), LARGEST))

    def _wanted(self, moment: Moment) -> float:
        """Return the density of the schedule."""
        return 1 - self.sparsity * cubic(moment.share / self.ramp)

    def _shifts_at_once(self) -> bool:
        own = type(self).shift is SoftThreshold.shift
        return own and self.kernels.flat.at_once

    @torch.no_grad()
    def _shift_at_once(self) -> None:
        """Do the same without waiting for the device; s stays where no shift is due."""
        flat, signs = self.kernels.flat, self.kernels.room.memory
        nonzero = torch.cat([span.nonzero(signs) for span in flat.spans]).sum()
        density = nonzero.clamp(min=1) / sum(flat.sizes)
        shift = (GAIN * torch.log(density / self.wanted)).clamp(-LARGEST, LARGEST)
        moved = self.s.clamp(min=BITES) + shift
        self.s.copy_(torch.where(self.due > 0, moved, self.s))

    def after_epoch(self, moment: Moment) -> dict[str, Any]:
        """Return sparsity, densities and thresholds."""
        metrics = super().after_epoch(moment)
        layers = [name.removesuffix(".weight") for name in self.names]
        means = torch.stack([g.mean() for g in self.thresholds()]).tolist()
        metrics["layers"]["threshold g(s)"] = dict(zip(layers, means, strict=True))
        return metrics

    def settled(self, moment: Moment) -> bool:
        """Say whether the schedule of the sparsity has ended, and the density is near its end."""
        if not self.sparsity:
            return True
        return moment.share >= self.ramp and self.is_near(self.density(), self.goal(), SETTLED)

    def is_near(self, density: float, wanted: float, most: float) -> bool:
        """Say whether densities are ``most`` apart, and no more than a quarter of the one wanted.

        No whole number of weights comes nearer than a half.
        """
        return abs(density - wanted) <= max(min(most, wanted / 4), 0.501 / self.counted())

    def density(self) -> float:
        """Return the share of all weights that is not zero."""
        return int(torch.stack(self.nonzero()).sum()) / self.counted()

    def asked(self) -> float:
        """Return the density that is asked for."""
        return 1 - self.sparsity

    def goal(self) -> float:
        """Return the density that shifts lead to in the end."""
        return self.asked()

    def remark(self, density: float) -> str:
        """See :meth:`MaskMethod.remark`."""
        if not self.sparsity or self.is_near(density, self.asked(), REPORTED):
            return ""
        missed = f"asked {percent(self.sparsity, 2)}, reached {percent(1 - density, 2)}"
        return f"{missed}: {self.why_missed(density)}"

    def why_missed(self, density: float) -> str:
        """Return why a density is not what was asked for, and what mends it."""
        if density < self.asked():
            return "thresholds rise by learning too; train for more steps, or lower s_init"
        return "too few steps for thresholds to rise; train for more, or let s_init be nearer to 0"

    def tensors(self) -> dict[str, Tensor]:
        """Return the thresholds."""
        return {"s": self.s.detach()}

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the thresholds."""
        self.s.copy_(tensors["s"])


def _dots(a: Tensor, b: Tensor, parts: int) -> Tensor:
    """Return Σ a·b of each filter, or of all; in one pass if both have the same layout."""
    if parts > 1:
        return (a * b).sum(tuple(range(1, a.dim())))
    if a.stride() != b.stride() or not _dense(a):
        return (a * b).sum().view(1)
    flat = [x.as_strided((x.numel(),), (1,)) for x in (a, b)]
    return torch.dot(*flat).view(1)


def _dense(a: Tensor) -> bool:
    """Whether a tensor fills its memory without gaps, as kernels do in both layouts."""
    return a.is_contiguous() or a.is_contiguous(memory_format=torch.channels_last)
