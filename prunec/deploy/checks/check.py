"""One thing that is compared of a file, and the common kinds of comparison."""

from __future__ import annotations

from dataclasses import dataclass

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
