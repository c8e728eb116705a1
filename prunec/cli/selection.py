"""Which run a command means: a new one, the one to continue, or one that is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prunec.catalogue import self_contained, trains
from prunec.errors import RecipeError, RunError
from prunec.recipe import digest, load_recipe, packaged_recipes
from prunec.store.finding import latest_run, open_run, run_folders, runs_there
from prunec.store.new_runs import create_run
from prunec.store.runs import RunFolder


def new_run(reference: str | None, changes: Sequence[str], root: Path) -> RunFolder:
    """Return a new run of the recipe that ``reference`` names; a wrong recipe leaves no folder.

    Raises:
        RecipeError: there is no such recipe, or it is wrong.
        RunError: the folder cannot be made.
    """
    if reference is None:
        raise RecipeError(
            "no recipe is named", remedy=f"Packaged recipes: {', '.join(packaged_recipes())}."
        )
    recipe = self_contained(load_recipe(reference, changes), reference)
    if not trains(recipe, reference):
        raise RecipeError(
            f"{reference} has no training pass: there is nothing to train",
            remedy=f"Cut, write and prove its network: prunec export {reference}",
        )
    return create_run(recipe, root)


def new_untrained_run(reference: str, root: Path) -> RunFolder:
    """Return a new run of a recipe without a training pass.

    Raises:
        RecipeError: there is no such recipe, it is wrong, or a pass of it trains.
    """
    recipe = self_contained(load_recipe(reference), reference)
    if trains(recipe, reference):
        raise RecipeError(
            f"{reference} has a training pass",
            remedy=f"Train it first: prunec train {reference}; then export the run.",
        )
    return create_run(recipe, root)


def find_run(reference: str | None, root: Path) -> RunFolder:
    """Return the run at a path, of a name in ``root``, or the latest of a recipe or of all.

    Raises:
        RunError: there is none.
    """
    if reference is None:
        return latest_run(root)
    if Path(reference).is_dir():
        return open_run(Path(reference))
    if (root / reference).is_dir():
        return open_run(root / reference)
    if any(run.recipe_name == reference for run in run_folders(root)):
        return latest_run(root, reference)
    raise RunError(f"there is no run {reference}", remedy=runs_there(root))


def resumed_run(reference: str | None, changes: Sequence[str], root: Path) -> RunFolder:
    """Return the run to continue: that of `find_run`, or the latest of a recipe's file.

    Raises:
        RunError: there is none, or the recipe is not the one that the run began with.
    """
    if reference is None or not (changes or Path(reference).suffix == ".toml"):
        return _unfinished(_unchanged(find_run(reference, root), changes))
    recipe = self_contained(load_recipe(reference, changes), reference)
    run = latest_run(root, recipe.name)
    if run.record.get("digest") != digest(recipe):
        raise RunError(
            f"{reference} is not the recipe that {run.path} began with",
            remedy=f"Continue it as it began: prunec train --resume {run.path}; or leave --resume "
            f"out and begin a new run.",
        )
    return _unfinished(run)


def _unchanged(run: RunFolder, changes: Sequence[str]) -> RunFolder:
    if changes:
        raise RunError(
            f"{run.path} continues with the recipe that it began with",
            remedy="Leave --set out, or leave --resume out and begin a new run.",
        )
    return run


def _unfinished(run: RunFolder) -> RunFolder:
    if run.status in ("trained", "exported") and not _damage(run):
        raise RunError(
            f"{run.path} is trained to its end", remedy=f"Ship it with: prunec export {run.path}"
        )
    return run


def _damage(run: RunFolder) -> tuple[str, ...]:
    """What training must make again, for it is not as it was written."""
    from prunec.pipeline.opened import OpenedRun  # here: it imports torch

    return OpenedRun(run).damaged
