"""What an export or a check found, shown; it decides the exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from prunec.deploy.checks import ExportReport


def tell_export(result: ExportReport, as_json: bool = False) -> None:
    """Print what was found of every form; exit with 2 where a check failed."""
    from rich.console import Console

    from prunec.deploy.checks import render

    if as_json:
        typer.echo(result.to_json())
    else:
        for form, report in result.forms.items():
            render(report, Console(), f"Parity of {form}")
    if not result.passed:
        raise typer.Exit(2)
