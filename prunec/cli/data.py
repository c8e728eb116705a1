"""``prunec data check``: reads the images of a recipe before a training does."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from prunec.cli import completion
from prunec.cli.arguments import AsJson, Changes
from prunec.cli.groups import Group
from prunec.cli.noise import screen

if TYPE_CHECKING:
    from prunec.batches.data_findings import DataFindings
    from prunec.recipe import Recipe
    from prunec.training.pace import Pace

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
            help="A recipe file or packaged name",
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
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        typer.Option(
            metavar="DEVICE",
            help="Also time batches and training steps on auto, cpu or cuda; report the slower",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read every image of a recipe: count and time them, report damaged files (exit code 2)."""
    from rich.console import Console

    from prunec.cli.data_tables import data_tables, pace_table
    from prunec.recipe import load_recipe

    override = [] if workers is None else [f"data.workers={workers}"]
    asked = load_recipe(recipe, [*(changes or []), *override])
    # The check comes before the measurement: a damaged image would end it.
    findings = _checked(asked)
    pace = _pace(asked, recipe, device) if device and findings.passed else None
    if as_json:
        said = json.loads(findings.to_json())
        if pace:
            said["pace"] = {**asdict(pace), "bound": pace.bound, "together": pace.together}
        typer.echo(json.dumps(said, indent=2))
    else:
        console = Console()
        for part in (*data_tables(findings), *(pace_table(pace) if pace else ())):
            console.print(part)
    if not findings.passed:
        raise typer.Exit(2)


def _pace(recipe: Recipe, source: str, device: str) -> Pace:
    from rich.console import Console

    from prunec.pipeline import prepare
    from prunec.processes import workers_here
    from prunec.training.pace import measure_pace
    from prunec.training.progress import SilentProgress

    progress = SilentProgress(Console(quiet=True))
    prepared = prepare(recipe, source, device=device, progress=progress)
    # A data set in memory has no workers to time.
    held = not hasattr(prepared.context.data, "workers")
    workers = 0 if held else workers_here(recipe.data.workers)
    return measure_pace(prepared.artifact.module, prepared.context, workers)


def _checked(recipe: Recipe) -> DataFindings:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    from prunec.batches.data_check import check_data

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft()
    with Progress(*columns, console=Console(file=screen()), transient=True) as progress:
        tasks = {name: progress.add_task(name, start=False, total=None) for name in SPLITS}

        def advance(split: str, done: int, images: int) -> None:
            # Started with the first image, so that the test split's time does not include the
            # training split's.
            progress.start_task(tasks[split])
            progress.update(tasks[split], completed=done, total=images)

        return check_data(recipe.data, seed=recipe.seed, report=advance)


SPLITS = ("train", "test")
