"""``prunec inspect``: shows layers and channel groups."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli import completion
from prunec.cli.arguments import AsJson, Classes, Inputs, Root, Weights, parsed_inputs, run_of
from prunec.cli.printing import print_parts
from prunec.cli.received import NoCode, inspect_without_code
from prunec.errors import PrunecError, RunError

if TYPE_CHECKING:
    from prunec.inspection.network import Inspection
    from prunec.recipe import Recipe
    from prunec.store.runs import RunFolder


def inspect(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|RECIPE|NETWORK",
            help="A run, a recipe file, or a network as in model.name  [default: the latest run]",
            autocompletion=completion.inspectable,
        ),
    ] = None,
    as_json: AsJson = False,
    inputs: Inputs = None,
    weights: Weights = "",
    classes: Classes = 0,
    no_code: NoCode = False,
    runs: Root = None,
) -> None:
    """Show layers and channel groups of a run, a recipe or a network, and the share that is left.

    With --no-code, show only the layers of the files that a run's folder holds.
    """
    if no_code:
        inspect_without_code(run_of(target, runs), as_json)
        return
    given = {"--input": inputs, "--weights": weights, "--classes": classes}
    recipe = _recipe(target, runs)
    if recipe is not None:
        if any(given.values()):
            raise PrunecError(
                f"{target} has its own inputs, weights and classes",
                remedy="Leave --input, --weights and --classes out: they are for networks by name.",
            )
        from prunec import pipeline

        _print(pipeline.inspect_recipe(recipe, str(target)), as_json)
        return
    subject = _subject(target, runs)

    from prunec import pipeline

    _print(pipeline.inspect(subject, parsed_inputs(inputs), weights, classes), as_json)


def _recipe(target: str | None, runs: Path | None) -> Recipe | None:
    """Return the recipe in a file, or the packaged recipe without a run; None for anything else."""
    from prunec.recipe import load_recipe, packaged_recipes

    if target is None:
        return None
    if target.endswith(".toml") and not Path(target).is_dir():
        return load_recipe(target)
    if target not in packaged_recipes():
        return None
    from prunec.store.states import NoneLeft

    try:
        run_of(target, runs)
    # Its runs exist, but all failed or still train: the name means a run, not the recipe.
    except NoneLeft:
        return None
    except RunError:
        return load_recipe(target)
    return None


def _subject(target: str | None, runs: Path | None) -> RunFolder | str:
    """Return the run that ``target`` names; where there is none, ``target`` as a network's name."""
    from prunec.store.states import NoneLeft

    try:
        return run_of(target, runs)
    except RunError as error:
        if target is None or "/" in target or isinstance(error, NoneLeft):
            raise
        return target


def _print(inspection: Inspection, as_json: bool) -> None:
    from prunec.inspection.network import inspection_tables

    if as_json:
        typer.echo(inspection.to_json())
    else:
        print_parts(*inspection_tables(inspection))
