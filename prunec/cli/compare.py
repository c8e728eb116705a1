"""``prunec compare``: trains several recipes on equal terms."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli import completion
from prunec.cli.arguments import AsJson, Changes, in_a_folder
from prunec.cli.noise import screen

if TYPE_CHECKING:
    from prunec.comparison.elsewhere import Arguments
    from prunec.comparison.folder import ComparisonFolder
    from prunec.comparison.on_ray import RayCluster
    from prunec.comparison.results import Result


def compare(
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE…",
            help="Recipe files or packaged names",
            autocompletion=completion.recipe_references,
        ),
    ],
    sparsity: Annotated[
        str | None,
        typer.Option(
            metavar="S,S,…",
            help="Sparsities to train each recipe at: 0.9,0.99  [default: each recipe's own]",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Runs per cell, with seeds from 0")] = 3,
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
            help="Folder of runs and results  [default: in comparisons/]",
            callback=in_a_folder,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="CLUSTER",
            help="Run cells on a Ray cluster whose nodes share FOLDER: ray, ray://HOST:PORT.  "
            "[default: here]",
        ),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="N", help="GPUs per cell on Ray; 0.5: two cells at once  [default: 1]"
        ),
    ] = None,
    listed: Annotated[
        bool,
        typer.Option(
            "--list", help="Print one command per unfinished cell, for any machine; run none"
        ),
    ] = False,
    cell: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Run only this cell; --list prints the names"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train recipes at several sparsities and seeds; write one table, one plot, one page.

    Every cell of the grid is a run: trained, exported, verified. Data, network, epochs and batch
    size must be equal: --set makes them so. The same command again continues where it stopped: it
    keeps finished cells and repeats failed ones. Exit code 2: not every cell is proven.
    """
    from rich.console import Console

    from prunec.comparison.compare import compare as run_all
    from prunec.comparison.elsewhere import Arguments, commands_left, run_cell
    from prunec.comparison.folder import ComparisonFolder, default_folder
    from prunec.comparison.grid import expand, parse_sparsities

    asked = () if sparsity is None else parse_sparsities(sparsity)
    grid = expand(recipes, sparsities=asked, seeds=seeds, changes=changes or [])
    folder = ComparisonFolder(output or default_folder(grid))
    # With --json the verdict alone goes to stdout, which a program reads.
    console = Console(file=screen()) if as_json else Console()
    request = Arguments(tuple(recipes), sparsity or "", seeds, tuple(changes or ()), folder.path)
    if listed:
        _list(commands_left(grid, folder, request), as_json)
        return
    if cell is not None:
        result = run_cell(grid, folder, cell, console)
        if as_json:
            typer.echo(json.dumps(asdict(result), indent=2, ensure_ascii=False))
        # The exit code of a single cell is the verdict for the scheduler that runs it.
        raise typer.Exit(0 if result.proven else 2)
    cluster = _cluster(on, request, gpus)
    results = run_all(grid, folder, jobs=jobs, command=sys.argv, console=console, cluster=cluster)
    if as_json:
        typer.echo(json.dumps(_as_dict(results, folder), indent=2, ensure_ascii=False))
    if not _proven(results):
        raise typer.Exit(2)


def _list(commands: list[list[str]], as_json: bool) -> None:
    """Print one command per line, quoted for a shell; or all as JSON."""
    if as_json:
        typer.echo(json.dumps([["prunec", *words] for words in commands], indent=2))
        return
    for words in commands:
        typer.echo(shlex.join(["prunec", *words]))


def _cluster(on: str | None, request: Arguments, gpus: float | None) -> RayCluster | None:
    from prunec.comparison.on_ray import RayCluster
    from prunec.errors import UsageError

    if on is None:
        if gpus is not None:
            raise UsageError("--gpus needs --on ray", remedy="Leave it out, or add --on ray.")
        return None
    if on != "ray" and not on.startswith("ray://"):
        raise UsageError(
            f"--on {on} is neither ray nor the address of a Ray cluster",
            remedy="For example: --on ray, --on ray://HOST:10001",
        )
    return RayCluster("auto" if on == "ray" else on, request, gpus)


def _proven(results: Sequence[Result]) -> bool:
    return all(result.proven for result in results)


def _as_dict(results: Sequence[Result], folder: ComparisonFolder) -> dict[str, object]:
    """Return the verdict, the means over seeds and every cell, ready for JSON."""
    from prunec.comparison.results import aggregated

    return {
        "passed": _proven(results),
        "folder": str(folder.path),
        "rows": [asdict(row) for row in aggregated(results)],
        "results": [asdict(result) for result in results],
    }
