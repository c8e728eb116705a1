"""Table of forms by runner: which runner proved which form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class Judged(Protocol):
    """Name and outcome of a check."""

    @property
    def name(self) -> str:
        """Name of the check, prefixed with the runner's name unless it is the form's own runner."""

    @property
    def passed(self) -> bool:
        """Whether the check passed."""


@dataclass(frozen=True)
class FormRow:
    """A form and its outcome under each runner.

    Attributes:
        form: name of the form.
        bytes: size of its file; None if unknown.
        outcomes: runner → whether all its checks passed.
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
    """Group the checks of a form by runner.

    Args:
        form: name of the form.
        size: size of its file in bytes.
        own: the form's own runner, which made all checks without a runner's name.
        others: other runners that opened the file.
        checks: all checks of the form.
    """
    outcomes = {own: True} if own else {}
    outcomes |= dict.fromkeys(others, True)
    for check in checks:
        runner = check.name.partition(": ")[0]
        # Names of the form's own checks may contain a colon too.
        runner = runner if runner in outcomes else own
        if not check.passed and runner:
            outcomes[runner] = False
    return FormRow(form, size, outcomes)


def runners_of(rows: Iterable[FormRow]) -> tuple[str, ...]:
    """Return all runners, in the order of appearance."""
    return tuple(dict.fromkeys(name for row in rows for name in row.outcomes))


def has_several(rows: Sequence[FormRow]) -> bool:
    """Return whether there is a runner, and more than one runner or file to compare."""
    runners = runners_of(rows)
    return bool(runners) and (len(rows) > 1 or len(runners) > 1)
