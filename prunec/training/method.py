"""How a method of training plugs into the loop, and where in the loop it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True)
class Moment:
    """Where the training stands.

    Attributes:
        epoch: from 0.
        step: in the epoch, from 0; ``steps_per_epoch`` at its end.
        steps_per_epoch: how many there are.
        epochs: how many there will be.
        learning_rate: of this step.
    """

    epoch: int
    step: int
    steps_per_epoch: int
    epochs: int
    learning_rate: float

    @property
    def progress(self) -> float:
        """Epochs done, as a fraction goes."""
        return self.epoch + self.step / self.steps_per_epoch


class Method:
    """Plain training; a subclass overrides what it does more.

    The network is on its device before the first call. Hooks run once a step: they work on all
    tensors at once (``torch._foreach``-like, or one flat tensor), never in a loop over parameters.
    """

    name: ClassVar[str] = "train-dense"
    """Whose metrics and checkpoints they are: the pass's name."""

    def before_forward(self, moment: Moment) -> None:
        """Prepare a step: after the gradients were cleared, before the forward pass."""

    def gradient(self, moment: Moment) -> None:
        """Change gradients in place: after backward (unscaled), before the optimizer's step."""

    def after_step(self, moment: Moment) -> None:
        """Change weights in place: after the optimizer's step.

        Under fp16 a step whose gradients overflowed is skipped, this and :meth:`gradient` too.
        """

    def after_epoch(self, moment: Moment) -> dict[str, float]:
        """Finish an epoch, before it is evaluated and saved; return further metrics of it."""
        return {}

    @contextmanager
    def shipping(self) -> Iterator[None]:
        """Let the network compute with the weights that would ship, while the block runs."""
        yield

    def tensors(self) -> dict[str, Tensor]:
        """Return the state that a resumed training needs beside the network's own."""
        return {}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`tensors` returned; the tensors are on the CPU."""
