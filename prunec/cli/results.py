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
        _tell_runners(result)
    if not result.passed:
        raise typer.Exit(2)


def _tell_runners(result: ExportReport) -> None:
    """Print which form was proven by which runner, where there are several of either."""
    from rich.console import Console
    from rich.text import Text

    from prunec.charts.scales import size
    from prunec.deploy.checks.by_runner import form_row, runners_of, worth_a_table
    from prunec.deploy.checks.render import MARKS, PLAIN_MARKS
    from prunec.tables import table

    rows = []
    for form, report in result.forms.items():
        known = report.details
        own = known.runner.name if known.runner else ""
        others = [other.name for other in known.other_runners]
        rows.append(form_row(form, known.bytes, own, others, report.checks))
    if not worth_a_table(rows):
        return
    console, runners = Console(), runners_of(rows)
    marks = MARKS if console.encoding.startswith("utf") else PLAIN_MARKS
    shown = {True: Text(marks[0], "green"), False: Text(marks[1], "red"), None: Text("—")}
    made = table("Forms, by runner", "form", "bytes", *runners, numbers=["bytes"])
    for row in rows:
        bytes_ = "—" if row.bytes is None else size(row.bytes)
        made.add_row(row.form, bytes_, *(shown[row.outcomes.get(runner)] for runner in runners))
    console.print(made)
