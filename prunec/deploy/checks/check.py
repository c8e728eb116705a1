"""A check, and the common kinds of comparison."""

from __future__ import annotations

from dataclasses import dataclass

Value = int | float | str | None


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: name of the compared quantity.
        expected: expected value.
        found: actual value.
        tolerance: allowed difference; None if the values must be equal.
        passed: verdict.
        message: one or two sentences on the failure; empty if the check passed.
    """

    name: str
    expected: Value
    found: Value
    tolerance: float | None
    passed: bool
    message: str = ""


def equal(name: str, expected: Value, actual: Value, wrong: str) -> Check:
    """Return the check that two values are equal; ``wrong`` explains a failure."""
    passed = expected == actual
    return Check(name, expected, actual, None, passed, "" if passed else wrong)


def at_most(name: str, limit: float, actual: float, wrong: str) -> Check:
    """Return the check that a number is within a limit; NaN is not."""
    passed = actual <= limit
    return Check(name, f"≤ {limit:g}", actual, None, passed, "" if passed else wrong)


def at_least(name: str, limit: float, actual: float, wrong: str) -> Check:
    """Return the check that a number reaches a limit; NaN does not."""
    passed = actual >= limit
    return Check(name, f"≥ {limit:g}", actual, None, passed, "" if passed else wrong)


def failed(name: str, expected: Value, actual: Value, wrong: str) -> Check:
    """Return a check that failed before values could be compared."""
    return Check(name, expected, actual, None, False, wrong)
