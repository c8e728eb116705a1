"""One step of training: forward, loss, backward, update, with a method's hooks in their places."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunec.errors import DataError
from prunec.processes import ALONE, Processes
from prunec.training.method import Method, Moment
from prunec.training.objective import Objective
from prunec.training.optimisation import begin_momentum, set_learning_rate
from prunec.training.settings import Settings

ONE_VALUE = "Expected more than 1 value per channel"  # what torch's batch norm says


@dataclass(frozen=True)
class Forward:
    """A network, its loss, and the settings with which they are computed."""

    network: Callable[[Tensor], object]
    objective: Objective
    settings: Settings

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss of a batch, and what the task counts of its answers."""
        return self.answers(*self.mixed(images, labels), labels)

    def mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and targets that are learned; mixing draws random numbers."""
        return self.objective.mixed(self.settings.laid_out(images), labels)

    def answers(self, inputs: Tensor, targets: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss of what :meth:`mixed` returned, and what the task counts."""
        task = self.objective.task
        with self.settings.casting(inputs.device):
            outputs = task.read(self._answered(inputs), inputs)
            loss = self.objective(outputs, targets, inputs)
        return loss, task.counts(outputs.logits.detach().argmax(1), labels)

    def _answered(self, inputs: Tensor) -> object:
        try:
            return self.network(inputs)
        except ValueError as error:
            if ONE_VALUE not in str(error):
                raise
            raise DataError(
                f"a batch norm finds one value a channel in a batch of {len(inputs)}, and one has "
                "no variance",
                remedy="Every process needs two or more images of a batch: raise "
                "train.batch_size, and train on more than one image. Norms behind a mean over each "
                "image (DeepLab's head) are where this shows first.",
            ) from error


class Stepper:
    """Takes steps.

    Attributes:
        model: the network.
        forward: what runs in its place (the same, shared by processes or compiled), and its loss.
        optimizer: of its parameters, and of the method's own.
        named: the parameters that the optimizer moves, by name.
        scaler: of the loss, under fp16.
    """

    def __init__(
        self,
        model: nn.Module,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        method: Method,
        objective: Objective,
        settings: Settings,
        *,
        clip_norm: float = 0.0,
        processes: Processes = ALONE,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        running = torch.compile(network) if settings.compile else network
        self.forward = Forward(running, objective, settings)
        self.method, self.clip_norm, self.processes = method, clip_norm, processes
        device = next(model.parameters()).device
        self.named = {**dict(model.named_parameters()), **method.parameters()}
        self.parameters = [p for p in self.named.values() if p.requires_grad]
        half = settings.precision == "fp16"
        self.scaler = torch.amp.GradScaler(device.type, enabled=half)

    def __call__(self, images: Tensor, labels: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
        """Learn a batch; return its mean loss and what the task counts of its answers.

        Args:
            images: [N, C, H, W] on the device.
            labels: int64 [N], or [N, H, W], on the device.
            moment: where the training stands.
        """
        set_learning_rate(self.optimizer, moment.learning_rate)
        self.method.ready(moment)
        return self.learn(*self.given(images, labels), moment)

    def given(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return images and targets as they are learned, and labels as they are counted."""
        return (*self.forward.mixed(images, labels), labels)

    def learn(
        self, inputs: Tensor, targets: Tensor, labels: Tensor, moment: Moment
    ) -> tuple[Tensor, Tensor]:
        """Learn what :meth:`given` returned, at the rate and with what was prepared."""
        self.optimizer.zero_grad(set_to_none=True)
        self.method.before_forward(moment)
        loss, counts = self.forward.answers(inputs, targets, labels)
        torch.autograd.backward(self.scaler.scale(loss))
        self._update(moment)
        return loss.detach(), counts

    def settle(self) -> None:
        """Let nothing be left of a step that broke off."""
        self.optimizer.zero_grad(set_to_none=True)
        self.method.settle()

    def _update(self, moment: Moment) -> None:
        # First: hooks and clipping see gradients of their own size.
        self.scaler.unscale_(self.optimizer)
        sound = not self.scaler.is_enabled() or all_finite(self._gradients())
        if sound:
            self.method.gradient(moment)
            if self.clip_norm:
                self._clip()
            begin_momentum(self.optimizer)
            # Never asked to skip: torch's fused SGD, if it skips its first step, goes on with a
            # momentum that nobody wrote.
            self.scaler.step(self.optimizer)
        self.scaler.update()
        if sound:
            self.method.after_step(moment)
            self.processes.agree(self.method.tensors())

    def _clip(self) -> None:
        gradients: dict[Tensor, Tensor] = {p: p.grad for p in self.parameters if p.grad is not None}
        norm = nn.utils.get_total_norm(self.method.moving(gradients), foreach=True)
        nn.utils.clip_grads_with_norm_(self.parameters, self.clip_norm, norm, foreach=True)

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self.parameters if p.grad is not None]


def all_finite(tensors: list[Tensor]) -> bool:
    """Say whether every value is finite; one wait for the device."""
    if not tensors:
        return True
    return bool(torch.nn.utils.get_total_norm(tensors, math.inf, foreach=True).isfinite())
