"""Training: the passes of a recipe up to the last that trains."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from prunec.artifact import Artifact
from prunec.batches.batches import Data
from prunec.errors import DataError, RunError
from prunec.models.building import build_auxiliary, build_model
from prunec.models.gates import absorbed
from prunec.pipeline.artifacts import resumed, run_pass
from prunec.pipeline.opened import OpenedRun
from prunec.processes import processes_here
from prunec.recipe import Recipe
from prunec.store.finding import open_run
from prunec.store.runs import RunFolder
from prunec.training.context import Context
from prunec.training.progress import Progress
from prunec.wording import first_line


def train(
    recipe: Recipe, run: RunFolder, *, device: str, progress: Progress, resume: bool
) -> Artifact:
    """Run a recipe's passes up to its last training pass.

    Args:
        recipe: the recipe.
        run: where everything is written.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: whom to tell.
        resume: whether finished passes, and a checkpoint of the current one, are taken up.

    Raises:
        PrunecError: as the passes do.
    """
    opened = OpenedRun(run)
    passes, last = opened.passes, opened.trained
    if not last:
        raise RunError(f"{recipe.name} has no training pass", remedy="Add one: [[pass]] name = …")
    place = torch_device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    processes = processes_here()
    with processes.turns():
        data = opened.data
    artifact, done = resumed(opened, last, progress.note) if resume else (None, 0)
    artifact = artifact or opened.fresh()
    teacher = _teacher(recipe, data, artifact.example).to(place) if recipe.train.teacher else None
    context = Context(
        recipe, data, place, run, progress, resume, processes, teacher, _auxiliary(recipe, data)
    )
    for index in range(done, last):
        artifact = run_pass(artifact, passes[index], index, run, context, progress.stage)
    return artifact


def _auxiliary(recipe: Recipe, data: Data) -> nn.Module | None:
    """The head that only trains, where the recipe's network has one and the recipe wants it."""
    if not recipe.train.auxiliary:
        return None
    return build_auxiliary(recipe.model, data.classes, seed=recipe.seed)


def _teacher(recipe: Recipe, data: Data, example: tuple[torch.Tensor, ...]) -> nn.Module:
    """The dense network that the recipe learns from, in eval mode."""
    spec = recipe.train.teacher
    assert spec is not None
    if spec.model is not None:
        module = build_model(spec.model, data.classes, seed=recipe.seed)
    else:
        teacher = OpenedRun(open_run(Path(spec.run)), data)
        if not teacher.done:
            raise RunError(
                f"train.teacher.run = {spec.run!r} has no finished pass",
                remedy=f"Train it first: prunec train --resume {spec.run}",
            )
        module = absorbed(teacher.artifact(teacher.done[-1]).module)
    module.eval().requires_grad_(False)
    try:
        with torch.no_grad():
            data.task.read(module(*(x.clone() for x in example)), example[0])
    except Exception as error:  # whatever the network's own code raises
        raise DataError(
            f"train.teacher does not answer like a network for this data: {first_line(error)}",
            remedy=f"It must take {'×'.join(map(str, data.shape))} and return {data.classes} "
            "logits.",
        ) from error
    return module


def torch_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` means here.

    Raises:
        DataError: CUDA was asked for and is not there.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DataError("no CUDA device is available", remedy="Use --device cpu, or auto.")
    local, count = processes_here().local, torch.cuda.device_count()
    if local >= count:
        raise DataError(
            f"process {local} of this machine finds no GPU of its own: there are {count}",
            remedy=f"Start at most {count}: torchrun --nproc-per-node {count}",
        )
    return torch.device("cuda", local)
