"""One thread and fixed seeds: two spinning threads on a busy machine are many times slower.

torch is imported by those who test: the process that shares the tests out does without.
"""

from __future__ import annotations

import gc
import os
from collections import Counter

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

SAMPLE = 4
"""Of a test with more cases than this, every fourth is in the sample of ``-m "not slow"``."""

gc.set_threshold(20_000, 20, 100)  # as the command line does: 4 % of the suite


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow all nightly tests, and all cases but every fourth of a test with many."""
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker("slow")
    quick = [item for item in items if not item.get_closest_marker("slow")]
    cases = Counter(_function(item) for item in quick)
    seen: Counter[str] = Counter()
    for item in quick:
        name = _function(item)
        if cases[name] > SAMPLE and seen[name] % SAMPLE:
            item.add_marker("slow")
        seen[name] += 1


def _function(item: pytest.Item) -> str:
    """Node id without the case, the same for all cases of a test."""
    return item.nodeid.partition("[")[0]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.manual_seed(0)
