"""Choice of the fastest settings whose loss agrees, by timing a few steps of the network."""

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
from prunec.training.averaging import Average
from prunec.training.capture import Capturing, Steps
from prunec.training.method import Method, Moment
from prunec.training.objective import Objective
from prunec.training.optimisation import make_optimizer
from prunec.training.recording import backend_of
from prunec.training.settings import Settings, computing, cores
from prunec.training.step import Stepper

STEPS, WARM = 7, 2  # steps of a trial, and how many of them are not timed
RECORDED = 2  # more of both where steps are recorded: one is, and proven, after three
LONG = 8.0  # seconds after which a trial ends with the step at hand
WARM_GPU, COLD_GPU = 5.0, 15.0  # seconds that all trials on a GPU may take
FIRST_CALLS = 2.0  # seconds of a first step that show that cuDNN's kernels were not loaded
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
    """Return the settings of a recipe; ``auto`` means fp32, contiguous, all cores."""
    return Settings(
        precision="fp32" if train.precision == "auto" else train.precision,
        channels_last=train.channels_last is True,
        threads=cores(processes) if train.threads == "auto" else train.threads,
        compile=train.compile,
    )


def is_open(train: TrainSpec) -> bool:
    """Return whether a recipe leaves settings to be measured."""
    return "auto" in (train.precision, train.channels_last, train.threads)


def candidates(
    train: TrainSpec, first: Settings, device: torch.device, best: Callable[[], Settings]
) -> Iterator[Settings]:
    """Settings to try, the plain one first; numbers of threads with what is ``best`` by then."""
    if device.type == "cuda":
        yield from _on_gpu(train, first, device)
        return
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


def _on_gpu(train: TrainSpec, first: Settings, device: torch.device) -> Iterator[Settings]:
    """Yield settings that are fast on some GPU, the likeliest first, as time may end the trials."""
    short = _short_precision(device) if train.precision == "auto" else first.precision
    last = [True, False] if train.channels_last == "auto" else [first.channels_last]
    yield first
    wanted = [replace(first, precision=short, channels_last=layout) for layout in last]
    yield from (settings for settings in wanted if settings != first)
    if first.precision != short and len(last) > 1:
        yield replace(first, channels_last=True)


def choose(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    train: TrainSpec,
    objective: Objective,
    processes: Processes,
    *,
    tell: Callable[[Settings], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Settings, list[Trial]]:
    """Return the settings to train with, and every trial.

    Copies of the network take a few steps on one batch with the same random numbers.

    Args:
        model: on its device, in training mode; left as it is.
        batch: images [N, C, H, W] and labels [N] of one rank, on the same device.
        train: what is open, and the optimizer.
        objective: the loss.
        processes: the processes that share this machine's cores.
        tell: callback for each setting before it is tried.
        clock: seconds that pass.
    """
    first = default_settings(train, processes)
    device = batch[0].device
    bench = _Bench(model, batch, train, objective, clock)
    trials: list[Trial] = []
    losses: list[list[float]] = []
    for settings in candidates(train, first, device, lambda: fastest(trials)):
        if trials and bench.is_late():
            break
        if tell is not None:
            tell(settings)
        best = min((trial.seconds for trial in trials), default=math.inf)
        seconds, run_losses = bench.measured(settings, HOPELESS * best)
        losses.append(run_losses)
        trials.append(Trial(settings, seconds, run_losses[-1], _agree(losses[0], run_losses)))
    return fastest(trials), trials


def fastest(trials: list[Trial]) -> Settings:
    """Return the settings of the fastest trial that agrees; near ties go to the earlier."""
    best = trials[0]
    for trial in trials[1:]:
        if trial.agrees and trial.seconds < BETTER * best.seconds:
            best = trial
    return best.settings


class _Bench:
    """Timing of trial steps.

    Attributes:
        end: when trials are to be over; of a GPU alone, where first calls may take minutes.
        longest: seconds of the longest trial but the first.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: tuple[Tensor, Tensor],
        train: TrainSpec,
        objective: Objective,
        clock: Callable[[], float],
    ) -> None:
        self.model, self.batch, self.train = model, batch, train
        self.objective, self.clock = objective, clock
        self.device = batch[0].device
        self.backend = None if train.capture is False else backend_of(self.device)
        self.bounded = is_bounded(self.device)
        self.began, self.longest = clock(), 0.0
        self.end = self.began + COLD_GPU if self.bounded else math.inf
        self.tried = 0

    def is_late(self) -> bool:
        """Return whether a further trial would exceed the time limit."""
        return self.clock() + max(self.longest, FIRST_CALLS) > self.end

    def measured(self, settings: Settings, hopeless: float) -> tuple[float, list[float]]:
        """Return the median seconds of a step, and all losses; stops early if slower than
        ``hopeless``. Where the time is over before steps are timed, the fastest one counts.
        """
        own = copy.deepcopy(self.model).to(memory_format=settings.layout)
        began, warm = self.clock(), WARM + (RECORDED if self.backend else 0)
        seconds: list[float] = []
        losses: list[float] = []
        searching = computing(settings, self.device, search=not self.bounded)
        with searching, seeded(TRIED, device=self.device):
            learn = self._steps(own, settings)
            while len(losses) < warm + STEPS - WARM:
                # Not the last one: it may have been slow once, as by recording.
                if seconds and self.clock() + min(seconds) > self.end:
                    break
                if len(losses) >= warm and self._ends(seconds, hopeless):
                    break
                moment = Moment(0, len(losses), STEPS, 1, SLOW * self.train.learning_rate)
                started = self.clock()
                losses.append(float(learn(*self.batch, moment)[0]))  # waits for the device
                seconds.append(self.clock() - started)
                self._learn_of(seconds[0])
        self.longest = max(self.longest, self.clock() - began) if self.tried else 0.0
        self.tried += 1
        return statistics.median(seconds[warm:] or [min(seconds)]), losses

    def _steps(self, own: nn.Module, settings: Settings) -> Steps:
        optimizer = make_optimizer(own, self.train)
        take = Stepper(own, own, optimizer, Method(), self.objective, settings)
        average = Average(own, 0.0)
        if self.backend is None:
            return Steps(take, average)
        return Capturing(take, average, self.backend, lambda reason: None)

    def _ends(self, seconds: list[float], hopeless: float) -> bool:
        return seconds[-1] > hopeless or sum(seconds) > LONG

    def _learn_of(self, first: float) -> None:
        """Shorten the time limit if a fast first step shows that cuDNN's kernels were loaded."""
        if self.bounded and self.tried == 0 and first < FIRST_CALLS:
            self.end = min(self.end, self.began + WARM_GPU)


def is_bounded(device: torch.device) -> bool:
    """Return whether trials on a device have a time limit."""
    return device.type == "cuda"


def _agree(reference: list[float], losses: list[float]) -> bool:
    """Return whether losses are finite and near the reference's, over their common length."""
    pairs = zip(reference, losses, strict=False)
    bound = AGREE * abs(reference[0])
    return all(math.isfinite(b) and abs(a - b) <= bound for a, b in pairs)


def _short_precision(device: torch.device) -> str:
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "fp16"
    return "bf16"
