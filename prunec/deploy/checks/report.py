"""Result of a verification: all checks of one file, and of all files of an export.

See docs/glossary.md: parity, check.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from rich.console import Console

from prunec.deploy.checks.check import Check
from prunec.deploy.checks.details import Details
from prunec.deploy.checks.render import MARKS, PLAIN_MARKS, shown
from prunec.tables import as_text


@dataclass(frozen=True)
class Report:
    """All checks of a file, in order, and its details.

    See the glossary: [check](glossary.md#check), [parity](glossary.md#parity).
    """

    checks: tuple[Check, ...]
    details: Details = field(default_factory=Details)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """Failed checks."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def not_checked(self) -> tuple[str, ...]:
        """Phrases on what could not be checked, and why."""
        return self.details.not_checked

    def to_json(self) -> str:
        """Return the report as JSON; numbers that are not finite become text."""
        return _json(self.to_dict())

    def to_dict(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return {
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
            "details": self.details.to_dict(),
        }

    def __str__(self) -> str:
        return as_text(*shown(self.checks, self.not_checked))


@dataclass(frozen=True)
class ExportReport:
    """Reports of all forms of an export.

    Attributes:
        forms: form → report of its file.
        details: facts about the network: its layers, the time of the check.
    """

    forms: Mapping[str, Report]
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every check of every form passed."""
        return all(report.passed for report in self.forms.values())

    def to_json(self) -> str:
        """Return the reports as JSON; numbers that are not finite become text."""
        forms = {form: report.to_dict() for form, report in self.forms.items()}
        return _json({"passed": self.passed, **self.details, "forms": forms})

    def merged(self) -> Report:
        """Return one report: that of the only form, or all checks prefixed with their forms."""
        if len(self.forms) == 1:
            return next(iter(self.forms.values()))
        checks = [
            replace(check, name=f"{form}: {check.name}")
            for form, report in self.forms.items()
            for check in report.checks
        ]
        reasons = [
            f"{form}: {reason}"
            for form, report in self.forms.items()
            for reason in report.not_checked
        ]
        known = {form: report.details for form, report in self.forms.items()}
        return Report(tuple(checks), Details(not_checked=tuple(reasons), forms=known))


def render(report: Report, console: Console, title: str = "Parity") -> None:
    """Print a report with the marks that a console can show."""
    marks = MARKS if console.encoding.startswith("utf") else PLAIN_MARKS
    console.print(*shown(report.checks, report.not_checked, title, marks), sep="\n")


def _json(document: object) -> str:
    return json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    # True of NaN and the infinities alone, which JSON lacks.
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value
