"""train-east: Extreme Adaptive Sparse Training (Li et al., TMLR 2025, 2411.13545).

Three tricks before, and beside, dynamic sparse training; d = 1 − sparsity.

DyReLU phasing: every ReLU is DyReLU-B, blended to ReLU by β: 1 until ``dyrelu_from`` of the
training, falling evenly to 0 at ``dyrelu_until``. The units are dense and not counted; from
``dyrelu_from`` on they do not learn.

Weight sharing: in each stage the first r = ``own_blocks`` blocks own their kernels; a later one
takes those of block r − 1, each use with a gain of its own, at first from U(0, 1). The shared
network has as many weights left as the unshared one would: d_adj = d·N_total/N_unique.

Cyclic sparsity: ``cycles`` times the density goes

    d(p) = d_min + (d_max − d_min)·½(1 − cos 2πp),    d_min = d_adj,    d_max = peak·d_min,

along p, the place in the cycle. At an update each kernel keeps its ERK count of the largest |w|, or
grows to it where |∂L/∂W| is largest.

After the cycles: RigL with in-time over-parameterisation, rare updates of a large share f(t), a
cosine from ½ to 0.005 over all the training. Momentum is masked as weights are.

Where text and published code differ: β falls by the step, not by the epoch; DyReLU is DyReLU while
β = 1; updates take the place of a step of the weights; densities above 1 are solved again.

Published versions of the authors' code can be had, each by its option: the density of every layer
clamped from below (``layer_floor`` = 0.001; ``layer_floor_share`` = 0.7 or 0.01 of the density
asked for), which keeps more weights than are asked for; plain ReLU while β = 1 (``dyrelu_acts`` =
"fading"); units that learn as long as they act, as freezing them never came about
(``dyrelu_learns`` = "always"), or stay as they were drawn (``"never"``).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.contract import Remarks
from prunec.errors import PassError
from prunec.passes._east import East, Rebuilt
from prunec.seeding import seeded
from prunec.sparsity.dyrelu import phasing_of
from prunec.sparsity.kernels import sparse_kernels
from prunec.sparsity.sharing import reuses, share
from prunec.sparsity.spread import SPREADS, clamped
from prunec.sparsity.training_pass import MASKS, MaskMethod, SparseTraining, mask_generator
from prunec.training.context import Context
from prunec.training.loop import fit
from prunec.training.phases import Phases, until
from prunec.wording import percent

SHARING, UNITS = MASKS + 1, MASKS + 2  # what seeds are derived for


@dataclass(frozen=True)
class TrainEast(SparseTraining):
    """Extreme sparsity: DyReLU phasing, shared kernels, cycles."""

    sparsity: Annotated[
        float, Field(ge=0, lt=1, description="share of the weights that end as zero")
    ]
    spread: Annotated[
        Literal["uniform", "er", "erk"], Field(description="how it is shared by the layers")
    ] = "erk"
    dense: Annotated[
        tuple[str, ...], Field(description="names of layers that stay whole; * stands for any text")
    ] = ()
    # The authors' e_s = E/4 and e_t = E/2 − 1 of E = 250 epochs are 62.5 and 124: DyReLU is gone
    # before the learning rate first drops, at 125.
    dyrelu_from: Annotated[
        float, Field(ge=0, le=1, description="share of the training from which DyReLU fades")
    ] = 0.25
    dyrelu_until: Annotated[
        float,
        Field(ge=0, le=1, description="share of the training at which it is ReLU; 0: no DyReLU"),
    ] = 0.496
    dyrelu_acts: Annotated[
        Literal["at once", "fading"],
        Field(
            description="when DyReLU first acts: at once, as in the paper, or as it begins to fade"
        ),
    ] = "at once"
    dyrelu_learns: Annotated[
        Literal["before", "always", "never"],
        Field(
            description="when DyReLU's units learn: before it fades, as in the paper, as long as "
            "they act, or never"
        ),
    ] = "before"
    layer_floor: Annotated[
        float,
        Field(ge=0, le=1, description="density below which no layer goes; 0: the total is exact"),
    ] = 0.0
    layer_floor_share: Annotated[
        float,
        Field(ge=0, le=1, description="and the same as a share of the density asked for"),
    ] = 0.0
    own_blocks: Annotated[
        int,
        Field(
            ge=0, description="first blocks of a stage that own their kernels; 0: nothing is shared"
        ),
    ] = 2
    cycles: Annotated[int, Field(ge=0, description="how often the density rises and falls")] = 2
    # The authors' cycles take 50 of 250 epochs each.
    cycle: Annotated[
        float, Field(gt=0, le=1, description="length of one cycle, as a share of the training")
    ] = 0.2
    peak: Annotated[
        float, Field(ge=1, description="times the lowest density, at the height of a cycle")
    ] = 3.0
    cycle_steps: Annotated[
        int, Field(ge=1, description="steps between two changes of the masks, in the cycles")
    ] = 100
    update_steps: Annotated[
        int, Field(ge=1, description="steps between two changes of the masks, after them")
    ] = 4000
    fraction: Annotated[
        float, Field(gt=0, lt=1, description="share of the weights left that is exchanged at first")
    ] = 0.5
    fraction_end: Annotated[float, Field(ge=0, lt=1, description="and at last")] = 0.005

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.cycles * self.cycle > 1:
            raise PassError(
                f"train-east: {self.cycles} cycles of {self.cycle:g} of the training do not fit "
                "into it",
                remedy="Lower cycles or cycle: their product is at most 1.",
            )
        if self.dyrelu_until and self.dyrelu_from > self.dyrelu_until:
            raise PassError(
                f"train-east: dyrelu_from = {self.dyrelu_from:g} is after "
                f"dyrelu_until = {self.dyrelu_until:g}",
                remedy="Lower dyrelu_from, or train without DyReLU: dyrelu_until = 0.",
            )
        if self.spread != "erk" and (self.layer_floor or self.layer_floor_share):
            raise PassError(
                f"train-east: layer_floor and layer_floor_share are of ERK, spread is "
                f"{self.spread!r}",
                remedy='Set spread = "erk", or leave the floor out.',
            )

    def phases(self, epochs: int) -> Phases:
        """See :meth:`Training.phases`."""
        return until(epochs, "regrow", cycles=self.cycles * self.cycle)

    def kernels(self, module: nn.Module) -> dict[str, Tensor]:
        """See :meth:`SparseTraining.kernels`."""
        return sparse_kernels(module, self.dense)

    def counts(self, shapes: Sequence[Sequence[int]], density: float) -> list[int]:
        """Return how many weights of each kernel stay at a density of all."""
        floor = max(self.layer_floor, self.layer_floor_share * density)
        if floor:
            return clamped(shapes, min(1.0, density), floor)
        return SPREADS[self.spread](shapes, min(1.0, density))

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """Cyclic sparsity and RigL-ITOP alone."""
        total = sum(kernel.numel() for kernel in kernels.values())
        method: MaskMethod = East(self, kernels, total, mask_generator(context))
        return method

    def require_possible(self, artifact: Artifact, context: Context) -> None:
        """See :meth:`SparseTraining.require_possible`; the network is rebuilt first."""
        self._require_interpreted(context)
        module = copy.deepcopy(artifact.module).eval()
        rebuilt = self.rebuild(module, artifact.example, context.recipe.seed)
        cpu = replace(context, device=torch.device("cpu"))
        rebuilt.method(self, module, mask_generator(cpu))

    def _require_interpreted(self, context: Context) -> None:
        if self.dyrelu_until and context.recipe.train.compile:
            raise PassError(
                "train-east: a network whose ReLUs are DyReLU for a time cannot be compiled",
                remedy="Set train.compile = false, or pass.dyrelu_until = 0.",
            )

    def train(self, artifact: Artifact, context: Context) -> tuple[Artifact, Remarks]:
        """See :meth:`SparseTraining.train`; kernels that blocks share are tied in the result."""
        self._require_interpreted(context)
        module = copy.deepcopy(artifact.module).eval()
        rebuilt = self.rebuild(module, artifact.example, context.recipe.seed)
        module.to(context.device)
        method = rebuilt.method(self, module, mask_generator(context))
        history = fit(module, method, context)
        method.finish()
        rebuilt.restore(module)
        result, remarks = self.result(replace(artifact, ties=rebuilt.ties), module, method, history)
        return result, self.with_counts(remarks, rebuilt)

    def with_counts(self, remarks: Remarks, rebuilt: Rebuilt) -> Remarks:
        """Return remarks that also say what is shared, and what trained and does not ship."""
        if self.own_blocks:
            note = f"{len(rebuilt.shared)} kernels are those of another block"
            remarks = replace(remarks, notes=(*remarks.notes, note))
        if self.layer_floor or self.layer_floor_share:
            meant = round((1 - self.sparsity) * rebuilt.total)
            note = f"a floor of the layers' densities keeps more than the {meant:,} weights meant"
            remarks = replace(remarks, notes=(*remarks.notes, note))
        phasing = rebuilt.phasing
        if phasing is None:
            return remarks
        count = sum(parameter.numel() for parameter in phasing.units.parameters())
        gone = percent(self.dyrelu_until, 0)
        learned = {
            "before": f"learned until {percent(self.dyrelu_from, 0)} of the training",
            "always": "learned as long as they acted",
            "never": "stayed as they were drawn",
        }[self.dyrelu_learns]
        note = f"{count:,} parameters of DyReLU {learned} and were gone at {gone}"
        return replace(
            remarks,
            notes=(*remarks.notes, note),
            details={**remarks.details, "dyrelu_params": count},
        )

    def rebuild(self, module: nn.Module, example: tuple[Tensor, ...], seed: int) -> Rebuilt:
        """Let kernels be shared and ReLU be DyReLU, in place; on the CPU, in eval mode."""
        kernels = self.kernels(module)
        total = sum(kernel.numel() for kernel in kernels.values())
        reusable = reuses(module, example, self.own_blocks) if self.own_blocks else []
        shared = [one for one in reusable if one.kernels <= kernels.keys()]  # not what stays dense
        with seeded(seed, UNITS):
            phasing = phasing_of(module, example) if self.dyrelu_until else None
        if phasing:
            phasing.waits = self.dyrelu_acts == "fading"
        with seeded(seed, SHARING):
            ties = share(module, shared, torch.rand(len(shared)))
        if phasing:
            phasing.install(module)
        names = tuple(name for name in kernels if name not in ties)
        return Rebuilt(total, names, tuple(shared), ties, phasing)
