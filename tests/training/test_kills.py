"""kill -9 at random moments: what goes on afterwards ends with the very same weights.

PRUNEC_KILLS=50 pytest tests/training/test_kills.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from kill_driver import kill, train
from nursery import born
from safetensors.torch import load_file
from torch import Tensor

KILLS = int(os.environ.get("PRUNEC_KILLS", "5"))
IN_A_ROW = 5  # kills of one training
STEPS = 20 * 6


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return train(tmp_path_factory.mktemp("whole"), resume=False).state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(KILLS // IN_A_ROW))
def test_a_killed_training_ends_with_the_same_weights(
    seed: int, uninterrupted: dict[str, Tensor], tmp_path: Path
) -> None:
    answer = born(kill, tmp_path, IN_A_ROW, seed)
    assert answer.returncode == 0, answer.stderr
    steps = json.loads(answer.stdout.splitlines()[-1])
    assert len(steps) == IN_A_ROW + 1
    assert sum(steps) >= STEPS, "some steps were never taken"
    assert steps[-1] < STEPS, "no kill came before the end"
    final = load_file(tmp_path / "final.safetensors")
    assert final.keys() == uninterrupted.keys()
    for name, value in uninterrupted.items():
        assert torch.equal(final[name], value), f"{name} after attempts of {steps} steps"
    metrics = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in metrics] == list(range(1, 21))
