"""Checks as text: a table of 80 columns, with failures explained below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.text import Text

from prunec.deploy.checks.check import Check, Value
from prunec.tables import FittedTable, table

MARKS = ("✓", "✗")
PLAIN_MARKS = ("ok", "NO")
"""Marks for terminals that cannot show the others."""

ONLY_RANDOM = "Not proven on real samples: name a data set ([data], --data, data=)."


def shown(
    checks: Sequence[Check],
    not_checked: Sequence[str] = (),
    title: str = "Parity",
    marks: tuple[str, str] = MARKS,
) -> list[RenderableType]:
    """Return one row per check, one sentence per failure, and the verdict.

    Args:
        checks: checks of a file, in order.
        not_checked: phrases on what could not be checked, and why.
        title: title of the table.
        marks: marks of checks that passed and that failed.
    """
    failures = [check for check in checks if not check.passed]
    lines = [Text.assemble((f"{check.name}: ", "bold red"), check.message) for check in failures]
    lines += [Text(f"not checked: {reason}", style="yellow") for reason in not_checked]
    count = len(checks)
    if failures:
        verdict = f"{len(failures)} of {count} checks failed: do not ship."
        lines.append(Text(verdict, style="bold red"))
    elif only_random(check.name for check in checks):
        lines.append(Text(f"All {count} checks passed, on random inputs.", style="bold green"))
        lines.append(Text(ONLY_RANDOM, style="yellow"))
    else:
        lines.append(Text(f"All {count} checks passed.", style="bold green"))
    return [_table(checks, title, marks), *lines]


def only_random(names: Iterable[str]) -> bool:
    """Return whether outputs were compared on random inputs only, by the names of all checks."""
    kinds = {name.rpartition(": ")[2] for name in names}
    return "outputs, random" in kinds and not kinds & {"outputs, test split", "top-1 agreement"}


def _table(checks: Sequence[Check], title: str, marks: tuple[str, str]) -> FittedTable:
    made = table(title, "", "check", "expected", "found", numbers=["expected", "found"])
    made.pad_edge, made.firm = True, ()  # wrap long values rather than the names of checks
    for check in checks:
        mark = Text(marks[0], style="green") if check.passed else Text(marks[1], style="red")
        made.add_row(mark, check.name, expected_text(check), value_text(check.found))
    return made


def expected_text(check: Check) -> str:
    """Return the expected value, with its tolerance if there is one."""
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
