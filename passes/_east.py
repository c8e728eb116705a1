"""A network that train-east rebuilt, and its masks along the cycles and after them.

Formulas and symbols are those of :mod:`prunec.passes.train_east`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from prunec.errors import PassError
from prunec.sparsity.dyrelu import HELD, Phasing
from prunec.sparsity.masked import Masked
from prunec.sparsity.schedules import cosine, phase
from prunec.sparsity.sharing import Reuse, absorb_gains
from prunec.training.method import Moment
from prunec.wording import percent


class _Options(Protocol):
    """Options of the pass that are read here."""

    @property
    def sparsity(self) -> float: ...
    @property
    def dyrelu_from(self) -> float: ...
    @property
    def dyrelu_until(self) -> float: ...
    @property
    def dyrelu_learns(self) -> str: ...
    @property
    def cycles(self) -> int: ...
    @property
    def cycle(self) -> float: ...
    @property
    def peak(self) -> float: ...
    @property
    def cycle_steps(self) -> int: ...
    @property
    def update_steps(self) -> int: ...
    @property
    def fraction(self) -> float: ...
    @property
    def fraction_end(self) -> float: ...

    def counts(self, shapes: Sequence[Sequence[int]], density: float) -> list[int]: ...


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

    def method(self, options: _Options, module: nn.Module, generator: torch.Generator) -> East:
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
        options: _Options,
        kernels: Mapping[str, Tensor],
        total: int,
        generator: torch.Generator,
        phasing: Phasing | None = None,
    ) -> None:
        super().__init__(kernels)
        self.options, self.total, self.phasing = options, total, phasing
        # d_adj = d·N_total/N_unique: as many weights are left as in an unshared network.
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
        # Gradients of masked weights too: at an update nothing has masked them.
        scores = self.masks.gradients()
        # Updates come every few steps and may miss the end of the cycles, where d is d_min.
        if self._closes(moment):
            self._resize(self.counts(self.minimum), scores)
        elif self._cycling(moment.number, moment):
            self._resize(self.counts(self.wanted(moment.share)), scores)
        else:
            self._regrow(moment.share, scores)
        self.masks.apply()
        self.mask_momentum()
        # As in RigL (Evci et al. 2020), an update takes the place of the optimizer's step.
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
        # RigL's f(t). In-time over-parameterisation wants rare updates of a large share.
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
            # Without a gradient a parameter is skipped; with one of 0 it would still decay.
            parameter.grad = None
            # The authors clear the momentum at e_s, too.
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
