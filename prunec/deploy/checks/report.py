"""What a verification finds: checks as values, together a report."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

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
        document = {
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
            "details": self.details,
        }
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
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value
