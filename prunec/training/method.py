"""How a method of training plugs into the loop, and where in the loop it is asked."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prunec.seeding import derived_seed

METHOD = 6  # what a seed is derived for


@dataclass(frozen=True)
class Moment:
    """A position in the training.

    Attributes:
        epoch: from 0.
        step: in the epoch, from 0; ``steps_per_epoch`` at its end.
        steps_per_epoch: number of steps per epoch.
        epochs: number of epochs.
        learning_rate: learning rate of the step.
        seed: seed of the recipe.
    """

    epoch: int
    step: int
    steps_per_epoch: int
    epochs: int
    learning_rate: float
    seed: int = 0

    @property
    def number(self) -> int:
        """Steps done since the training began."""
        return self.epoch * self.steps_per_epoch + self.step

    def generator(self, device: torch.device) -> torch.Generator:
        """Return random numbers that are the same on every rank and in a resumed training."""
        seed = derived_seed(self.seed, METHOD, self.number)
        return torch.Generator(device).manual_seed(seed)

    @property
    def share(self) -> float:
        """The part of the training that is done, from 0 to 1."""
        return self.progress / self.epochs

    @property
    def last(self) -> bool:
        """Whether no step follows."""
        return self.number + 1 >= self.epochs * self.steps_per_epoch

    def reached(self, share: float) -> bool:
        """Say whether ``share`` of the training is done, or no step follows that could reach it."""
        return self.share >= share or self.last

    @property
    def progress(self) -> float:
        """Epochs done, as a fraction goes."""
        return self.epoch + self.step / self.steps_per_epoch


class Method:
    """Plain training; a subclass overrides what it does more.

    The network is on its device before the first call. Hooks run once a step: they work on all
    tensors at once (``torch._foreach``-like, or one flat tensor), never in a loop over parameters.
    """

    averages: Mapping[str, Tensor] = {}
    """The loop's averages of parameters, where it keeps any: what rescales a parameter by hand, and
    not by learning, rescales its average too."""

    retires: ClassVar[bool] = False
    """Whether parameters lose their part in the loss while the training goes on."""

    optimizer: torch.optim.Optimizer | None = None
    """What moves the weights."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return parameters of the method's own, by name.

        The optimizer moves them as it moves the network's, with the recipe's weight decay; their
        gradients, which :meth:`gradient` leaves in them, are clipped with all others.
        """
        return {}

    def begin(self, optimizer: torch.optim.Optimizer, averages: Mapping[str, Tensor]) -> None:
        """Take what the loop made for this training, before its first step."""
        self.optimizer, self.averages = optimizer, averages

    def kind(self, moment: Moment) -> Hashable | None:
        """Return the same for steps that one recording can stand for; None: compute this one.

        The hooks of such steps do the same operations on the same memory. Of a moment they read
        only what :meth:`prepare` wrote into tensors. A method that does not say which steps are
        alike has none recorded.
        """
        return () if type(self) is Method else None

    ready_for: Moment | None = None
    """The moment that was prepared for last."""

    def prepare(self, moment: Moment) -> None:
        """Write what the step at a moment needs to know of it into tensors."""

    def ready(self, moment: Moment) -> None:
        """Prepare once for each moment: before the step, which may be a replay, or in its hooks."""
        if self.ready_for is not moment:
            self.prepare(moment)
            self.ready_for = moment

    def settle(self) -> None:
        """Let the weights be those that the optimizer moves, after a step that broke off."""

    def before_forward(self, moment: Moment) -> None:
        """Prepare a step: after the gradients were cleared, before the forward pass."""

    def gradient(self, moment: Moment) -> None:
        """Change gradients in place: after backward (unscaled), before the optimizer's step."""

    def moving(self, gradients: Mapping[Tensor, Tensor]) -> list[Tensor]:
        """Return the gradients whose norm is clipped: of what the optimizer's step will move.

        Args:
            gradients: of every parameter that has one, after :meth:`gradient`.
        """
        return list(gradients.values())

    def after_step(self, moment: Moment) -> None:
        """Change weights in place: after the optimizer's step.

        Under fp16 a step whose gradients overflowed is skipped, this and :meth:`gradient` too.
        """

    def after_epoch(self, moment: Moment) -> dict[str, Any]:
        """Finish an epoch, before it is evaluated and saved; return further metrics of it.

        ``layers`` is {quantity: {layer: value}}, ``histograms`` is {quantity: {edges, counts}}; all
        others are numbers.
        """
        return {}

    def settled(self, moment: Moment) -> bool:
        """Say whether the budget is reached: before that nothing ends early or is best."""
        return True

    @contextmanager
    def shipping(self) -> Iterator[None]:
        """Let the network compute with the weights that would ship, while the block runs."""
        yield

    def tensors(self) -> dict[str, Tensor]:
        """Return the state, itself and no copy, that a training needs beside the network's own.

        A checkpoint holds it; after every step it becomes rank 0's on every rank.
        """
        return {}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`tensors` returned; the tensors are on the CPU."""
