"""Shows a report to a person: a table in 80 columns, failures explained below it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prunec.deploy.checks.report import Check, Report, Value


def render(report: Report, console: Console, title: str = "Parity") -> None:
    """Print a report: one row a check, then a sentence for each that failed, then the verdict."""
    console.print(_table(report, title, _marks(console)))
    for check in report.failures:
        console.print(Text.assemble((f"{check.name}: ", "bold red"), check.message))
    for reason in _unchecked(report):
        console.print(Text(f"not checked: {reason}", style="yellow"))
    count, failures = len(report.checks), len(report.failures)
    if failures:
        console.print(Text(f"{failures} of {count} checks failed: do not ship.", style="bold red"))
    else:
        console.print(Text(f"All {count} checks passed.", style="bold green"))


def _table(report: Report, title: str, marks: tuple[str, str]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("")
    table.add_column("check", overflow="fold")
    table.add_column("expected", justify="right", overflow="fold")
    table.add_column("found", justify="right", overflow="fold")
    for check in report.checks:
        mark = Text(marks[0], style="green") if check.passed else Text(marks[1], style="red")
        table.add_row(
            mark, Text(check.name), Text(expected_text(check)), Text(value_text(check.found))
        )
    return table


def _marks(console: Console) -> tuple[str, str]:
    return ("✓", "✗") if console.encoding.startswith("utf") else ("ok", "NO")


def expected_text(check: Check) -> str:
    """Return what was expected, with its tolerance where it has one."""
    if check.tolerance is None:
        return value_text(check.expected)
    return f"{value_text(check.expected)} ± {check.tolerance:.3g}"


def value_text(value: Value) -> str:
    """Return a value as a table shows it."""
    match value:
        case None:
            return "—"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
    return value


def _unchecked(report: Report) -> list[str]:
    reasons = report.details.get("not checked", [])
    return [str(reason) for reason in reasons] if isinstance(reasons, (list, tuple)) else []
