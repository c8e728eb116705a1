"""Run folders and bundles from others, checked and inspected without running their code."""

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
    typer.Option("--no-code", help="For a folder from others: run no code that its recipe names"),
]


def verify_without_code(
    run: RunFolder, onnx: Path | None, ending: Ending, runners: Sequence[str]
) -> None:
    """Check the folder's files and print the result; exit with 2 where a check failed.

    Raises:
        RunError: a file or a runner is named: only the files that the folder records are checked,
            by the runners here.
    """
    if runners:
        raise RunError(
            "--no-code runs the files on this machine only",
            remedy="Leave --runner out; for a bundle: prunec verify BUNDLE --runner RUNNER.",
        )
    if onnx is not None:
        raise RunError(
            "--no-code checks only the files that the run's folder records",
            remedy="Leave --onnx out; or leave --no-code out, to compare with the network itself.",
        )
    from prunec import pipeline

    ending.end(pipeline.verify_received(run))


def names_bundle(reference: str) -> bool:
    """Return whether a path is a bundle: a folder with a manifest but no run, or a zip."""
    path = Path(reference)
    if path.is_dir():
        # A run has a manifest too, in export/; a bundle has no run.json.
        return (path / "manifest.json").is_file() and not (path / "run.json").exists()
    return path.suffix.lower() == ".zip"


def verify_received_bundle(
    path: Path, onnx: Path | None, ending: Ending, runners: Sequence[str], key: Path | None = None
) -> None:
    """Check a bundle here and by ``runners``; print the result; exit with 2 where a check failed.

    Raises:
        RunError: the bundle does not exist, or a file is named as well.
    """
    if onnx is not None:
        raise RunError(
            f"{path} is a bundle: only its own files are checked", remedy="Leave --onnx out."
        )
    if not path.exists():
        raise RunError(f"there is no bundle {path}")
    from prunec import pipeline

    result = pipeline.verify_bundle_on(path, runners, key)
    for report in result.forms.values():
        for remark in report.details.remarks:
            ending.note(remark)
    ending.end(result)


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
