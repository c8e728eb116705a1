"""`--no-code`: a run's folder that was received, looked at without running its code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli.results import tell_export
from prunec.errors import RunError

if TYPE_CHECKING:
    from prunec.store.runs import RunFolder

NoCode = Annotated[
    bool,
    typer.Option(
        "--no-code", help="Of a folder that was received: run no code that its recipe names."
    ),
]


def verify_without_code(run: RunFolder, onnx: Path | None, as_json: bool) -> None:
    """Print what is found of the folder's files; exit with 2 where a check failed.

    Raises:
        RunError: a file is named: only those that the folder records can be checked so.
    """
    if onnx is not None:
        raise RunError(
            "--no-code checks the files that the run's folder records",
            remedy="Leave --onnx out; another file is compared with the network itself.",
        )
    from prunec import pipeline

    tell_export(pipeline.verify_received(run), as_json)


def inspect_without_code(run: RunFolder, as_json: bool) -> None:
    """Print the layers of every file that the folder records."""
    from prunec import pipeline

    costs = pipeline.inspect_received(run)
    if as_json:
        typer.echo(pipeline.costs_json(costs))
        return
    from rich.console import Console

    for form, cost in costs.items():
        Console().print(cost.table(f"{run.name}, {form}"))
