"""Mutated recipes: no traceback, no error above a screen, none that takes long."""

from __future__ import annotations

import pytest
from recipes_judged import ALL, judge, table, warm

SLICE = 340  # twenty of every kind


@pytest.fixture(autouse=True)
def _warmed() -> None:
    warm()


def test_a_slice_of_the_mutants_is_taken_or_refused_in_a_few_lines() -> None:
    assert not [one.flaw for one in judge(range(SLICE)) if one.flaw]


@pytest.mark.nightly
def test_every_mutant_is_taken_or_refused_in_a_few_lines() -> None:
    judged = judge(range(ALL))
    print(table(judged))
    assert not [one.flaw for one in judged if one.flaw]
