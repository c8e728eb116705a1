"""A whole small training with GDP."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from gated_nets import EPOCHS, OPTIONS
from masks import randomise
from oracles import brute_macs
from sampling import slow_case
from torch import Tensor, nn
from training.small_training import small_context
from zoo.parts import block, head, linear_block

from prunec.artifact import Artifact
from prunec.errors import PassError
from prunec.graph.capture import capture
from prunec.graph.channels.analyse import analyse
from prunec.models.gates import attach_gates, gates_of
from prunec.passes._gdp import Gdp
from prunec.passes.absorb_gates import AbsorbGates
from prunec.passes.remove_channels import RemoveChannels
from prunec.sparsity.gated_macs import Gated, gated_channels
from prunec.training.context import Context
from prunec.training.loop import fit


class Small(nn.Module):
    """A stem, a residual block, a head; 1×8×8 to three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(1, 16)
        self.body = nn.Sequential(block(16, 24), block(24, 24, groups=24), linear_block(24, 16, 1))
        self.head = head(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.relu(x + self.body(x)))


def small_artifact() -> Artifact:
    torch.manual_seed(5)
    return Artifact(randomise(Small()).eval(), (torch.randn(2, 1, 8, 8),))


@cache
def small_gated() -> Gated:
    artifact = small_artifact()
    return gated_channels(analyse(capture(artifact.module, artifact.example)))


TRAINING = {"epochs": EPOCHS, "batch_size": 8}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return OPTIONS(small_artifact(), small_context(tmp_path_factory.mktemp("run"), **TRAINING))


@pytest.mark.slow
def test_after_training_no_gate_lies_between_0_and_a_quarter(trained: Artifact) -> None:
    gates = torch.cat([gate.flatten() for gate in gates_of(trained.module).values()])
    assert bool((gates == 0).any())
    assert not bool(((gates > 0) & (gates < 0.25)).any())
    assert trained.history[-1].details["gates_between"] == 0


def test_after_training_the_budget_is_met_as_it_ships(trained: Artifact) -> None:
    dense = brute_macs(small_artifact().module, trained.example)
    assert trained.history[-1].macs == (dense, dense), "a gate is not a cut yet"
    small = RemoveChannels(round_to=OPTIONS.round_to)(AbsorbGates()(trained))
    assert small.history[-1].macs[1] <= OPTIONS.macs_ratio * dense
    details: Any = trained.history[-1].details
    assert small.history[-1].macs[1] == round(details["macs_ratio"] * dense)
    assert details["test_accuracy"] > 60


def test_training_starts_from_the_weights_and_leaves_them(trained: Artifact) -> None:
    artifact = small_artifact()
    assert gates_of(artifact.module) == {}
    fresh = dict(artifact.module.named_parameters())
    assert not torch.equal(fresh["head.2.bias"], trained.module.get_parameter("head.2.bias"))
    assert not trained.module.training


class StopAfter:
    """Stands in for the loop's progress: Ctrl-C when an epoch is over."""

    def __init__(self, context: Context, epoch: int) -> None:
        self.inner: Any = context.progress
        self.stop = epoch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def epoch(self, metrics: dict[str, Any]) -> None:
        self.inner.epoch(metrics)
        if metrics["epoch"] == self.stop:
            raise KeyboardInterrupt


def fitted(context: Context) -> tuple[nn.Module, Gdp]:
    artifact = small_artifact()
    method = Gdp(OPTIONS, artifact.module, small_gated())
    fit(artifact.module, method, context)
    return artifact.module, method


@pytest.mark.parametrize(
    "epoch", [slow_case(1), 2, slow_case(4)], ids=["dense", "selecting", "finishing"]
)
def test_resumed_is_bit_identical(trained: Artifact, tmp_path: Path, epoch: int) -> None:
    context = small_context(tmp_path, **TRAINING)
    stopping: Any = StopAfter(context, epoch)
    with pytest.raises(KeyboardInterrupt):
        fitted(dataclasses.replace(context, progress=stopping))
    module, method = fitted(small_context(tmp_path, resume=True, **TRAINING))
    attach_gates(module.eval(), method.kernel_gates())
    for key, value in trained.module.state_dict().items():
        assert torch.equal(module.state_dict()[key], value), key


@pytest.mark.slow
def test_a_budget_out_of_reach_names_one_within(tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, macs_ratio=0.01, round_to=16)
    with pytest.raises(PassError, match=r"0\.01 cannot be reached") as caught:
        options(small_artifact(), small_context(tmp_path, **TRAINING))
    least = float(caught.value.remedy.split("above ")[1].split(",")[0])
    within = dataclasses.replace(options, macs_ratio=least + 0.01)
    within(small_artifact(), small_context(tmp_path, **TRAINING))


def test_more_epochs_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PassError, match=r"dense_epochs \+ select_epochs is 3, .* only 2") as caught:
        OPTIONS(small_artifact(), small_context(tmp_path, epochs=2))
    assert "train.epochs" in caught.value.remedy


def test_a_network_without_a_gateable_channel_is_refused(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(PassError, match="no channel that a gate could stand before"):
        OPTIONS(
            Artifact(module.eval(), (torch.randn(2, 1, 8, 8),)),
            small_context(tmp_path, **TRAINING),
        )
