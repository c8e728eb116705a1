"""Which run a command means: a new one, the one to continue, or one that is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from prunec.catalogue import self_contained, trains
from prunec.cli.noise import screen
from prunec.errors import RecipeError, RunError, UsageError
from prunec.recipe import Recipe, digest, load_recipe
from prunec.store.finding import open_run, run_folders, runs_there
from prunec.store.runs import RunFolder
from prunec.store.states import resumable_run, sound_run


def trainable(reference: str | None, changes: Sequence[str]) -> tuple[Recipe, str]:
    """Return the recipe that ``reference`` names, of which a pass trains, and where it stands.

    Raises:
        UsageError: none is named.
        RecipeError: there is no such recipe, or it is wrong.
    """
    if reference is None:
        raise UsageError(
            "no recipe is named",
            remedy="Name a file, or one of those that `prunec recipes` lists: prunec train "
            "gdp_mbv2. `prunec init` writes a new one.",
        )
    if (Path(reference) / "run.json").is_file():
        raise RecipeError(
            f"{reference} is a run, not a recipe",
            remedy=f"Go on with it: prunec train --resume {reference}; or begin anew with its "
            f"recipe: prunec train {Path(reference) / 'recipe.toml'}",
        )
    recipe = self_contained(load_recipe(reference, changes), reference)
    if not trains(recipe, reference):
        raise RecipeError(
            f"{reference} has no training pass: there is nothing to train",
            remedy=f"Cut, write and prove its network: prunec export {reference}",
        )
    return recipe, reference


def untrained(reference: str) -> Recipe:
    """Return the recipe that ``reference`` names, of which no pass trains.

    Raises:
        RecipeError: there is no such recipe, it is wrong, or a pass of it trains.
    """
    recipe = self_contained(load_recipe(reference), reference)
    if trains(recipe, reference):
        raise RecipeError(
            f"{reference} has a training pass",
            remedy=f"Train it first: prunec train {reference}; then export the run.",
        )
    return recipe


def find_run(reference: str | None, root: Path) -> RunFolder:
    """Return the run at a path, of a name in ``root``, or the latest of a recipe or of all.

    The latest is one that neither failed nor still trains; which ones were passed over is said.

    Raises:
        RunError: there is none.
    """
    named = named_run(reference, root) if reference else None
    if named:
        return named
    if reference is None or _is_recipe(reference, root):
        return sound_run(root, reference, _say)
    raise RunError(f"there is no run {reference}", remedy=runs_there(root))


def named_run(reference: str, root: Path) -> RunFolder | None:
    """Return the run at a path, or of a name in ``root``; None where neither is there.

    Raises:
        RunError: what is there is no run, or another version of prunec wrote it.
    """
    places = (Path(reference), root / reference)
    return next((open_run(place) for place in places if place.is_dir()), None)


def resumed_run(reference: str | None, changes: Sequence[str], root: Path) -> RunFolder:
    """Return the run to continue: the one named, or the latest that is not finished.

    Raises:
        RunError: there is none, or the recipe is not the one that the run began with.
    """
    if reference is None or not (changes or Path(reference).suffix == ".toml"):
        return _unfinished(_unchanged(_resumable(reference, root), changes))
    recipe = self_contained(load_recipe(reference, changes), reference)
    run = resumable_run(root, recipe.name, _say)
    if run.record.get("digest") != digest(recipe):
        raise RunError(
            f"{reference} is not the recipe that {run.path} began with",
            remedy=f"Continue it as it began: prunec train --resume {run.path}; or leave --resume "
            f"out and begin a new run.",
        )
    return _unfinished(run)


def _resumable(reference: str | None, root: Path) -> RunFolder:
    named = named_run(reference, root) if reference else None
    if named:
        return named
    if reference is None or _is_recipe(reference, root):
        return resumable_run(root, reference, _say)
    raise RunError(f"there is no run {reference}", remedy=runs_there(root))


def _is_recipe(name: str, root: Path) -> bool:
    """Whether a run in ``root`` is of the recipe of this name."""
    return any(run.recipe_name == name for run in run_folders(root))


def _say(sentence: str) -> None:
    """Say on stderr which run is meant: stdout may be read by machines."""
    typer.echo(sentence, file=screen())


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
