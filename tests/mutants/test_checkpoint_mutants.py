"""No damaged or edited checkpoint is taken up: the one before is, and the damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoint_judged import CheckpointBench
from mutant_table import rows

NAMED = 0.95


@pytest.mark.parametrize(
    ("count", "seed"),
    [
        pytest.param(50, 1, id="slice"),
        pytest.param(1000, 2, id="all", marks=pytest.mark.nightly),
    ],
)
def test_no_damaged_checkpoint_is_taken_up(
    tmp_path: Path, count: int, seed: int, record_property: pytest.RecordProperty
) -> None:
    bench = CheckpointBench(tmp_path)
    outcomes = [bench.judge(*mutant) for mutant in bench.mutants(count, seed)]
    record_property("mutants of checkpoints", rows(sorted(outcomes, key=lambda o: o.family)))
    assert not [(o.family, o.name, o.crashed) for o in outcomes if o.crashed]
    assert not [(o.family, o.name) for o in outcomes if o.missed]
    harmful = [outcome for outcome in outcomes if outcome.harmful]
    assert sum(bool(o.named) for o in harmful) >= NAMED * len(harmful)


def test_the_whole_folder_is_read_without_a_word(tmp_path: Path) -> None:
    outcome = CheckpointBench(tmp_path).judge("best/checkpoint.json", "whole", lambda path: None)
    assert not outcome.harmful
