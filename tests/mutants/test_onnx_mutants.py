"""Damaged ONNX files never pass, never give a traceback, and the damage is named."""

from __future__ import annotations

import pytest
from driver import Told, require_caught, slice_and_all
from onnx_judged import Bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("mutants"))


@slice_and_all(60, 600)
def test_no_mutant_passes(bench: Bench, count: int, seed: int, record_property: Told) -> None:
    require_caught(bench, count, seed, "ONNX files", record_property)


def test_the_healthy_file_passes(bench: Bench) -> None:
    outcome = bench.judge("healthy", "healthy", bench.data)
    assert not outcome.harmful
    assert not outcome.caught
