"""What a verification finds: checks as values, together a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

Value = int | float | str | None


@dataclass(frozen=True)
class Check:
    """One thing that was compared.

    Attributes:
        name: what was compared.
        expected: what it should be.
        found: what it is.
        tolerance: how far they may lie apart; None where they must be equal.
        passed: the verdict.
        message: what is wrong, in a sentence or two; empty when nothing is.
    """

    name: str
    expected: Value
    found: Value
    tolerance: float | None
    passed: bool
    message: str = ""


@dataclass(frozen=True)
class Report:
    """All checks of a file, in order, and what else is worth knowing."""

    checks: tuple[Check, ...]
    details: dict[str, object] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.passed)

    def to_json(self) -> str:
        """Return the report as JSON; numbers that are not finite become text."""
        return _json(self.to_dict())

    def to_dict(self) -> dict[str, object]:
        """Return the report as JSON has it."""
        return {
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
            "details": self.details,
        }


@dataclass(frozen=True)
class ExportReport:
    """What was found of every form of an export.

    Attributes:
        forms: form → the report of its file.
        details: what else is worth knowing of the network: its layers, when it was checked.
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
        """Return one report: that of the only form, or all checks with their form's name."""
        if len(self.forms) == 1:
            return next(iter(self.forms.values()))
        checks = [
            replace(check, name=f"{form}: {check.name}")
            for form, report in self.forms.items()
            for check in report.checks
        ]
        return Report(tuple(checks), {form: report.details for form, report in self.forms.items()})


def _json(document: object) -> str:
    return json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False)


def equal(name: str, expected: Value, found: Value, wrong: str) -> Check:
    """Return the check that two values are the same; ``wrong`` says what it means if not."""
    passed = expected == found
    return Check(name, expected, found, None, passed, "" if passed else wrong)


def at_most(name: str, limit: float, found: float, wrong: str) -> Check:
    """Return the check that a number stays within a limit; not-a-number does not."""
    passed = found <= limit
    return Check(name, f"≤ {limit:g}", found, None, passed, "" if passed else wrong)


def at_least(name: str, limit: float, found: float, wrong: str) -> Check:
    """Return the check that a number reaches a limit; not-a-number does not."""
    passed = found >= limit
    return Check(name, f"≥ {limit:g}", found, None, passed, "" if passed else wrong)


def failed(name: str, expected: Value, found: Value, wrong: str) -> Check:
    """Return a check that failed before it could compare."""
    return Check(name, expected, found, None, False, wrong)


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value
