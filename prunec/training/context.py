"""What a training pass is given beside the artifact."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from prunec.recipe import Recipe
from prunec.runs import RunFolder
from prunec.training.batches import Data
from prunec.training.progress import Progress


@dataclass(frozen=True)
class Context:
    """The surroundings of a training pass.

    Attributes:
        recipe: the whole recipe.
        data: its data, on the CPU.
        device: where to compute.
        run: the folder for metrics and checkpoints.
        progress: whom to tell.
        resume: whether to go on from the last checkpoint of this pass, if there is one.
    """

    recipe: Recipe
    data: Data
    device: torch.device
    run: RunFolder
    progress: Progress
    resume: bool
