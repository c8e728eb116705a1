"""Mutated recipes: no traceback, no error above a screen, none that takes long."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from recipes_judged import ALL, judge, table, warm

SLICE = 119  # seven of every kind


@pytest.fixture(autouse=True)
def _warmed() -> None:
    warm()


Told = Callable[[str, object], None]


@pytest.mark.slow
def test_a_slice_of_the_mutants_is_taken_or_refused_in_a_few_lines(record_property: Told) -> None:
    _judged(SLICE, record_property)


@pytest.mark.nightly
def test_every_mutant_is_taken_or_refused_in_a_few_lines(record_property: Told) -> None:
    _judged(ALL, record_property)


def _judged(count: int, told: Told) -> None:
    judged = judge(range(count))
    told("mutants of recipes", table(judged).splitlines())
    assert not [one.flaw for one in judged if one.flaw]
