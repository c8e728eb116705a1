"""The command `prunec compare`: several recipes on equal terms."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from prunec.cli import completion
from prunec.cli.arguments import Changes, in_a_folder


def compare(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE…",
            help="Recipes' files or packaged names.",
            autocompletion=completion.recipe_references,
        ),
    ],
    sparsity: Annotated[
        str | None,
        typer.Option(
            metavar="S,S,…",
            help="Shares of zeros for each recipe: 0.9,0.99  [default: each recipe's own]",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Runs of each, with seeds from 0.")] = 3,
    changes: Changes = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Processes at once  [default: as cores or GPUs allow]"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Of runs and results  [default: in comparisons/]",
            callback=in_a_folder,
        ),
    ] = None,
) -> None:
    """Train recipes at several sparsities and seeds; one table, one plot, one page.

    Every cell of the grid is a run: trained, exported, verified. Data, network, epochs and batch
    size must be equal: --set makes them so for all. The same command goes on where it stopped,
    takes finished cells as they are, and tries failed ones again.
    """
    from rich.console import Console

    from prunec.comparison.compare import compare as run_all
    from prunec.comparison.folder import ComparisonFolder, default_folder
    from prunec.comparison.grid import expand, parse_sparsities

    asked = () if sparsity is None else parse_sparsities(sparsity)
    grid = expand(recipes, sparsities=asked, seeds=seeds, changes=changes or [])
    folder = ComparisonFolder(output or default_folder(grid))
    results = run_all(grid, folder, jobs=jobs, command=sys.argv, console=Console())
    if not all(result.proven for result in results):
        raise typer.Exit(1)
