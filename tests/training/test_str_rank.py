"""Learned ranks: S with g = exp, thresholds, trainings that stop and go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ranked_nets import QUICK, TRAINING, artifact, moment, net, trained
from small_training import small_context, small_recipe

from prunec.errors import PassError
from prunec.models.low_rank import maps_of
from prunec.passes.train_gmp import TrainGmp
from prunec.passes.train_str_rank import StrRank, TrainStrRank
from prunec.sparsity.densities import save_densities
from prunec.store.artifacts import save_artifact
from prunec.store.runs import RunFolder
from prunec.training.optimisation import make_optimizer, set_learning_rate


def test_gradients_are_autograds() -> None:
    """By differentiating sign(m)·relu(|m| − exp(s)) in float64."""
    model = net(rank_w=6, rank_u=7).double()
    for part in maps_of(model).values():
        part.get_parameter("m").data.uniform_(-1, 1)
    options = TrainStrRank(s_init=-1.0)
    kernels = options.kernels(model)
    method = StrRank(options, kernels)
    method.s.data = torch.tensor([-1.0, -1.5], dtype=torch.float64)
    raw = [m.detach().clone().requires_grad_() for m in method.weights]
    s = method.s.detach().clone().requires_grad_()
    soft = [
        torch.sign(m) * torch.relu(m.abs() - torch.exp(part))
        for m, part in zip(raw, s, strict=True)
    ]
    x = torch.randn(4, 1, 8, 3, dtype=torch.float64)
    replaced = dict(zip(kernels, soft, strict=True))
    torch.func.functional_call(model, replaced, x).square().sum().backward()
    assert 0 < sum(int(torch.count_nonzero(m)) for m in soft) < 13

    method.before_forward(moment(0))
    assert all(torch.equal(a, b) for a, b in zip(method.weights, soft, strict=True))
    model(x).square().sum().backward()
    method.gradient(moment(0))
    for weight, expected in zip(method.weights, raw, strict=True):
        torch.testing.assert_close(weight.grad, expected.grad)
    torch.testing.assert_close(method.s.grad, s.grad)


def test_without_gradients_s_and_m_decay() -> None:
    """s(t) = s_init·(1 − ηλ)ᵗ, and m is among what the optimizer decays."""
    model = net(rank_w=4, rank_u=4)
    options = TrainStrRank(s_init=-50.0)
    method = StrRank(options, options.kernels(model))
    train = small_recipe(weight_decay=0.01, optimizer={"name": "SGD"}).train
    optimizer = make_optimizer(model, train, method.parameters())
    set_learning_rate(optimizer, 0.1)
    for _ in range(60):
        method.s.grad = torch.zeros_like(method.s)
        optimizer.step()
    assert method.s.tolist() == pytest.approx([-50 * (1 - 0.1 * 0.01) ** 60] * 2, rel=1e-5)
    assert all(m.dim() == 2 for m in method.weights)  # as the loop's rule for decay has it


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.95])
def test_shifts_lead_to_the_wanted_number_of_ranks(sparsity: float) -> None:
    """16 ranks; at 95 % fewer than maps would be left, and every map keeps one."""
    model = net(rank_w=8, rank_u=8)
    torch.manual_seed(2)
    for part in maps_of(model).values():
        part.get_parameter("m").data.uniform_(0.2, 2)
    options = TrainStrRank(sparsity=sparsity, ramp=0.5)
    method = StrRank(options, options.kernels(model))
    for number in range(400):
        method.before_forward(moment(number, 400))
        method.gradient(moment(number, 400))
        method.after_step(moment(number, 400))
    before = method.s.clone()
    method.shift(moment(399, 400))
    assert torch.equal(method.s, before)  # nothing is worn away once the number is reached
    with method.shipping():
        left = [int(torch.count_nonzero(m)) for m in method.weights]
    assert sum(left) == max(2, round(16 * (1 - sparsity)))
    assert min(left) >= 1


@pytest.mark.slow
def test_processes_that_were_not_reached_are_reported(tmp_path: Path) -> None:
    """20 ranks of two maps: at 95 % one would be left, and each map keeps one."""
    few = trained(tmp_path / "few", epochs=1)
    assert "asked 70.00 %, reached " in few.history[-1].notes[1]
    assert "train for more" in few.history[-1].notes[1]
    most = trained(tmp_path / "most", TrainStrRank(factor=("cell.?",), sparsity=0.95, ramp=0.5))
    assert most.history[-1].notes[1].startswith("asked 95.00 %, reached 90.00 %: each of 2 maps")
    told = trained(tmp_path / "told").history[-1].notes
    assert not any("asked" in note for note in told)


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    """Three classes of bright rows: chance is a third."""
    result = trained(tmp_path, epochs=16)
    assert float(result.history[-1].details["test_accuracy"]) > 60


@pytest.mark.slow
def test_a_stopped_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole_one = trained(tmp_path / "whole")

    class Stop(Exception):
        pass

    context = small_context(tmp_path / "cut", **QUICK)
    told = context.progress.epoch

    def stopping(metrics: Any) -> None:
        told(metrics)
        if metrics["epoch"] == 5:
            raise Stop

    context.progress.epoch = stopping  # type: ignore[method-assign]
    with pytest.raises(Stop):
        TRAINING(artifact(), context)
    context = replace(small_context(tmp_path / "cut", **QUICK), resume=True)
    resumed = TRAINING(artifact(), context)
    for key, value in whole_one.module.state_dict().items():
        assert torch.equal(resumed.module.state_dict()[key], value), key


def test_its_densities_are_none_of_layers(tmp_path: Path) -> None:
    """`prunec densities` writes the share of ranks; another method on other layers refuses it."""
    result = trained(tmp_path / "run", epochs=2)
    run = RunFolder(tmp_path / "run")
    save_artifact(result, run.step(0, "train-str-rank"))
    densities = save_densities(run, tmp_path / "densities.json")
    assert set(densities) == {"cell.w.m", "cell.u.m"}
    follower = TrainGmp(
        sparsity=0.5, spread="densities", densities=str(tmp_path / "densities.json")
    )
    with pytest.raises(PassError, match=r"have no layer 'cell\.w'"):
        follower(artifact(), small_context(tmp_path / "other"))
