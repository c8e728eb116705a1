"""The plain training pass: a new value, on the CPU, in eval mode, with its accuracy told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from small_training import small_context, small_net

from prunec.artifact import Artifact
from prunec.passes.train_dense import TrainDense


def test_it_returns_a_trained_copy_and_tells_its_accuracy(tmp_path: Path) -> None:
    module = small_net()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    artifact = Artifact(module=module, example=(torch.zeros(2, 1, 8, 8),))
    result, report = TrainDense().train(artifact, small_context(tmp_path))
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not torch.equal(result.module[0].weight, module[0].weight)  # type: ignore[index]
    assert not result.module.training
    assert dataclasses.replace(result, module=module) == artifact
    assert report.details is not None
    assert report.details["test_accuracy"] > 90  # type: ignore[operator]
    assert f"{report.details['test_accuracy']:.2f} %" in report.notes[0]


def test_its_place_in_a_recipe() -> None:
    assert TrainDense.pass_name() == "train-dense"
    assert TrainDense.adds == {"trained"}
    assert "folded" in TrainDense.forbids
