"""Measures a few steps of the real network and takes the fastest settings whose loss agrees."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from prunec.processes import Processes
from prunec.recipe import TrainSpec
from prunec.seeding import seeded
from prunec.training.method import Method, Moment
from prunec.training.objective import Objective
from prunec.training.optimisation import make_optimizer
from prunec.training.settings import Settings, computing, cores
from prunec.training.step import Stepper

STEPS, WARM = 7, 2  # steps of a trial, and how many of them are not timed
LONG = 8.0  # seconds after which a trial ends with the step at hand
AGREE = 0.05  # largest difference of a step's loss from the reference's, of its first loss
SLOW = 0.01  # of the learning rate: fast learning of one batch would magnify rounding
HOPELESS = 3.0  # times the fastest step so far
BETTER = 0.97  # of the time of an earlier trial: less is noise
TRIED = 5  # what a seed is derived for


@dataclass(frozen=True)
class Trial:
    """Settings, what a step took, and whether it learned the same.

    Attributes:
        settings: what was tried.
        seconds: of a step, the median.
        loss: after the last step.
        agrees: whether every loss was near the first trial's: within 5 % of its first one.
    """

    settings: Settings
    seconds: float
    loss: float
    agrees: bool

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        figures = {"seconds": self.seconds, "loss": self.loss, "agrees": self.agrees}
        return {**asdict(self.settings), **figures}


def default_settings(train: TrainSpec, processes: Processes) -> Settings:
    """What a recipe asks for; for ``auto`` the plain choice: fp32, contiguous, all cores."""
    return Settings(
        precision="fp32" if train.precision == "auto" else train.precision,
        channels_last=train.channels_last is True,
        threads=cores(processes) if train.threads == "auto" else train.threads,
        compile=train.compile,
    )


def is_open(train: TrainSpec) -> bool:
    """Say whether a recipe leaves anything to be measured."""
    return "auto" in (train.precision, train.channels_last, train.threads)


def candidates(
    train: TrainSpec, first: Settings, device: torch.device, best: Callable[[], Settings]
) -> Iterator[Settings]:
    """Settings to try, the plain one first; numbers of threads with what is ``best`` by then."""
    precisions = [first.precision]
    if train.precision == "auto":
        precisions.append(_short_precision(device))
    layouts = [False, True] if train.channels_last == "auto" else [first.channels_last]
    for precision, layout in product(precisions, layouts):
        yield replace(first, precision=precision, channels_last=layout)
    threads = first.threads
    while device.type == "cpu" and train.threads == "auto" and threads > 1:
        threads //= 2
        if best().threads > 2 * threads:
            return
        yield replace(best(), threads=threads)


def choose(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    train: TrainSpec,
    objective: Objective,
    processes: Processes,
) -> tuple[Settings, list[Trial]]:
    """Return the settings to train with, and every trial.

    Copies of the network take a few steps on one batch with the same random numbers.

    Args:
        model: on its device, in training mode; left as it is.
        batch: images [N, C, H, W] and labels [N] of one rank, on the same device.
        train: what is open, and the optimizer.
        objective: the loss.
        processes: the processes that share this machine's cores.
    """
    first = default_settings(train, processes)
    device = batch[0].device
    trials: list[Trial] = []
    losses: list[list[float]] = []
    plan = candidates(train, first, device, lambda: fastest(trials))
    for settings in plan:
        best = min((trial.seconds for trial in trials), default=math.inf)
        seconds, found = _try(model, batch, train, objective, settings, HOPELESS * best)
        losses.append(found)
        trials.append(Trial(settings, seconds, found[-1], _agree(losses[0], found)))
    return fastest(trials), trials


def fastest(trials: list[Trial]) -> Settings:
    """Return the settings of the fastest trial that agrees; near ties go to the earlier."""
    best = trials[0]
    for trial in trials[1:]:
        if trial.agrees and trial.seconds < BETTER * best.seconds:
            best = trial
    return best.settings


def _try(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    train: TrainSpec,
    objective: Objective,
    settings: Settings,
    hopeless: float,
) -> tuple[float, list[float]]:
    """Seconds of a step, and the loss of each; steps slower than ``hopeless`` end it."""
    own = copy.deepcopy(model).to(memory_format=settings.layout)
    device = batch[0].device
    rate = SLOW * train.learning_rate
    seconds: list[float] = []
    losses: list[float] = []
    with computing(settings, device), seeded(TRIED, device=device):
        optimizer = make_optimizer(own, train)
        take = Stepper(own, own, optimizer, Method(), objective, settings)
        while len(losses) < STEPS:
            if len(losses) >= WARM and (seconds[-1] > hopeless or sum(seconds) > LONG):
                break
            started = time.perf_counter()
            loss, _ = take(*batch, Moment(0, len(losses), STEPS, 1, rate))
            losses.append(float(loss))  # waits for the device
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[min(WARM, len(seconds) - 1) :]), losses


def _agree(reference: list[float], found: list[float]) -> bool:
    """Whether losses are finite and near the reference's, as far as both go."""
    pairs = zip(reference, found, strict=False)
    bound = AGREE * abs(reference[0])
    return all(math.isfinite(b) and abs(a - b) <= bound for a, b in pairs)


def _short_precision(device: torch.device) -> str:
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "fp16"
    return "bf16"
