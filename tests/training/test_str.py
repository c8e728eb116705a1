"""STR against autograd and its closed form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sampling import slow_case
from small_training import small_context
from torch import nn

from prunec.artifact import Artifact
from prunec.catalogue import build_passes
from prunec.errors import Diverged
from prunec.passes.train_str import Str, TrainStr
from prunec.passes.train_str_rank import TrainStrRank
from prunec.recipe import load_recipe
from prunec.sparsity.kernels import sparse_kernels
from prunec.training.method import Moment
from prunec.training.optimisation import make_optimizer, set_learning_rate
from prunec.training.schedule import learning_rate


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
    method = Str(options, kernels, granularity)
    images = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    raw = [w.detach().clone().requires_grad_() for w in method.weights]
    s = method.s.detach().clone().requires_grad_()
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
    torch.testing.assert_close(method.s.grad, s.grad)


@pytest.mark.parametrize(
    ("name", "s_init", "epochs", "passed"),
    [
        ("str_resnet50_imagenet", -3200.0, 7, {}),
        slow_case(("str_resnet50_imagenet", -3200.0, 30, {25: -20, 30: -7}), nightly=True),
        slow_case(("str_mbv1_imagenet", -12800.0, 22, {20: -20, 22: -7}), nightly=True),
    ],
)
def test_far_below_s_follows_its_closed_form(
    name: str, s_init: float, epochs: int, passed: dict[int, float]
) -> None:
    """s(t) = s_init·exp(−λ·Ση/(1 − μ)) over the authors' 5,005 steps an epoch, Ση = 65,345.

    The rates are the paper's: η·(e + 1)/5 an epoch, then η·½(1 + cos(π(e − 5)/95)).
    """
    steps, recipe = 5005, load_recipe(name)
    train, step = recipe.train, build_passes(recipe, name)[0]
    assert isinstance(step, TrainStr)
    rates = [learning_rate(train, n, steps) for n in range(0, train.epochs * steps, steps)]
    paper = [(e + 1) / 5 if e < 5 else (1 + math.cos(math.pi * (e - 5) / 95)) / 2
             for e in range(100)]  # fmt: skip
    assert rates == pytest.approx([0.256 * part for part in paper])
    assert sum(rates) * steps == pytest.approx(65345, abs=1)
    linear = nn.Linear(2, 2).double()
    method = Str(step, sparse_kernels(linear))
    optimizer = make_optimizer(linear, train, method.parameters())
    actual = [float(method.s.detach())]
    for epoch in range(epochs):
        for n in range(steps):
            rate = learning_rate(train, epoch * steps + n, steps)
            set_learning_rate(optimizer, rate)
            method.s.grad = torch.zeros_like(method.s)
            optimizer.step()
        total = steps * sum(rates[: epoch + 1])
        closed = s_init * math.exp(-train.weight_decay * total / (1 - 0.875))
        actual.append(float(method.s.detach()))
        assert actual[-1] == pytest.approx(closed, rel=0.005)
    for number, bound in passed.items():
        assert actual[number - 1] < bound < actual[number]


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
def test_a_missed_sparsity_is_reported(
    settings: dict[str, Any], scale: float, told: str | None, tmp_path: Path
) -> None:
    """And no epoch counts as one whose budget was reached."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    nn.init.normal_(net[1].weight, std=scale)
    context = small_context(tmp_path, **settings)
    step = TrainStr(sparsity=0.8, s_init=-6.0)
    result = step(Artifact(net.eval(), (torch.randn(2, 1, 8, 8),)), context)
    notes = [note for note in result.history[-1].notes if "survivors" not in note]
    notes = [note for note in notes if not note.startswith("warning: ")]
    assert len(notes) == (2 if told else 1)
    if told:
        assert notes[1].startswith("asked 80.00 %, reached ")
        assert told in notes[1]
    epochs = context.progress.epochs  # type: ignore[attr-defined]
    assert epochs[-1]["settled"] == (told is None)
    for epoch in epochs:
        near = abs(epoch["sparsity"] - 80) <= 1
        assert epoch["settled"] == (near and epoch["epoch"] >= 0.75 * len(epochs))
