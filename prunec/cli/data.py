"""``prunec data check``: reads the images of a recipe before a training does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli import completion
from prunec.cli.arguments import AsJson, Changes
from prunec.cli.groups import Group
from prunec.cli.noise import screen

if TYPE_CHECKING:
    from prunec.recipe import Recipe

data_app = typer.Typer(
    cls=Group,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Check a recipe's data set before training on it.",
)


@data_app.callback()
def data() -> None:
    """Check a recipe's data set before training on it."""


@data_app.command(short_help="Read every image; report damaged files.")
def check(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe file or packaged name.",
            autocompletion=completion.recipe_references,
        ),
    ],
    changes: Changes = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Processes that read images  [default: data.workers]"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read every image of a recipe: count and time them, report damaged files (exit code 2)."""
    from prunec.recipe import load_recipe

    override = [] if workers is None else [f"data.workers={workers}"]
    _check(load_recipe(recipe, [*(changes or []), *override]), as_json)


def _check(recipe: Recipe, as_json: bool) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    from prunec.batches.data_check import check_data
    from prunec.cli.data_tables import data_tables

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft()
    with Progress(*columns, console=Console(file=screen()), transient=True) as progress:
        tasks = {name: progress.add_task(name, start=False, total=None) for name in SPLITS}

        def advance(split: str, done: int, images: int) -> None:
            progress.start_task(tasks[split])
            progress.update(tasks[split], completed=done, total=images)

        findings = check_data(recipe.data, seed=recipe.seed, told=advance)
    if as_json:
        typer.echo(findings.to_json())
    else:
        console = Console()
        for part in data_tables(findings):
            console.print(part)
    if not findings.passed:
        raise typer.Exit(2)


SPLITS = ("train", "test")
