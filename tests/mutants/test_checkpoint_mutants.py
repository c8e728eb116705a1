"""Damaged or edited checkpoints are never resumed: the one before is, and the damage is named."""

from __future__ import annotations

from pathlib import Path

from checkpoint_judged import CheckpointBench
from driver import Told, require_caught, slice_and_all


@slice_and_all(50, 1000)
def test_no_damaged_checkpoint_is_taken_up(
    tmp_path: Path, count: int, seed: int, record_property: Told
) -> None:
    require_caught(CheckpointBench(tmp_path), count, seed, "checkpoints", record_property)


def test_the_whole_folder_is_read_without_a_word(tmp_path: Path) -> None:
    outcome = CheckpointBench(tmp_path).judge("best/checkpoint.json", "whole", lambda path: None)
    assert not outcome.harmful
