"""Preparation of a training: everything is built and checked before the run's folder is created.

Mistakes in data, weights, device, network, phases and forms are so reported without side effects.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunec.artifact import Artifact
from prunec.batches.batches import Data
from prunec.contract import Training
from prunec.errors import DataError, PassError, PrunecError, RecipeError, RunError
from prunec.models.building import build_auxiliary, build_model
from prunec.models.gates import absorbed
from prunec.pipeline.artifacts import resumed
from prunec.pipeline.budgets import require_judgeable
from prunec.pipeline.opened import OpenedRun
from prunec.pipeline.opened_recipe import OF_DATA, OpenedRecipe, Untrained
from prunec.processes import processes_here
from prunec.recipe import Recipe
from prunec.seeding import seeded
from prunec.store.finding import open_run
from prunec.store.runs import RunFolder
from prunec.store.states import unfinished
from prunec.training.context import Context
from prunec.training.progress import Progress
from prunec.training.stopwatch import Stopwatch
from prunec.wording import first_line

UNMADE = RunFolder(Path("runs") / "not-made-yet")
PROBE = 10  # part of the seed of the trial forward pass: no other random number is drawn with it


@dataclass(frozen=True)
class Prepared:
    """A training that is ready to start or to continue.

    Attributes:
        opened: its recipe, with data and passes.
        artifact: input of the next pass.
        done: number of passes that have left their artifact.
        context: context of the training passes; its run is set by :meth:`within`.
    """

    opened: OpenedRecipe
    artifact: Artifact
    done: int
    context: Context

    def within(self, run: RunFolder) -> Prepared:
        """Return a copy that is written into a run."""
        return replace(self, context=replace(self.context, run=run))

    def measuring(self, *, retune: bool, watch: Stopwatch) -> Prepared:
        """Return a copy that measures settings again where asked to, and its start by a watch."""
        return replace(self, context=replace(self.context, retune=retune, watch=watch))


def prepare(
    recipe: Recipe, source: str, *, device: str, progress: Progress, data: Data | None = None
) -> Prepared:
    """Prepare a new training of a recipe; nothing is written.

    Args:
        recipe: the recipe.
        source: its file, for errors.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: receiver of progress.
        data: its data, if already loaded.

    Raises:
        PrunecError: data or weights are missing, the network does not take the data, a pass cannot
            train it, a budget is out of reach, …
    """
    opened = OpenedRecipe(lambda: recipe, source, data)
    place = _require_training(opened, device)
    # A mistake in [[export]] is found before the training, not after it.
    exporters = opened.exporters()
    opened.require_servable(exporters)
    require_judgeable(opened, exporters)
    data = _data(opened)
    artifact = opened.fresh(progress.note)
    opened.require_servable(exporters, (artifact.module, artifact.example))
    _require_answers(recipe, artifact, data)
    context = _context(opened, data, artifact, place, UNMADE, progress, resume=False)
    _require_possible(opened, artifact, context)
    return Prepared(opened, artifact, 0, context)


def prepare_untrained(
    recipe: Recipe,
    source: str,
    forms: Sequence[str] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Untrained:
    """Build the network of a recipe without a training pass, and load its data; write nothing.

    Args:
        recipe: the recipe.
        source: its file, for errors.
        forms: forms to write in addition to the recipe's.
        options: form → options of its exporter that override the recipe's.

    Raises:
        PrunecError: data or weights are missing, the network does not take its inputs, …
    """
    opened = OpenedRecipe(lambda: recipe, source)
    exporters = opened.exporters(forms, options)
    opened.require_servable(exporters)
    require_judgeable(opened, exporters)
    artifact = opened.fresh()
    opened.require_servable(exporters, (artifact.module, artifact.example))
    return Untrained(artifact, opened.images)


def prepare_again(run: RunFolder, *, device: str, progress: Progress) -> Prepared:
    """Prepare a training that continues a run after its last sound artifact.

    Raises:
        PrunecError: as :func:`prepare`, or the run is damaged.
    """
    opened = OpenedRun(run)
    place = _require_training(opened, device)
    data = _data(opened)
    artifact, done = resumed(opened, opened.trained, progress.note)
    artifact = artifact or opened.fresh()
    context = _context(opened, data, artifact, place, run, progress, resume=True)
    return Prepared(opened, artifact, done, context)


def _require_training(opened: OpenedRecipe, device: str) -> torch.device:
    """Return the device; refuse a recipe without a training pass."""
    if not opened.trained:
        raise RunError(
            f"{opened.recipe.name} has no training pass", remedy="Add one: [[pass]] name = …"
        )
    place = torch_device(device)
    if place.type == "cuda":
        # torch allocates on the current device, which is GPU 0 in every process otherwise.
        torch.cuda.set_device(place)
    return place


def _data(opened: OpenedRecipe) -> Data:
    # In turns: the first unpacks or indexes the data, the others find it done.
    with processes_here().turns():
        return opened.data


def _context(
    opened: OpenedRecipe,
    data: Data,
    artifact: Artifact,
    place: torch.device,
    run: RunFolder,
    progress: Progress,
    *,
    resume: bool,
) -> Context:
    recipe = opened.recipe
    teacher = _teacher(recipe, data, artifact.example).to(place) if recipe.train.teacher else None
    return Context(
        recipe, data, place, run, progress, resume, processes_here(), teacher,
        _auxiliary(recipe, data),
    )  # fmt: skip


def _require_answers(recipe: Recipe, artifact: Artifact, data: Data) -> None:
    """Refuse a network whose outputs in training mode do not fit the data's task."""
    # A copy: batch norms change their statistics in training mode.
    module = copy.deepcopy(artifact.module).train()
    images = artifact.example[0].clone()
    try:
        with seeded(recipe.seed, PROBE), torch.no_grad():
            data.task.read(module(images), images)
    except PrunecError:
        raise
    except Exception as error:  # whatever the network's own code raises
        raise DataError(
            f"{recipe.model.name} does not train on an input of "
            f"{'×'.join(map(str, data.shape))}: {first_line(error)}",
            remedy=OF_DATA,
        ) from error


def _require_possible(opened: OpenedRecipe, artifact: Artifact, context: Context) -> None:
    """Refuse a network that the first pass cannot train, and a budget below a pass's aim."""
    budget = opened.recipe.verify.budget.macs_ratio
    for index, step in enumerate(opened.passes):
        place = f"{opened.source}: pass[{index}] ({step.pass_name()})"
        aims = getattr(step, "macs_ratio", None)
        if budget is not None and aims is not None and aims > budget:
            raise RecipeError(
                f"{place} aims at macs_ratio = {aims:g}, verify.budget.macs_ratio allows "
                f"{budget:g}: no file would ship",
                remedy=f"Lower the pass's macs_ratio to {budget:g} or a little less, or raise "
                "verify.budget.macs_ratio.",
            )
    first = opened.passes[0]
    if isinstance(first, Training):
        try:
            first.require_possible(artifact, context)
        except PassError as error:
            what = error.message.removeprefix(f"{first.pass_name()}").lstrip(": ")
            place = f"{opened.source}: pass[0] ({first.pass_name()})"
            raise RecipeError(f"{place}: {what}", remedy=error.remedy) from error


def _auxiliary(recipe: Recipe, data: Data) -> nn.Module | None:
    """Return the auxiliary head, used only in training; None unless the recipe asks for it."""
    if not recipe.train.auxiliary:
        return None
    return build_auxiliary(recipe.model, data.classes, seed=recipe.seed)


def _teacher(recipe: Recipe, data: Data, example: tuple[torch.Tensor, ...]) -> nn.Module:
    """Return the teacher network of the recipe's distillation, in eval mode, without gradients."""
    spec = recipe.train.teacher
    assert spec is not None
    if spec.model is not None:
        module = build_model(spec.model, data.classes, seed=recipe.seed)
    else:
        teacher = OpenedRun(open_run(Path(spec.run)), data)
        if not teacher.done:
            error = unfinished(teacher.run, "finished pass")
            raise RunError(f"train.teacher.run: {error.message}", remedy=error.remedy)
        module = absorbed(teacher.artifact(teacher.done[-1]).module)
    module.eval().requires_grad_(False)
    try:
        with torch.no_grad():
            data.task.read(module(*(x.clone() for x in example)), example[0])
    except Exception as error:  # whatever the network's own code raises
        raise DataError(
            f"train.teacher does not fit the data: {first_line(error)}",
            remedy=f"It must take {'×'.join(map(str, data.shape))} and return {data.classes} "
            "logits.",
        ) from error
    return module


def torch_device(name: str) -> torch.device:
    """Return the device of this process for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        DataError: CUDA was asked for and is not available, or the machine has too few GPUs.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DataError("no CUDA device is available", remedy="Use --device cpu, or auto.")
    local, count = processes_here().local, torch.cuda.device_count()
    if local >= count:
        raise DataError(
            f"process {local} of this machine has no GPU of its own: there are {count}",
            remedy=f"Start at most {count}: torchrun --nproc-per-node {count}",
        )
    return torch.device("cuda", local)
