"""train-st3: straight-through soft thresholds (Vanderschueren & De Vleeschouwer, WACV 2023).

    W̃ = c ⊙ S(W, τ) = c ⊙ sign(W)·max(|W| − τ, 0),      ∂L/∂W ← ∂L/∂W̃, to all weights,

arXiv 2212.01076. τ is that quantile of |W| over all kernels together which leaves the sparsity
s(p) = s_f·(1 − (1 − p)³), p from ``start`` to ``end`` of the training. ST-3σ (``scaled``) measures
|W| in units of 1/√(Σ sides of the kernel), which evens the layers out. Each filter is scaled up by
what the mask M took away, as the authors' code has it:

    c = 1.01/(κ + 0.01),      κ = (mean(M·|W|) + 10⁻⁶)/(mean |W| + 10⁻⁶).

τ and c are found anew at every step, as the authors do; ``update_steps`` does so less often, and
always before the network is evaluated or ships.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from prunec.errors import PassError
from prunec.sparsity.flat import softshrink
from prunec.sparsity.kernels import sparse_kernels
from prunec.sparsity.largest import bounds_of_largest
from prunec.sparsity.schedules import cubic, phase
from prunec.sparsity.straight_through import Projected
from prunec.sparsity.training_pass import MaskMethod, SparseTraining
from prunec.training.context import Context
from prunec.training.method import Moment
from prunec.training.phases import Phases, until

TINY, SOFT = 1e-6, 0.01  # the authors'


@dataclass(frozen=True)
class TrainSt3(SparseTraining):
    """Soft thresholds at a rising quantile; all weights learn."""

    sparsity: Annotated[
        float, Field(gt=0, lt=1, description="share of the weights that end as zero")
    ]
    criterion: Annotated[
        Literal["magnitude", "scaled"],
        Field(description="sizes of weights, or sizes beside their layer's, are compared"),
    ] = "magnitude"
    dense: Annotated[
        tuple[str, ...], Field(description="names of layers that stay whole; * stands for any text")
    ] = ()
    start: Annotated[
        float, Field(ge=0, lt=1, description="share of the training at which pruning begins")
    ] = 0.05
    end: Annotated[
        float,
        Field(gt=0, le=1, description="share of the training after which the sparsity is reached"),
    ] = 0.5
    update_steps: Annotated[
        int, Field(ge=1, description="steps between two choices of thresholds")
    ] = 1

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.start >= self.end:
            raise PassError(
                f"train-st3: start = {self.start:g} is not before end = {self.end:g}",
                remedy="Both are shares of the training: start = 0.05, end = 0.5.",
            )

    def phases(self, epochs: int) -> Phases:
        """See :meth:`Training.phases`."""
        return until(epochs, dense=self.start, prune=self.end)

    def kernels(self, module: nn.Module) -> dict[str, Tensor]:
        """See :meth:`SparseTraining.kernels`."""
        return sparse_kernels(module, self.dense)

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """See :meth:`SparseTraining.method`."""
        return St3(self, kernels)


class St3(Projected):
    """Thresholds and scales of a network while it trains.

    Attributes:
        sparsity: s(p), as of the last step; on the CPU.
        tau: τ, negative while nothing is masked.
        masking: whether anything is: known without a wait for the device.
        gone: how many weights are to be zero; ``left`` is the number of the others, on the device.
        scales: c of all filters, one kernel after the other.
    """

    def __init__(self, options: TrainSt3, kernels: Mapping[str, Tensor]) -> None:
        super().__init__(kernels)
        self.options = options
        self.total = sum(w.numel() for w in self.weights)
        scaled = options.criterion == "scaled"
        device = self.weights[0].device
        units = [1 / math.sqrt(sum(w.shape)) if scaled else 1.0 for w in self.weights]
        self.units = torch.tensor(units, dtype=torch.float64, device=device)
        self.sparsity = torch.zeros((), dtype=torch.float64)
        dtype = self.weights[0].dtype
        self.tau = torch.tensor(-1.0, dtype=dtype, device=device)
        self.masking, self.gone = False, 0
        self.left = torch.zeros(1, dtype=torch.long, device=device)
        filters = sum(len(w) for w in self.weights)
        self.scales = torch.ones(filters, dtype=dtype, device=device)

    def before_forward(self, moment: Moment) -> None:
        """Find τ and c when it is time; show W̃."""
        self.ready(moment)
        if self.is_due(moment):
            self.update()
        super().before_forward(moment)

    def is_due(self, moment: Moment) -> bool:
        """Say whether τ and c are found before this step."""
        return moment.number % self.options.update_steps == 0

    def prepare(self, moment: Moment) -> None:
        """Let the sparsity be that of the schedule."""
        options = self.options
        p = 1.0 if moment.reached(options.end) else phase(moment.share, options.start, options.end)
        self.sparsity.fill_(options.sparsity * cubic(p))
        self.aim()

    def aim(self) -> None:
        """Let the number of weights that are to be zero be that of the sparsity."""
        self.gone = round(float(self.sparsity) * self.total)
        self.left.fill_(self.total - self.gone)

    def kind(self, moment: Moment) -> Hashable | None:
        """Steps that find τ and c are alike, and those that do not, once something is masked."""
        self.prepare(moment)
        return self.is_due(moment), self.masking or self.gone > 0

    @torch.no_grad()
    def update(self) -> None:
        """Let τ be the quantile of |W|, and c what the filters lose by it."""
        self.kernels.fetch()
        if self.gone == 0:
            return
        self.masking = True
        flat, sizes = self.kernels.flat, self.kernels.room.memory
        torch.abs(flat.raw.memory, out=sizes)
        if self.options.criterion == "scaled":
            for span in flat.spans:
                span.of(sizes).div_(span.per_row(self.units[span.kernels].to(sizes.dtype)))
        self.tau.copy_(bounds_of_largest(flat.whole, sizes, self.left, self.tau.view(1))[0])
        # The bounds as the weights' own type: rounded otherwise, a weight at τ would count as kept.
        bounds = self.bounds().to(sizes.dtype)
        if flat.at_once:
            self.scales.copy_(self._scales_at_once(bounds))
            return
        pairs = zip(self.kernels.raw, bounds, strict=True)
        means = [_means(raw, bound) for raw, bound in pairs]
        self.scales.copy_(torch.cat([_scale(*of_kernel) for of_kernel in means]))

    def _scales_at_once(self, bounds: Tensor) -> Tensor:
        """Return c of all filters; `bounds` are of each kernel."""
        flat, sizes, filters = self.kernels.flat, self.kernels.room.memory, self.kernels.filters()
        torch.abs(flat.raw.memory, out=sizes)
        whole = filters.sums(sizes)
        (span,) = flat.spans
        own = span.of(sizes)
        own.mul_(own > span.per_row(bounds))
        return _scale(filters.sums(sizes) / filters.sizes, whole / filters.sizes)

    def bounds(self) -> Tensor:
        """τ in the units of each kernel, float64 [kernels]."""
        return self.units * self.tau

    def project(self) -> None:
        """W̃ = c ⊙ S(W, τ)."""
        raw, room = self.kernels.flat.raw.memory, self.kernels.room.memory
        if not self.masking:
            room.copy_(raw)
            return
        bounds = self.bounds()
        for span in self.kernels.flat.spans:
            softshrink(span, raw, bounds[span.kernels], room)
        if self.kernels.flat.at_once:
            room.mul_(self.kernels.filters().spread(self.scales))
            return
        scales = torch.split(self.scales, [len(w) for w in self.weights])
        for shown, scale in zip(self.kernels.shown, scales, strict=True):
            shown.mul_(scale.view(-1, *[1] * (shown.dim() - 1)))

    @contextmanager
    def shipping(self) -> Iterator[None]:
        """Evaluate the weights of now, which may be averages, at the sparsity of now.

        Training goes on with the τ and c of its own weights.
        """
        before = {name: value.clone() for name, value in self.tensors().items()}
        self.aim()
        self.update()
        try:
            with super().shipping():
                yield
        finally:
            self.load_tensors(before)

    def finish(self) -> None:
        """Let the kernels be W̃ at the sparsity asked for."""
        self.aim()
        self.update()
        super().finish()

    def settled(self, moment: Moment) -> bool:
        """Say whether a step was taken at the last sparsity."""
        return float(self.sparsity) >= self.options.sparsity

    def tensors(self) -> dict[str, Tensor]:
        """s(p), τ and c."""
        return {"sparsity": self.sparsity, "tau": self.tau, "scales": self.scales}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the same back."""
        self.sparsity.copy_(tensors["sparsity"])
        self.tau.copy_(tensors["tau"])
        self.masking = float(self.tau) >= 0
        self.scales.copy_(tensors["scales"])


def _means(raw: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean(M·|W|) and mean |W| of each filter, [O]."""
    sizes = raw.abs().flatten(1)
    return torch.where(sizes > tau, sizes, 0.0).mean(1), sizes.mean(1)


def _scale(kept: Tensor, whole: Tensor) -> Tensor:
    """Return c of filters by mean(M·|W|) and mean |W|."""
    return (1 + SOFT) / ((kept + TINY) / (whole + TINY) + SOFT)
