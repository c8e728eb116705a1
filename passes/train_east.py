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
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.contract import Remarks
from prunec.errors import PassError
from prunec.seeding import seeded
from prunec.sparsity.dyrelu import HELD, Phasing, phasing_of
from prunec.sparsity.kernels import sparse_kernels
from prunec.sparsity.masked import Masked
from prunec.sparsity.schedules import cosine, phase
from prunec.sparsity.sharing import Reuse, absorb_gains, reuses, share
from prunec.sparsity.spread import SPREADS, clamped
from prunec.sparsity.training_pass import MASKS, MaskMethod, SparseTraining, mask_generator
from prunec.training.context import Context
from prunec.training.loop import fit
from prunec.training.method import Moment
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
        return East(self, kernels, total, mask_generator(context))

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


@dataclass(frozen=True)
class Rebuilt:
    """A network as rebuilt for training.

    Attributes:
        total: weights of the unshared network that may be masked.
        names: kernels that remain.
        shared: convolutions that use another one's kernel.
        ties: replaced kernel → the kernel in its place.
        phasing: DyReLU in place of ReLU; None without.
    """

    total: int
    names: tuple[str, ...]
    shared: tuple[Reuse, ...]
    ties: Mapping[str, str]
    phasing: Phasing | None

    def method(self, options: TrainEast, module: nn.Module, generator: torch.Generator) -> East:
        """Return the method for the network, which is on its device."""
        kernels = {name: module.get_parameter(name) for name in self.names}
        return East(options, kernels, self.total, generator, self.phasing)

    def restore(self, module: nn.Module) -> None:
        """Take it away again, in place; what gains did goes into norms."""
        absorb_gains(module, self.shared)
        if self.phasing:
            delattr(module, HELD)


class East(Masked):
    """Masks along the cycles, then RigL-ITOP; DyReLU as long as it lasts.

    Attributes:
        total: weights of the unshared network.
        minimum: d_min.
    """

    retires = True

    def __init__(
        self,
        options: TrainEast,
        kernels: Mapping[str, Tensor],
        total: int,
        generator: torch.Generator,
        phasing: Phasing | None = None,
    ) -> None:
        super().__init__(kernels)
        self.options, self.total, self.phasing = options, total, phasing
        self.minimum = (1 - options.sparsity) * total / self.masks.total
        if self.minimum > 1:
            least = 1 - self.masks.total / total
            raise PassError(
                f"train-east: sparsity is {options.sparsity:g}, but what blocks share leaves "
                f"{self.masks.total:,} of {total:,} weights, {percent(least)} fewer",
                remedy=f"Raise sparsity to {math.ceil(1000 * least) / 1000:g}, "
                "or share nothing: own_blocks = 0.",
            )
        self.masks.draw(self.counts(self.minimum), generator)
        self.masks.apply()

    def counts(self, density: float) -> list[int]:
        """Return how many weights of each kernel stay."""
        return self.options.counts(self.masks.shapes, density)

    def wanted(self, share: float) -> float:
        """Return d at a share of the training, inside the cycles."""
        p = share / self.options.cycle
        top = self.options.peak * self.minimum
        return self.minimum + (top - self.minimum) * (1 - math.cos(2 * math.pi * p)) / 2

    # -- the loop's hooks -------------------------------------------------------------------------

    def kind(self, moment: Moment) -> Hashable | None:
        """Steps that leave the masks are alike while units learn, while they fade, and after."""
        if self.is_due(moment):
            return None
        if self.phasing is None:
            return ()
        begin, end = self.options.dyrelu_from, self.options.dyrelu_until
        fades = phase(moment.share, begin, end) > 0
        return self._learns(moment), fades, moment.reached(end)

    def prepare(self, moment: Moment) -> None:
        """Bring DyReLU nearer to ReLU."""
        if self.phasing:
            begin, end = self.options.dyrelu_from, self.options.dyrelu_until
            self.phasing.blend(1 - phase(moment.share, begin, end))

    def before_forward(self, moment: Moment) -> None:
        """Let ReLU be ReLU when it is time; find the kernels where they lie."""
        self.ready(moment)
        super().before_forward(moment)
        if self.phasing and moment.reached(self.options.dyrelu_until):
            self.phasing.remove()

    @torch.no_grad()
    def gradient(self, moment: Moment) -> None:
        """Change the masks in place of a step of the weights, or mask the gradients."""
        if self.phasing and not self._learns(moment):
            self._freeze(self.phasing)
        if not self.is_due(moment):
            super().gradient(moment)
            return
        scores = [gradient.abs() for gradient in self.masks.gradients()]
        if self._closes(moment):
            self._resize(self.counts(self.minimum), scores)
        elif self._cycling(moment.number, moment):
            self._resize(self.counts(self.wanted(moment.share)), scores)
        else:
            self._regrow(moment.share, scores)
        self.masks.apply()
        self.mask_momentum()
        self.skip_step()

    def is_due(self, moment: Moment) -> bool:
        """Say whether this step is one of the updates; what grew in the last would stay 0."""
        cycling = self._cycling(moment.number, moment)
        every = self.options.cycle_steps if cycling else self.options.update_steps
        regular = moment.number > 0 and moment.number % every == 0 and not moment.last
        return self._closes(moment) or regular

    def _cycling(self, number: int, moment: Moment) -> bool:
        steps = moment.epochs * moment.steps_per_epoch
        return number < self.options.cycles * self.options.cycle * steps

    def _closes(self, moment: Moment) -> bool:
        """Say whether d is d_min again: at the first step after the cycles, or the last of all."""
        number = moment.number
        over = not self._cycling(number, moment) or moment.last
        return over and self._cycling(number - 1, moment)

    def _resize(self, counts: list[int], scores: list[Tensor]) -> None:
        pairs = list(zip(self.masks.counts(), counts, strict=True))
        self.masks.drop_smallest([max(0, now - wanted) for now, wanted in pairs])
        self.masks.grow([max(0, wanted - now) for now, wanted in pairs], scores)

    def _regrow(self, share: float, scores: list[Tensor]) -> None:
        part = cosine(share, self.options.fraction, self.options.fraction_end)
        counts = [int(part * count) for count in self.masks.counts()]
        self.masks.drop_smallest(counts)
        self.masks.grow(counts, scores)

    def _learns(self, moment: Moment) -> bool:
        """Say whether DyReLU's units learn in this step."""
        learns = self.options.dyrelu_learns
        return learns == "always" or (
            learns == "before" and moment.share < self.options.dyrelu_from
        )

    def _freeze(self, phasing: Phasing) -> None:
        """Let the units be as they are, whatever decay or momentum would do."""
        assert self.optimizer is not None
        for parameter in phasing.units.parameters():
            parameter.grad = None
            self.optimizer.state.pop(parameter, None)

    def finish(self) -> None:
        """See :meth:`Masked.finish`; no unit of DyReLU is left."""
        super().finish()
        if self.phasing:
            self.phasing.remove()

    def counted(self) -> int:
        """The weights of the unshared network, of which the sparsity is."""
        return self.total

    def after_epoch(self, moment: Moment) -> dict[str, Any]:
        """Sparsity and densities; β while there is one."""
        beta = {"dyrelu_beta": self.phasing.beta} if self.phasing else {}
        return {**super().after_epoch(moment), **beta}

    def settled(self, moment: Moment) -> bool:
        """Say whether the cycles and DyReLU are over, and a step has been taken without."""
        closed = sum(self.masks.counts()) <= sum(self.counts(self.minimum))
        over = moment.share >= self.options.cycles * self.options.cycle
        return over and closed and (self.phasing is None or self.phasing.beta == 0)
