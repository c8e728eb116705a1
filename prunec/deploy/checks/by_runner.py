"""Which form was proven by which runner, as one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class Judged(Protocol):
    """A check, by its name and its outcome."""

    @property
    def name(self) -> str:
        """What was checked; behind a runner's name where it was not the form's own."""

    @property
    def passed(self) -> bool:
        """Whether it passed."""


@dataclass(frozen=True)
class FormRow:
    """A form, and its outcome by each runner.

    Attributes:
        form: its name.
        bytes: of its file; None where it is not known.
        outcomes: runner → whether all checks that it made passed.
    """

    form: str
    bytes: int | None
    outcomes: Mapping[str, bool]


def form_row(
    form: str,
    size: int | None,
    own: str,
    others: Iterable[str],
    checks: Sequence[Judged],
) -> FormRow:
    """Divide the checks of a form by who made them.

    Args:
        form: its name.
        size: bytes of its file.
        own: the form's own runner, which made all checks without a runner's name.
        others: the further runners that opened the file.
        checks: all of them.
    """
    outcomes = {own: True} if own else {}
    outcomes |= dict.fromkeys(others, True)
    for check in checks:
        runner = check.name.partition(": ")[0]
        runner = runner if runner in outcomes else own
        if not check.passed and runner:
            outcomes[runner] = False
    return FormRow(form, size, outcomes)


def runners_of(rows: Iterable[FormRow]) -> tuple[str, ...]:
    """Return all runners, in the order in which they appear."""
    return tuple(dict.fromkeys(name for row in rows for name in row.outcomes))


def worth_a_table(rows: Sequence[FormRow]) -> bool:
    """Whether a runner is known, and more than one of them or of the files is to be told of."""
    runners = runners_of(rows)
    return bool(runners) and (len(rows) > 1 or len(runners) > 1)
