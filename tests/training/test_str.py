"""STR against autograd and its closed form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import small_context
from torch import nn

from prunec.artifact import Artifact
from prunec.errors import Diverged
from prunec.passes.train_str import Str, TrainStr
from prunec.passes.train_str_rank import TrainStrRank
from prunec.sparsity.kernels import sparse_kernels
from prunec.training.method import Moment


def moment(number: int, steps: int = 100, rate: float = 0.1) -> Moment:
    return Moment(0, number, steps, 1, rate)


@pytest.mark.parametrize("granularity", ["layer", "global", "filter"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_strs_gradients_are_autograds(granularity: Any, layout: Any) -> None:
    """By differentiating sign(W)·relu(|W| − sigmoid(s)) in float64."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.Conv2d(6, 4, 1, bias=False)).double()
    module.to(memory_format=layout)
    options = TrainStr(s_init=-2.0, granularity=granularity)
    kernels = sparse_kernels(module)
    method = Str(options, kernels, weight_decay=0.0, momentum=0.0, granularity=granularity)
    method.s, images = method.s.double(), torch.randn(2, 3, 7, 7, dtype=torch.float64)
    raw = [w.detach().clone().requires_grad_() for w in method.weights]
    s = method.s.clone().requires_grad_()
    parts = torch.split(s, method.parts) if granularity != "global" else [s, s]
    soft = [
        torch.sign(w) * torch.relu(w.abs() - torch.sigmoid(p).view(-1, 1, 1, 1))
        for w, p in zip(raw, parts, strict=True)
    ]
    shown = torch.conv2d(torch.conv2d(images, soft[0]), soft[1])
    shown.square().sum().backward()

    method.before_forward(moment(0))
    assert torch.equal(method.weights[0], soft[0])
    module(images).square().sum().backward()
    method.gradient(moment(0))
    assert torch.equal(method.weights[0], raw[0])
    for weight, expected in zip(method.weights, raw, strict=True):
        torch.testing.assert_close(weight.grad, expected.grad)
    torch.testing.assert_close(method.slope, s.grad)


@pytest.mark.parametrize(
    ("s_init", "decay", "epochs"),
    [(-3200.0, 2.251757813e-5, 25), (-12800.0, 3.751757813e-5, 20)],
)
def test_far_below_s_follows_its_closed_form(s_init: float, decay: float, epochs: int) -> None:
    """s(t) = s_init·exp(−λ·Ση/(1 − μ)) over ImageNet's 5,004 steps an epoch; −20 in that epoch."""
    method = Str(
        TrainStr(s_init=s_init), sparse_kernels(nn.Linear(2, 2)), weight_decay=decay, momentum=0.875
    )
    method.s = method.s.double()
    method.velocity, method.slope = method.velocity.double(), method.slope.double()
    total, before = 0.0, 0.0
    for epoch in range(epochs):
        before = float(method.s[0])
        warm = 0.256 * (epoch + 1) / 5
        rate = warm if epoch < 5 else 0.128 * (1 + math.cos(math.pi * (epoch - 5) / 95))
        for step in range(5004):
            method.after_step(Moment(epoch, step, 5004, 100, rate))
            total += rate
    closed = s_init * math.exp(-decay * total / (1 - 0.875))
    assert float(method.s[0]) == pytest.approx(closed, rel=0.005)
    assert before < -20 < float(method.s[0])


@pytest.mark.parametrize(
    "step",
    [
        TrainStr(s_init=-2.0),
        TrainStr(s_init=-2.0, granularity="filter"),
        TrainStr(s_init=-2.0, sparsity=0.5),
        TrainStrRank(factor=("1",), s_init=-2.0),
        TrainStrRank(factor=("1",), s_init=-2.0, sparsity=0.5),
    ],
)
def test_thresholds_that_leave_the_numbers_are_a_diverged_training(
    step: TrainStr | TrainStrRank, tmp_path: Path
) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    start = Artifact(net.eval(), (torch.randn(2, 1, 8, 8),))
    with pytest.raises(Diverged, match="training diverged"):
        step(start, small_context(tmp_path, learning_rate=1e30))


@pytest.mark.parametrize(
    ("settings", "scale", "told"),
    [
        ({"epochs": 16}, 0.1, None),
        ({"epochs": 1}, 0.1, "too few steps for thresholds to rise"),
        ({"epochs": 40, "learning_rate": 1e-3}, 10.0, "sigmoid thresholds stay below 1"),
    ],
)
def test_a_missed_sparsity_is_told(
    settings: dict[str, Any], scale: float, told: str | None, tmp_path: Path
) -> None:
    """And no epoch counts as one whose budget was reached."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    nn.init.normal_(net[1].weight, std=scale)
    context = small_context(tmp_path, **settings)
    step = TrainStr(sparsity=0.8, s_init=-6.0)
    result = step(Artifact(net.eval(), (torch.randn(2, 1, 8, 8),)), context)
    notes = result.history[-1].notes
    assert len(notes) == (2 if told else 1)
    if told:
        assert notes[1].startswith("asked 80.00 %, reached ")
        assert told in notes[1]
    epochs = context.progress.epochs  # type: ignore[attr-defined]
    assert epochs[-1]["settled"] == (told is None)
    for epoch in epochs:
        near = abs(epoch["sparsity"] - 80) <= 1
        assert epoch["settled"] == (near and epoch["epoch"] >= 0.75 * len(epochs))
