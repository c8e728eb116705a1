"""A run's folder or a bundle that was received, looked at without running its code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.errors import RunError

if TYPE_CHECKING:
    from prunec.cli.results import Ending
    from prunec.store.runs import RunFolder

NoCode = Annotated[
    bool,
    typer.Option(
        "--no-code", help="Of a folder that was received: run no code that its recipe names."
    ),
]


def verify_without_code(
    run: RunFolder, onnx: Path | None, ending: Ending, runners: Sequence[str]
) -> None:
    """Print what is found of the folder's files; exit with 2 where a check failed.

    Raises:
        RunError: a file or a runner is named: only those that the folder records can be checked so.
    """
    if runners:
        raise RunError(
            "--no-code runs the files here",
            remedy="Leave --runner out; a bundle can be checked elsewhere: verify BUNDLE --runner",
        )
    if onnx is not None:
        raise RunError(
            "--no-code checks the files that the run's folder records",
            remedy="Leave --onnx out; another file is compared with the network itself.",
        )
    from prunec import pipeline

    ending.end(pipeline.verify_received(run))


def names_bundle(reference: str) -> bool:
    """Say whether a command line means a bundle; imports nothing heavy."""
    path = Path(reference)
    if path.is_dir():
        return (path / "manifest.json").is_file() and not (path / "run.json").exists()
    return path.suffix.lower() == ".zip"


def verify_received_bundle(
    path: Path, onnx: Path | None, ending: Ending, runners: Sequence[str], key: Path | None = None
) -> None:
    """Print what is found of a bundle, here and by runners; exit with 2 where a check failed.

    Raises:
        RunError: it is not there, or a file is named besides.
    """
    if onnx is not None:
        raise RunError(f"{path} is a bundle: its own files are checked", remedy="Leave --onnx out.")
    if not path.exists():
        raise RunError(f"there is no bundle {path}")
    from prunec import pipeline

    found = pipeline.verify_bundle_on(path, runners, key)
    for report in found.forms.values():
        for remark in report.details.remarks:
            ending.tell(remark)
    ending.end(found)


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
