"""Selection of the recipe or the run that a command line names."""

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
    """Return the recipe that ``reference`` names, and ``reference`` itself.

    Raises:
        UsageError: no recipe is named.
        RecipeError: there is no such recipe, it is wrong, or it has no training pass.
    """
    if reference is None:
        raise UsageError(
            "prunec train needs a recipe",
            remedy="Name a recipe file or one that `prunec recipes` lists: prunec train gdp_mbv2. "
            "`prunec init` writes a new one.",
        )
    if (Path(reference) / "run.json").is_file():
        raise RecipeError(
            f"{reference} is a run, not a recipe",
            remedy=f"Continue it: prunec train --resume {reference}; or start a new run of its "
            f"recipe: prunec train {Path(reference) / 'recipe.toml'}",
        )
    recipe = self_contained(load_recipe(reference, changes), reference)
    if not trains(recipe, reference):
        raise RecipeError(
            f"{reference} has no training pass",
            remedy=f"Export its network as built: prunec export {reference}",
        )
    return recipe, reference


def untrained(reference: str) -> Recipe:
    """Return the recipe without a training pass that ``reference`` names.

    Raises:
        RecipeError: there is no such recipe, it is wrong, or it has a training pass.
    """
    recipe = self_contained(load_recipe(reference), reference)
    if trains(recipe, reference):
        raise RecipeError(
            f"{reference} has a training pass",
            remedy=f"Train it first: prunec train {reference}; then export the run.",
        )
    return recipe


def find_run(reference: str | None, root: Path) -> RunFolder:
    """Return the run at a path, by its name in ``root``, or the latest of a recipe or of all.

    Runs that failed or are still training are skipped, with a message on stderr.

    Raises:
        RunError: there is no such run.
    """
    named = named_run(reference, root) if reference else None
    if named:
        return named
    if reference is None or _is_recipe(reference, root):
        return sound_run(root, reference, _say)
    if Path(reference).is_file():
        raise RunError(
            f"{reference} is a file, not the folder of a run",
            remedy="Files by themselves: prunec count FILE, compact FILE, bench FILE FILE. Beside "
            "the run that wrote it: prunec verify RUN FILE.",
        )
    raise RunError(f"there is no run {reference}", remedy=runs_there(root))


def named_run(reference: str, root: Path) -> RunFolder | None:
    """Return the run at a path, or by its name in ``root``; None where there is no such folder.

    Raises:
        RunError: the folder is not a run, or a newer version of prunec wrote it.
    """
    places = (Path(reference), root / reference)
    return next((open_run(place) for place in places if place.is_dir()), None)


def resumed_run(reference: str | None, changes: Sequence[str], root: Path) -> RunFolder:
    """Return the run to continue: the one named, or the latest unfinished one.

    Raises:
        RunError: there is none, or it started with another recipe.
    """
    # A run by name keeps its own recipe; only a recipe with changes must be compared with it.
    if reference is None or not (changes or Path(reference).suffix == ".toml"):
        return _unfinished(_unchanged(_resumable(reference, root), changes))
    recipe = self_contained(load_recipe(reference, changes), reference)
    run = resumable_run(root, recipe.name, _say)
    if run.record.get("digest") != digest(recipe):
        raise RunError(
            f"{reference} is not the recipe that {run.path} started with",
            remedy=f"Continue it with its own: prunec train --resume {run.path}; or leave --resume "
            f"out to start a new run.",
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
    """Return whether a run in ``root`` is of the recipe of this name."""
    return any(run.recipe_name == name for run in run_folders(root))


def _say(sentence: str) -> None:
    """Print on stderr which run is taken: stdout may be read by a program."""
    typer.echo(sentence, file=screen())


def _unchanged(run: RunFolder, changes: Sequence[str]) -> RunFolder:
    if changes:
        raise RunError(
            f"{run.path} continues with the recipe that it started with",
            remedy="Leave --set out, or leave --resume out to start a new run.",
        )
    return run


def _unfinished(run: RunFolder) -> RunFolder:
    # A finished training with damaged weights may be continued: it makes them again.
    if run.status in ("trained", "exported") and not _damage(run):
        raise RunError(
            f"{run.path} is fully trained", remedy=f"Export it: prunec export {run.path}"
        )
    return run


def _damage(run: RunFolder) -> tuple[str, ...]:
    """Return the parts of the training's output that are damaged and must be made again."""
    from prunec.pipeline.opened import OpenedRun  # here: it imports torch

    return OpenedRun(run).damaged
