"""Selection of the cases of a test that always run; the others are marked slow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def sampled(cases: Iterable[Any], share: int, usual: int = 1) -> list[Any]:
    """Cases for ``parametrize``: one in ``share`` as it is, always the same; the rest are slow.

    Of those one in ``usual``, which divides ``share``, runs by default: the others are nightly.
    """
    assert share % usual == 0, "a case that runs always runs by default"
    return [
        case if i % share == 0 else slow_case(case, nightly=i % usual != 0)
        for i, case in enumerate(cases)
    ]


def slow_but(cases: Iterable[str], *quick: str) -> list[Any]:
    """Named cases for ``parametrize``: all but the ``quick`` ones are slow."""
    names = list(cases)
    assert {*quick} <= {*names}, "a quick case is no case"
    return [name if name in quick else slow_case(name) for name in names]


def slow_case(case: Any, *, nightly: bool = False) -> Any:
    """The same case, marked; a tuple holds the values of several arguments."""
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.nightly if nightly else pytest.mark.slow)
