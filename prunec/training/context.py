"""The context of a training pass: everything that it receives beside the artifact."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from prunec.batches.batches import Data
from prunec.processes import ALONE, Processes
from prunec.recipe import Recipe
from prunec.store.runs import RunFolder
from prunec.training.progress import Progress
from prunec.training.stopwatch import Stopwatch


@dataclass(frozen=True)
class Context:
    """The surroundings of a training pass.

    Attributes:
        recipe: the whole recipe.
        data: its data, on the CPU.
        device: where to compute.
        run: the folder for metrics and checkpoints.
        progress: display of the progress.
        resume: whether to go on from the last checkpoint of this pass, if there is one.
        processes: the processes that train together.
        teacher: the dense network that the recipe names, in eval mode on the device.
        auxiliary: the head that only trains, as a training begins with it; none if None.
        pass_name: the pass that trains: its name stands in metrics, checkpoints and settings.
        dense_epochs: after how many epochs the network is tested as the dense one that later ones
            are compared with; None where it never is.
        retune: whether settings are measured although they are remembered.
        watch: of the time to the first step.
    """

    recipe: Recipe
    data: Data
    device: torch.device
    run: RunFolder
    progress: Progress
    resume: bool
    processes: Processes = ALONE
    teacher: nn.Module | None = None
    auxiliary: nn.Module | None = None
    pass_name: str = "train-dense"
    dense_epochs: float | None = None
    retune: bool = False
    watch: Stopwatch = field(default_factory=Stopwatch)
