"""The one training loop: every method plugs into it, none has its own."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunec.errors import DataError, Diverged
from prunec.training.checkpoint import (
    Checkpoint,
    clear_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from prunec.training.context import Context
from prunec.training.evaluation import Accuracy, casting, evaluate, laid_out
from prunec.training.method import Method, Moment
from prunec.training.metrics import append_metrics, rewrite_metrics
from prunec.training.optimisation import (
    learning_rate,
    load_momentum,
    make_optimizer,
    momentum_of,
)
from prunec.training.seeding import derived_seed, seeded

__all__ = ["Accuracy", "Method", "Moment", "evaluate", "fit"]

LOOP = 4  # what a seed is derived for
CHECK_EVERY = 20  # steps between two looks at the loss: each look waits for the device


def fit(model: nn.Module, method: Method, context: Context) -> list[dict[str, Any]]:
    """Train ``model`` in place as the recipe's ``[train]`` says; return the metrics of each epoch.

    The network is left on ``context.device``. After every epoch its metrics are appended to the
    run's file and a checkpoint is written. With ``context.resume`` the training goes on after the
    last sound checkpoint of this method; on the CPU the weights become the same, bit for bit, as
    those of a training that was never stopped. Without it, older checkpoints are removed.

    Raises:
        Diverged: the loss or the weights left the finite numbers; the last checkpoint is kept.
        DataError: the network's outputs do not fit the data's classes.
        RunError: metrics or checkpoints cannot be written.
        KeyboardInterrupt: as it came; the epoch that was running is lost, no other.
    """
    with _threads(context.recipe.train.threads), seeded(LOOP, device=context.device):
        return _Fitting(model, method, context).run()


class _Fitting:
    def __init__(self, model: nn.Module, method: Method, context: Context) -> None:
        self.train = context.recipe.train
        self.context = context
        self.device = context.device
        self.method = method
        layout = torch.channels_last if self.train.channels_last else torch.preserve_format
        self.model = model.to(self.device).to(memory_format=layout)
        self.data = context.data.to(self.device)
        self.steps = self.data.steps(self.train.batch_size)
        self.optimizer = make_optimizer(self.model, self.train)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.train.autocast == "fp16")
        self.history: list[dict[str, Any]] = []

    def run(self) -> list[dict[str, Any]]:
        first = self._start()
        began = time.perf_counter()
        with self.context.progress.training(first, self.train.epochs, self.steps):
            for epoch in range(first, self.train.epochs):
                metrics = self._epoch_or_interrupt(epoch)
                self._keep(metrics)
                done = epoch + 1 - first
                left = (time.perf_counter() - began) / done * (self.train.epochs - epoch - 1)
                self.context.progress.epoch({**metrics, "seconds_left": left})
        return self.history

    def _start(self) -> int:
        """Return the number of epochs that are done already, their state restored."""
        run, name = self.context.run, self.method.name
        checkpoint = None
        if self.context.resume:
            checkpoint = load_checkpoint(run.checkpoint, name, self.context.progress.note)
        if checkpoint is None:
            clear_checkpoints(run.checkpoint)
            rewrite_metrics(run.metrics, name, [])
            return 0
        self._restore(checkpoint)
        rewrite_metrics(run.metrics, name, self.history)
        self.context.progress.note(f"Continuing after epoch {checkpoint.epoch}.")
        return checkpoint.epoch

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.model.load_state_dict(dict(checkpoint.model))
        load_momentum(self.model, self.optimizer, checkpoint.optimizer)
        self.method.load_tensors(checkpoint.tensors)
        if checkpoint.scaler:
            self.scaler.load_state_dict(dict(checkpoint.scaler))
        self.history = list(checkpoint.history)

    def _keep(self, metrics: dict[str, Any]) -> None:
        self.history.append(metrics)
        checkpoint = Checkpoint(
            method=self.method.name,
            epoch=metrics["epoch"],
            model=self.model.state_dict(),
            optimizer=momentum_of(self.model, self.optimizer),
            tensors=self.method.tensors(),
            history=tuple(self.history),
            scaler=self.scaler.state_dict(),
        )
        save_checkpoint(self.context.run.checkpoint, checkpoint)
        append_metrics(self.context.run.metrics, metrics)

    def _epoch_or_interrupt(self, epoch: int) -> dict[str, Any]:
        try:
            return self._epoch(epoch)
        except KeyboardInterrupt:
            self.context.progress.note(
                f"Stopped in epoch {epoch + 1}: --resume continues after epoch {epoch}."
                if epoch
                else "Stopped in epoch 1: --resume starts it again."
            )
            raise

    def _epoch(self, epoch: int) -> dict[str, Any]:
        torch.manual_seed(derived_seed(self.context.recipe.seed, LOOP, epoch))
        began = time.perf_counter()
        loss, accuracy = self._pass_over(epoch)
        trained = time.perf_counter()
        end = self._moment(epoch, self.steps)
        extra = self.method.after_epoch(end)
        with self.method.shipping():
            test = evaluate(
                self.model,
                self.data.test_batches(self.train.batch_size),
                self.device,
                self.train.channels_last,
                self.train.autocast,
            )
        self._require_finite_weights(end)
        return {
            "pass": self.method.name,
            "epoch": epoch + 1,
            "loss": loss,
            "train_accuracy": accuracy.percent,
            "test_accuracy": test.percent,
            "learning_rate": self._moment(epoch, self.steps - 1).learning_rate,
            "images_per_second": accuracy.total / (trained - began),
            "seconds": time.perf_counter() - began,
            **extra,
        }

    def _pass_over(self, epoch: int) -> tuple[float, Accuracy]:
        """Train on every batch of ``epoch``; return the mean loss and the training accuracy."""
        self.model.train()
        began = time.perf_counter()
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        seen = 0
        batches = self.data.train_batches(epoch, self.train.batch_size)
        for step, (images, labels) in enumerate(batches):
            moment = self._moment(epoch, step)
            loss, logits = self._step(images, labels, moment)
            loss_sum += loss.detach() * len(labels)
            correct += (logits.detach().argmax(1) == labels).sum()
            seen += len(labels)
            if (step + 1) % CHECK_EVERY == 0:
                mean = self._finite(float(loss_sum) / seen, moment)
                speed = seen / (time.perf_counter() - began)
                self.context.progress.step(epoch, step + 1, mean, speed)
        mean = self._finite(float(loss_sum) / seen, self._moment(epoch, self.steps - 1))
        return mean, Accuracy(int(correct), seen)

    def _step(self, images: Tensor, labels: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = moment.learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        self.method.before_forward(moment)
        with casting(self.device, self.train.autocast):
            logits = self.model(laid_out(images, self.train.channels_last))
            _check_logits(logits, self.data.classes)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.train.label_smoothing)
        torch.autograd.backward(self.scaler.scale(loss))
        self._update(moment)
        return loss, logits

    def _update(self, moment: Moment) -> None:
        self.scaler.unscale_(self.optimizer)
        sound = not self.scaler.is_enabled() or self._gradients_finite()
        if sound:
            self.method.gradient(moment)
        self.scaler.step(self.optimizer)  # skips the step itself where gradients overflowed
        self.scaler.update()
        if sound:
            self.method.after_step(moment)

    def _gradients_finite(self) -> bool:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return _all_finite(gradients)

    def _moment(self, epoch: int, step: int) -> Moment:
        rate = learning_rate(self.train, epoch * self.steps + step, self.steps)
        return Moment(epoch, step, self.steps, self.train.epochs, rate)

    def _finite(self, loss: float, moment: Moment) -> float:
        if not math.isfinite(loss):
            raise self._diverged(f"the loss became {loss}", moment)
        return loss

    def _require_finite_weights(self, moment: Moment) -> None:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        if not _all_finite([t.detach() for t in tensors if t.is_floating_point()]):
            raise self._diverged("a weight left the finite numbers", moment)

    def _diverged(self, what: str, moment: Moment) -> Diverged:
        kept = (
            f"The state after epoch {moment.epoch} is kept in {self.context.run.checkpoint}. "
            if moment.epoch
            else ""
        )
        precision = ' or set train.autocast = "off"' if self.train.autocast == "fp16" else ""
        return Diverged(
            f"training diverged: {what} in epoch {moment.epoch + 1}, by step {moment.step + 1} of "
            f"{self.steps} (learning rate {moment.learning_rate:.3g})",
            remedy=f"{kept}Train again with a lower train.learning_rate (half of "
            f"{self.train.learning_rate:g}, say) or a longer train.warmup_epochs{precision}.",
        )


def _all_finite(tensors: list[Tensor]) -> bool:
    """Say whether every value is finite; one wait for the device."""
    if not tensors:
        return True
    return bool(torch.nn.utils.get_total_norm(tensors, math.inf, foreach=True).isfinite())


def _check_logits(logits: object, classes: int) -> None:
    if not isinstance(logits, Tensor):
        raise DataError(
            f"the network returns {type(logits).__name__} in training, one tensor is wanted",
            remedy="Switch its extra outputs off: model.options = { aux_logits = false } for "
            "googlenet and inception_v3.",
        )
    if logits.ndim != 2 or logits.shape[1] != classes:
        raise DataError(
            f"the network returns {tuple(logits.shape)}, the data has {classes} classes: (N, "
            f"{classes}) is wanted",
            remedy="Let the network take num_classes, which the data gives.",
        )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute on ``count`` threads while the block runs; 0 leaves torch's own choice."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
