"""Judges the mutants of a bench, prints their table, and demands what must hold of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import pytest
from mutant_table import Outcome, rows

NAMED = 0.95
"""Share of the harmful mutants whose culprit the message must name."""
Told = Callable[[str, object], None]
Mutant = TypeVar("Mutant", contravariant=True)


class Bench(Protocol[Mutant]):
    """Makes mutants of something and judges them."""

    def mutants(self, count: int, seed: int) -> Iterable[tuple[Mutant, ...]]:
        """Return so many mutants: what ``judge`` is called with."""

    def judge(self, *mutant: Mutant) -> Outcome:
        """Return what becomes of one."""


def slice_and_all(few: int, many: int) -> pytest.MarkDecorator:
    """Run a test with a few mutants, and with many at night, drawn from other seeds."""
    return pytest.mark.parametrize(
        ("count", "seed"),
        [
            pytest.param(few, 1, id="slice", marks=pytest.mark.slow),
            pytest.param(many, 2, id="all", marks=pytest.mark.nightly),
        ],
    )


def require_caught(bench: Bench[Mutant], count: int, seed: int, what: str, told: Told) -> None:
    """Judge mutants: none crashes, none that does harm passes, the culprit is named."""
    outcomes = [bench.judge(*mutant) for mutant in bench.mutants(count, seed)]
    told(f"mutants of {what}", rows(sorted(outcomes, key=lambda outcome: outcome.family)))
    assert not [(o.family, o.name, o.crashed) for o in outcomes if o.crashed]
    assert not [(o.family, o.name) for o in outcomes if o.missed]
    nameable = [o for o in outcomes if o.harmful and o.caught and o.named is not None]
    unnamed = [(o.family, o.name) for o in nameable if not o.named]
    assert len(unnamed) <= (1 - NAMED) * len(nameable), unnamed
