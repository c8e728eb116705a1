"""No damaged or edited run folder ships another network or passes by other rules."""

from __future__ import annotations

import pytest
from mutant_table import rows
from run_judged import RunBench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> RunBench:
    return RunBench(tmp_path_factory.mktemp("mutants"))


@pytest.mark.parametrize(
    ("count", "seed"),
    [
        pytest.param(12, 1, id="slice", marks=pytest.mark.slow),
        pytest.param(300, 2, id="all", marks=pytest.mark.nightly),
    ],
)
def test_no_damaged_run_ships_another_network(
    bench: RunBench, count: int, seed: int, record_property: pytest.RecordProperty
) -> None:
    outcomes = [bench.judge(*mutant) for mutant in bench.mutants(count, seed)]
    record_property("mutants of run folders", rows(sorted(outcomes, key=lambda o: o.family)))
    assert not [(o.family, o.name, o.crashed) for o in outcomes if o.crashed]
    assert not [(o.family, o.name) for o in outcomes if o.missed]


@pytest.mark.slow
def test_a_whole_copy_elsewhere_verifies_and_ships_the_same(bench: RunBench) -> None:
    outcome = bench.judge("run.json", "whole", lambda path: None)
    assert not outcome.harmful
    assert not outcome.crashed
