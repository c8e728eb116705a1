"""Damaged or edited run folders never ship another network or pass by other rules."""

from __future__ import annotations

import pytest
from driver import Told, require_caught, slice_and_all
from run_judged import RunBench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> RunBench:
    return RunBench(tmp_path_factory.mktemp("mutants"))


@slice_and_all(5, 260)
def test_no_damaged_run_yields_another_network(
    bench: RunBench, count: int, seed: int, record_property: Told
) -> None:
    require_caught(bench, count, seed, "run folders", record_property)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run.json", "stopped/run.json"])
def test_a_whole_copy_elsewhere_yields_the_same(bench: RunBench, name: str) -> None:
    assert bench.exit_code(name) == 0
    outcome = bench.judge(name, "whole", lambda path: None)
    assert not outcome.harmful
    assert not outcome.crashed
    assert not outcome.lies
