"""Output and exit code of the commands that end in a verdict: compile, export, verify."""

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
        help="Write the checks as JUnit XML, one test case per check",
        callback=in_a_folder,
    ),
]


@dataclass(frozen=True)
class Ending:
    """Output of a command with a verdict.

    Attributes:
        as_json: print JSON on stdout, and progress on stderr.
        junit: file for the checks as JUnit XML.
        wishes: the bundle to write of the forms that passed; None for no bundle.
    """

    as_json: bool = False
    junit: Path | None = None
    wishes: Wishes | None = None

    def begin(self) -> None:
        """Check output places and signing key before anything is computed.

        Raises:
            RunError: a place is taken or cannot be written, or the key cannot sign.
            PassError: the package that signs is not installed.
        """
        from prunec.files import require_writable

        if self.junit:
            require_writable(self.junit)
        if self.wishes and self.wishes.place:
            from prunec.pipeline import require_wishes

            # Exports take minutes: a key that cannot sign must not end them.
            require_wishes(self.wishes)

    def note(self, line: str) -> None:
        """Print a line of progress."""
        typer.echo(line, err=self.as_json)

    def end(self, result: ExportReport, run: RunFolder | None = None) -> None:
        """Write JUnit file and bundle, print the result; exit with 2 where a check failed."""
        if self.junit:
            from prunec.deploy.checks.junit import junit_xml
            from prunec.files import write_text_atomic

            write_text_atomic(self.junit, junit_xml(result))
        place = self.wishes.place if self.wishes else None
        # Forms that failed stay out; without any other there is no bundle.
        if place and run and any(form.passed for form in result.forms.values()):
            from prunec.pipeline import write_bundle

            forms = write_bundle(run, result, place, self.wishes)
            self.note(f"Wrote {place}: {', '.join(forms)}")
        _print(result, self.as_json)
        if not result.passed:
            raise typer.Exit(2)


def _print(result: ExportReport, as_json: bool) -> None:
    """Print the checks of every form."""
    from rich.console import Console

    from prunec.deploy.checks import render

    if as_json:
        typer.echo(result.to_json())
        return
    for form, report in result.forms.items():
        render(report, Console(), f"Parity of {form}")
    _print_runners(result)


def _print_runners(result: ExportReport) -> None:
    """Print the table of forms by runners, where there are several of either."""
    from rich.console import Console
    from rich.text import Text

    from prunec.charts.scales import size
    from prunec.deploy.checks.by_runner import form_row, has_several, runners_of
    from prunec.deploy.checks.render import MARKS, PLAIN_MARKS
    from prunec.tables import table

    rows = []
    for form, report in result.forms.items():
        details = report.details
        own = details.runner.name if details.runner else ""
        others = [other.name for other in details.other_runners]
        rows.append(form_row(form, details.bytes, own, others, report.checks))
    if not has_several(rows):
        return
    console, runners = Console(), runners_of(rows)
    # Terminals of other encodings cannot print the check mark.
    marks = MARKS if console.encoding.startswith("utf") else PLAIN_MARKS
    shown = {True: Text(marks[0], "green"), False: Text(marks[1], "red"), None: Text("—")}
    made = table("Forms, by runner", "form", "bytes", *runners, numbers=["bytes"])
    for row in rows:
        bytes_ = "—" if row.bytes is None else size(row.bytes)
        made.add_row(row.form, bytes_, *(shown[row.outcomes.get(runner)] for runner in runners))
    console.print(made)
