"""No damaged ONNX file passes, none gives a traceback, and what is damaged is named."""

from __future__ import annotations

import pytest
from mutant_table import Outcome, rows
from onnx_judged import Bench

NAMED = 0.95


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("mutants"))


@pytest.mark.parametrize(
    ("count", "seed"),
    [
        pytest.param(100, 1, id="slice", marks=pytest.mark.slow),
        pytest.param(1200, 2, id="all", marks=pytest.mark.nightly),
    ],
)
def test_no_mutant_passes(
    bench: Bench, count: int, seed: int, record_property: pytest.RecordProperty
) -> None:
    outcomes = [bench.judge(*mutant) for mutant in bench.mutants(count, seed)]
    record_property("mutants of ONNX files", rows(sorted(outcomes, key=lambda o: o.family)))
    assert not [outcome for outcome in outcomes if outcome.crashed]
    assert not [(outcome.family, outcome.name) for outcome in outcomes if outcome.missed]
    nameable = [o for o in outcomes if o.harmful and o.caught and o.named is not None]
    assert sum(map(_named, nameable)) >= NAMED * len(nameable), [
        (o.family, o.name) for o in nameable if not o.named
    ]


def _named(outcome: Outcome) -> bool:
    return outcome.named is True


def test_the_healthy_file_passes(bench: Bench) -> None:
    outcome = bench.judge("healthy", "healthy", bench.data)
    assert not outcome.harmful
    assert not outcome.caught
