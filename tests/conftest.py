"""One thread and fixed seeds: two spinning threads on a busy machine are many times slower.

torch is imported by those who test: the process that shares the tests out does without.
"""

from __future__ import annotations

import functools
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is nightly is slow too, so that ``-m "not slow"`` leaves it out."""
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker("slow")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _torchlib_is_read_once() -> None:
    """Keep the table of ONNX functions, which torch reads from their source at every export.

    That is 1.2 of the 2.0 s of processor time that the export of a small network takes. Nobody
    adds to the table: prunec registers no function of its own.
    """
    from torch.onnx._internal.exporter import _registration

    table = getattr(_registration, "ONNXRegistry", None)
    if hasattr(table, "from_torchlib"):
        table.from_torchlib = staticmethod(functools.cache(table.from_torchlib))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.manual_seed(0)
