"""How fast data come and steps are taken: which of the two bounds a training."""

from __future__ import annotations

import copy
import itertools
import time
from dataclasses import dataclass

import torch
from torch import nn

from prunec.seeding import seeded
from prunec.training.averaging import Average
from prunec.training.capture import stepping
from prunec.training.context import Context
from prunec.training.method import Method, Moment
from prunec.training.objective import make_objective
from prunec.training.optimisation import make_optimizer
from prunec.training.recording import backend_of
from prunec.training.settings import computing
from prunec.training.step import Stepper
from prunec.training.tuning import default_settings

WARM = 3  # batches and steps before the clock starts: caches, kernels, workers
RECORDED = 2  # more steps where they are recorded: one is, and proven, after three
LEAST, LONG = 5, 10.0  # batches that are timed at least, and seconds after which no more are
MOST = 200  # batches that are timed at most
PACE = 9  # what seeds are derived for


@dataclass(frozen=True)
class Pace:
    """Images a second.

    Attributes:
        device: where batches are delivered and steps are taken.
        batch_size: images of a batch.
        data: that are read, augmented, normalised and delivered.
        steps: that plain training learns, of a batch that is there: fp32 where the recipe says
            auto, recorded where the training records them, without a method's own work.
        workers: processes that read; 0 where the set is held in memory.
    """

    device: str
    batch_size: int
    data: float
    steps: float
    workers: int

    @property
    def bound(self) -> str:
        """``data`` where they come more slowly than steps are taken, else ``steps``."""
        return "data" if self.data < self.steps else "steps"

    @property
    def together(self) -> float:
        """Images a second of both: side by side with workers, one after the other without."""
        if self.workers:
            return min(self.data, self.steps)
        return 1 / (1 / self.data + 1 / self.steps)


def measure_pace(model: nn.Module, context: Context, workers: int) -> Pace:
    """Time batches and steps of a training that is about to begin; nothing is changed or kept.

    Args:
        model: the network; it is copied.
        context: recipe, data, device.
        workers: processes that read images; 0 where the set is held in memory.

    Raises:
        PrunecError: a batch or a step fails as in the training.
    """
    size = context.recipe.train.batch_size
    return Pace(
        device=context.device.type,
        batch_size=min(size, context.data.train_size),
        data=_data_rate(context, size),
        steps=_step_rate(model, context, size),
        workers=workers,
    )


def _data_rate(context: Context, size: int) -> float:
    data = context.data.to(context.device)
    epochs = itertools.count()
    batches = (batch for epoch in epochs for batch in data.train_batches(epoch, size))
    for _ in range(WARM):
        next(batches)
    _wait(context.device)
    images, count, began = 0, 0, time.perf_counter()
    while count < LEAST or (count < MOST and time.perf_counter() - began < LONG):
        images += len(next(batches)[0])
        count += 1
    _wait(context.device)
    return images / (time.perf_counter() - began)


def _step_rate(model: nn.Module, context: Context, size: int) -> float:
    train, device = context.recipe.train, context.device
    settings = default_settings(train, context.processes)
    images, labels = next(iter(context.data.to(device).train_batches(0, size)))
    own = copy.deepcopy(model).to(device).train().to(memory_format=settings.layout)
    objective = make_objective(train, context.data.task, context.teacher)
    with computing(settings, device), seeded(PACE, device=device):
        take = Stepper(own, own, make_optimizer(own, train), Method(), objective, settings)
        learn = stepping(take, Average(own, 0.0), train, device, lambda _: None)
        began, count = time.perf_counter(), -WARM - (RECORDED if backend_of(device) else 0)
        while count < LEAST or (count < MOST and time.perf_counter() - began < LONG):
            if count == 0:
                _wait(device)
                began = time.perf_counter()
            learn(images, labels, Moment(0, max(count, 0), MOST, 1, 0.0))
            count += 1
        _wait(device)
    return count * len(images) / (time.perf_counter() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
