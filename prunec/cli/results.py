"""What an export or a check found, shown; it decides the exit code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunec.cli.arguments import in_a_folder

if TYPE_CHECKING:
    from prunec.deploy.checks import ExportReport
    from prunec.deploy.wishes import Wishes
    from prunec.store.runs import RunFolder

JUnit = Annotated[
    Path | None,
    typer.Option(
        "--junit",
        metavar="FILE",
        help="Write the checks as JUnit XML, a test case each.",
        callback=in_a_folder,
    ),
]


@dataclass(frozen=True)
class Ending:
    """How a command with a verdict ends: what it prints and writes, and its exit code.

    Attributes:
        as_json: print JSON; what is told on the way goes to stderr then.
        junit: a file for the checks as JUnit XML.
        wishes: a bundle of what passed; None: none is asked for.
    """

    as_json: bool = False
    junit: Path | None = None
    wishes: Wishes | None = None

    def begin(self) -> None:
        """Refuse places that are taken, and keys that do not sign, before anything is computed.

        Raises:
            RunError: one is, or does not.
            PassError: a bundle is to be signed, and the package for that is missing.
        """
        from prunec.files import require_writable

        if self.junit:
            require_writable(self.junit)
        if self.wishes and self.wishes.place:
            from prunec.pipeline import require_wishes

            require_wishes(self.wishes)

    def tell(self, line: str) -> None:
        """Say how far the command is."""
        typer.echo(line, err=self.as_json)

    def end(self, result: ExportReport, run: RunFolder | None = None) -> None:
        """Write what was asked for, print what was found; exit with 2 where a check failed."""
        if self.junit:
            from prunec.deploy.checks.junit import junit_xml
            from prunec.files import write_text_atomic

            write_text_atomic(self.junit, junit_xml(result))
        place = self.wishes.place if self.wishes else None
        if place and run and any(form.passed for form in result.forms.values()):
            from prunec.pipeline import write_bundle

            forms = write_bundle(run, result, place, self.wishes)
            self.tell(f"Wrote {place}: {', '.join(forms)}")
        _print(result, self.as_json)
        if not result.passed:
            raise typer.Exit(2)


def _print(result: ExportReport, as_json: bool) -> None:
    """Print what was found of every form."""
    from rich.console import Console

    from prunec.deploy.checks import render

    if as_json:
        typer.echo(result.to_json())
        return
    for form, report in result.forms.items():
        render(report, Console(), f"Parity of {form}")
    _tell_runners(result)


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
