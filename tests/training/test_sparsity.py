"""The mask engine against published tables, closed forms, autograd and brute force."""

from __future__ import annotations

import csv
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import small_context
from torch import Tensor, nn
from torchvision import models

from prunec.artifact import Artifact
from prunec.errors import PassError, RecipeError, RunError
from prunec.models.resnet_cifar import resnet20
from prunec.passes.train_acdc import Acdc, TrainAcdc
from prunec.passes.train_dsr import Dsr, TrainDsr
from prunec.passes.train_gmp import Gmp, TrainGmp
from prunec.passes.train_rigl import Rigl, TrainRigl
from prunec.passes.train_snfs import Snfs, TrainSnfs
from prunec.passes.train_st3 import St3, TrainSt3
from prunec.passes.train_str import Str, TrainStr
from prunec.passes.train_two_of_four import TrainTwoOfFour, TwoOfFour
from prunec.recipe import loads
from prunec.runs import create_run
from prunec.sparsity.budget import load_budget, save_budget
from prunec.sparsity.choice import bound_of_largest, largest, largest_of_all, two_of_four_
from prunec.sparsity.kernels import sparse_kernels
from prunec.sparsity.masks import Masks
from prunec.sparsity.schedules import cosine, cubic
from prunec.sparsity.spread import (
    erdos_renyi,
    erdos_renyi_kernel,
    exact_total,
    from_budget,
    shared_out,
    uniform,
)
from prunec.storage import save_artifact
from prunec.training.method import Moment

TABLES = Path(__file__).parents[1] / "tables"


def resnet50() -> dict[str, Tensor]:
    with torch.device("meta"):
        return sparse_kernels(models.resnet50())


# -- which weights, how spread ---------------------------------------------------------------------


def test_the_kernels_of_resnet50_are_its_54_layers() -> None:
    kernels = resnet50()
    assert len(kernels) == 54
    assert sum(w.numel() for w in kernels.values()) == 25_502_912


@pytest.mark.parametrize("percent", ["80", "90", "95", "96.5", "98", "99"])
def test_erk_is_the_published_spread(percent: str) -> None:
    kernels = resnet50()
    shapes = [tuple(w.shape) for w in kernels.values()]
    counts = erdos_renyi_kernel(shapes, 1 - float(percent) / 100)
    with (TABLES / "erk_resnet50_computed.csv").open(newline="") as lines:
        rows = {r["layer"]: float(r[f"sparsity_pct_S={percent}"]) for r in csv.DictReader(lines)}
    for (name, weight), count in zip(kernels.items(), counts, strict=True):
        found = 100 * (1 - count / weight.numel())
        assert found == pytest.approx(rows[name.removesuffix(".weight")], abs=0.5)
    total = sum(w.numel() for w in kernels.values())
    assert sum(counts) == round((1 - float(percent) / 100) * total)


def test_er_leaves_the_kernels_sides_out() -> None:
    shapes = [(8, 4, 3, 3), (8, 8, 1, 1), (10, 8)]
    counts = erdos_renyi(shapes, 0.1)
    raw = [12 / 32, 16 / 64, 18 / 80]
    epsilon = 0.1 * (288 + 64 + 80) / (12 * 9 + 16 + 18)
    wanted = [epsilon * r * math.prod(s) for r, s in zip(raw, shapes, strict=True)]
    assert sum(counts) == round(0.1 * 432)
    assert all(abs(c - w) < 1 for c, w in zip(counts, wanted, strict=True))
    assert uniform(shapes, 0.25) == [72, 16, 20]


@pytest.mark.parametrize("seed", range(20))
def test_rounded_counts_have_the_total_and_respect_bounds(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    most = torch.randint(1, 50, (12,), generator=generator).tolist()
    wanted = [float(torch.rand((), generator=generator)) ** 4 * m for m in most]
    counts = exact_total(wanted, most)
    assert all(1 <= c <= m for c, m in zip(counts, most, strict=True))
    assert sum(counts) == max(round(sum(wanted)), len(most))


def test_no_spread_leaves_a_layer_without_weights() -> None:
    """A layer of none is a network that learns nothing, at 99.99 % too."""
    kernels = [tuple(w.shape) for w in sparse_kernels(resnet20(10)).values()]
    total = sum(math.prod(shape) for shape in kernels)
    for spread in (uniform, erdos_renyi, erdos_renyi_kernel):
        for sparsity in (0.995, 0.999, 0.9999):
            counts = spread(kernels, 1 - sparsity)
            assert min(counts) >= 1
            assert sum(counts) == round((1 - sparsity) * total)


def test_weights_are_counted_beyond_the_integers_of_float32() -> None:
    many = 2**24 + 3
    masks = Masks({"w": torch.empty(many)})
    assert masks.counts() == [many]


def test_choices_are_those_of_sorting() -> None:
    torch.manual_seed(0)
    scores = torch.rand(6, 8, 3, 3).contiguous(memory_format=torch.channels_last)
    kept = largest(scores, 40)
    assert kept.stride() == scores.stride()
    assert set(scores[kept > 0].tolist()) == set(scores.flatten().sort().values[-40:].tolist())
    for dtype in (torch.float32, torch.float64, torch.bfloat16):  # the last is torch's, not numpy's
        own = scores.to(dtype)
        for guess in (-1.0, 0.0, 0.5, 0.9, 2.0):
            bound = bound_of_largest(own, 40, guess)
            assert bound == float(own.flatten().sort().values[-41])
    assert bound_of_largest(scores, scores.numel(), 0.5) == -1
    assert bound_of_largest(torch.tensor([1.0, 2.0, 2.0, 3.0]), 2, 0.0) == 2
    parts = [torch.rand(5, 4), torch.rand(7)]
    masks = largest_of_all(parts, 9)
    flat = torch.cat([p.flatten() for p in parts])
    found = torch.cat([m.flatten() for m in masks]) > 0
    assert torch.equal(flat[found].sort().values, flat.sort().values[-9:])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_two_of_four_keeps_the_two_largest_along_the_inputs(layout: Any) -> None:
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(3, 8, 2, 2).contiguous(memory_format=layout))
    method = TwoOfFour(TrainTwoOfFour(), {"linear": nn.Parameter(torch.randn(5, 4)), "w": kernel})
    raw = kernel.detach().clone()
    method.before_forward(moment(0))
    assert kernel.stride() == raw.stride()
    assert all(int((row != 0).sum()) == 2 for row in method.weights[0])
    for o, first, y, x in itertools.product(range(3), (0, 4), range(2), range(2)):
        four = raw[o, first : first + 4, y, x]
        kept = set(four.abs().sort().values[2:].tolist())
        expected = [w if abs(w) in kept else 0.0 for w in four.tolist()]
        assert kernel[o, first : first + 4, y, x].tolist() == expected


def test_equals_of_the_third_largest_fall_together() -> None:
    scores = torch.tensor([[1.0, 1, 1, 1], [0, 0, 2, 2], [3, 1, 1, 2], [1, 2, 2, 2]])
    two_of_four_(scores, torch.empty(3, 4))
    assert scores.tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0]]


def test_schedules_begin_and_end_where_they_should() -> None:
    assert [cubic(p, 0.2, 0.9) for p in (-1, 0, 1, 2)] == pytest.approx([0.2, 0.2, 0.9, 0.9])
    assert cubic(0.5, 0.0, 0.8) == pytest.approx(0.8 * 7 / 8)
    assert [cosine(p, 0.3) for p in (0, 0.5, 1)] == pytest.approx([0.3, 0.15, 0.0])


def test_what_drops_is_shared_out_by_momentum_as_far_as_there_is_room() -> None:
    assert shared_out(10, [3.0, 1.0, 1.0], [100, 100, 100]) == [6, 2, 2]
    assert shared_out(10, [3.0, 1.0, 1.0], [2, 100, 100]) == [2, 4, 4]
    assert shared_out(4, [0.0, 0.0], [3, 3]) == [2, 2]


# -- STR -------------------------------------------------------------------------------------------


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


# -- masks -----------------------------------------------------------------------------------------


def test_gmp_keeps_the_value_of_a_masked_weight_and_gives_it_back() -> None:
    linear = nn.Linear(4, 1, bias=False)
    linear.weight.data = torch.tensor([[1.0, -2.0, 3.0, 4.0]])
    method = Gmp(TrainGmp(sparsity=0.5), sparse_kernels(linear))
    method.choose([2])
    assert linear.weight.tolist() == [[0.0, 0.0, 3.0, 4.0]]
    linear.weight.data *= 0.4  # learning, weight decay, what you will
    method.after_step(moment(1))
    method.choose([2])
    assert linear.weight.tolist()[0] == pytest.approx([0.0, -2.0, 0.0, 1.6])
    method.choose([4])
    assert linear.weight.tolist()[0] == pytest.approx([1.0, -2.0, 1.2, 1.6])


def test_rigl_drops_the_smallest_and_grows_where_the_gradient_is_largest() -> None:
    """By hand: share f = ½ of 4 active weights; one that drops and grows at once stays."""
    linear = nn.Linear(8, 1, bias=False)
    options = TrainRigl(sparsity=0.5, spread="uniform", update_steps=10, fraction=0.5, stop=1.0)
    method = Rigl(options, sparse_kernels(linear), torch.Generator().manual_seed(0))
    method.masks.values[0].copy_(torch.tensor([[1.0, 1, 1, 1, 0, 0, 0, 0]]))
    linear.weight.data = torch.tensor([[0.1, -0.2, 3.0, 4.0, 0, 0, 0, 0]])
    linear.weight.grad = torch.tensor([[0.0, 9.0, 0, 0, 1.0, -5.0, 2.0, 0.0]])
    optimizer = torch.optim.SGD([linear.weight], lr=0.1, momentum=0.9)
    optimizer.state[linear.weight]["momentum_buffer"] = torch.ones(1, 8)
    method.optimizer = optimizer
    steps = 1_000_000  # so early that the share is α
    method.gradient(Moment(0, 10, steps, 1, 0.1))
    assert method.masks.values[0].tolist() == [[0, 1, 1, 1, 0, 1, 0, 0]]
    assert linear.weight.tolist()[0] == pytest.approx([0, -0.2, 3, 4, 0, 0, 0, 0])
    assert optimizer.state[linear.weight]["momentum_buffer"].tolist() == [[0, 1, 1, 1, 0, 1, 0, 0]]
    optimizer.step()  # an update takes the place of a step
    assert linear.weight.tolist()[0] == pytest.approx([0, -0.2, 3, 4, 0, 0, 0, 0])


def test_snfs_grows_where_momentum_is_and_lets_it_move() -> None:
    """By hand: the optimizer's momentum is dense, weights are masked; moves come between epochs."""
    linear = nn.Linear(6, 1, bias=False)
    options = TrainSnfs(sparsity=0.5, spread="uniform", fraction=0.4, momentum=0.5)
    method = Snfs(options, sparse_kernels(linear), torch.Generator().manual_seed(0))
    method.masks.values[0].copy_(torch.tensor([[1.0, 1, 1, 0, 0, 0]]))
    linear.weight.data = torch.tensor([[0.1, 3.0, 4.0, 0, 0, 0]])
    optimizer = torch.optim.SGD([linear.weight], lr=0.1, momentum=0.5)
    gradient = torch.tensor([[0.0, 0, 0, 1.0, -2.0, 0.5]])
    for step in range(2):
        now = Moment(1, 98 + step, 100, 1000, 0.1)
        method.before_forward(now)
        linear.weight.grad = gradient.clone()
        method.gradient(now)
        optimizer.step()
        method.after_step(now)
        assert linear.weight.tolist()[0] == pytest.approx([0.1, 3, 4, 0, 0, 0])
    assert method.m[0].tolist() == (1.5 * gradient).tolist()
    method.after_epoch(Moment(1, 100, 100, 1000, 0.1))
    assert method.masks.values[0].tolist() == [[1, 1, 1, 0, 0, 0]]  # evaluated as it learned
    method.before_forward(Moment(2, 0, 100, 1000, 0.1))
    assert method.masks.values[0].tolist() == [[0, 1, 1, 0, 1, 0]]
    assert linear.weight.tolist()[0] == pytest.approx([0, 3, 4, 0, 0, 0])
    linear.weight.grad = torch.zeros(1, 6)
    optimizer.step()
    method.after_step(Moment(2, 0, 100, 1000, 0.1))
    assert linear.weight.tolist()[0] == pytest.approx([0, 3, 4, 0, 0.1 * 0.5 * 1.5 * 2, 0])


def test_dsr_drops_below_its_threshold_and_grows_as_many_anywhere() -> None:
    net = nn.Sequential(nn.Linear(8, 4, bias=False), nn.Linear(4, 8, bias=False))
    options = TrainDsr(sparsity=0.5, moved=0.25, threshold=0.1)
    method = Dsr(options, sparse_kernels(net), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for weight, mask, small in zip(method.weights, method.masks.values, (12, 4), strict=True):
            active = torch.nonzero(mask)
            for i, place in enumerate(active):
                weight[tuple(place)] = 0.05 if i < small else 1.0
    method.move(torch.Generator().manual_seed(1))  # 16 of 32 drop, 8 are wanted; 4 and 12 are left
    assert float(method.h) == 0.05
    assert method.masks.counts() == [8, 24]
    assert [int((w == 1).sum()) for w in method.weights] == [4, 12]
    method.move(torch.Generator().manual_seed(2))  # the 16 that grew are 0
    assert float(method.h) == 0.025
    assert sum(method.masks.counts()) == 32


@pytest.mark.parametrize("criterion", ["magnitude", "scaled"])
def test_st3_is_its_formula(criterion: Any) -> None:
    """Threshold, scales and W̃ by numpy in float64; the gradient reaches every weight as it is."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(16, 5, bias=False))
    kernels = {name: p.data.double() for name, p in net.named_parameters()}
    kernels = {name: nn.Parameter(value) for name, value in kernels.items()}
    raw = [p.detach().clone().numpy() for p in kernels.values()]
    method = St3(TrainSt3(sparsity=0.8, criterion=criterion, start=0.0, end=0.5), kernels)
    method.before_forward(Moment(0, 30, 100, 1, 0.1))
    sparsity = 0.8 * (1 - (1 - 0.6) ** 3)
    units = [1 / np.sqrt(sum(w.shape)) if criterion == "scaled" else 1.0 for w in raw]
    sizes = np.concatenate([np.abs(w).ravel() / u for w, u in zip(raw, units, strict=True)])
    tau = np.sort(sizes)[round(sparsity * sizes.size) - 1]
    for weight, kernel, unit in zip(raw, kernels.values(), units, strict=True):
        axes = tuple(range(1, weight.ndim))
        kept = np.where(np.abs(weight) > tau * unit, np.abs(weight), 0)
        kappa = (kept.mean(axes) + 1e-6) / (np.abs(weight).mean(axes) + 1e-6)
        scale = (1.01 / (kappa + 0.01)).reshape(-1, *[1] * len(axes))
        expected = scale * np.sign(weight) * np.maximum(np.abs(weight) - tau * unit, 0)
        assert kernel.data.numpy() == pytest.approx(expected, rel=1e-5, abs=1e-7)
        kernel.grad = torch.randn_like(kernel)
    gradients = [p.grad.clone() for p in kernels.values() if p.grad is not None]
    method.gradient(Moment(0, 30, 100, 1, 0.1))
    for weight, kernel, gradient in zip(raw, kernels.values(), gradients, strict=True):
        assert torch.equal(kernel.detach(), torch.from_numpy(weight))
        assert kernel.grad is not None
        assert torch.equal(kernel.grad, gradient)


def test_acdc_alternates_and_ends_compressed() -> None:
    options = TrainAcdc(sparsity=0.5, warmup_epochs=2, phase_epochs=2, final_epochs=3)
    method = Acdc(options, sparse_kernels(nn.Linear(4, 4)))
    found = "".join("c" if method.is_compressed(e, 12) else "d" for e in range(12))
    assert found == "ddccddccdccc"


def test_two_of_four_leaves_two_of_every_four(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 3)
    )
    artifact = Artifact(net.eval(), (torch.randn(2, 1, 8, 8),))
    result = TrainTwoOfFour()(artifact, small_context(tmp_path, epochs=6))
    assert set(result.masks) == {"2.weight", "4.weight"}
    for mask in result.masks.values():
        fours = mask.movedim(1, -1).reshape(-1, 4).sum(1)
        assert int(fours.max()) == int(fours.min()) == 2


# -- budgets ---------------------------------------------------------------------------------------


def test_a_budget_goes_from_one_run_to_another_method(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
    artifact = Artifact(net.eval(), (torch.randn(2, 1, 8, 8),))
    recipe = loads(
        'name = "r"\n[model]\nname = "x:y"\n[train]\nepochs = 2\n[[pass]]\nname = "train-str"\n'
    )
    run = create_run(recipe, tmp_path / "runs", ["prunec"])
    with pytest.raises(RunError, match="no sparse layers"):
        save_budget(run, tmp_path / "budget.json")
    learned = TrainStr(sparsity=0.8, s_init=-6.0)(artifact, small_context(tmp_path / "a", epochs=6))
    save_artifact(learned, run.step(0, "train-str"))
    density = save_budget(run, tmp_path / "budget.json")
    assert load_budget(tmp_path / "budget.json") == density
    follower = TrainGmp(sparsity=0, spread="budget", budget=str(tmp_path / "budget.json"),
                        update_steps=4)  # fmt: skip
    result = follower(artifact, small_context(tmp_path / "b", epochs=6))
    for layer, share in density.items():
        mask = result.masks[f"{layer}.weight"]
        assert int(mask.sum()) == max(1, round(share * mask.numel()))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot be read as a budget"), ("{}", "density is missing"),
     ('{"density": {"a": 2}}', "density.a is 2, a number from 0 to 1")],
)  # fmt: skip
def test_a_wrong_budget_is_told(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    path.write_text(text)
    with pytest.raises(PassError, match=message) as caught:
        load_budget(path)
    assert "prunec budget RUN" in caught.value.remedy


def test_a_budget_of_another_network_is_told() -> None:
    with pytest.raises(PassError, match="the budget has no layer 'b'"):
        from_budget(json.loads('{"a": 0.5}'), ["a.weight", "b.weight"], [(4, 4), (4, 4)], "x.json")


def test_a_spread_by_budget_wants_a_budget() -> None:
    from prunec.catalogue import build_passes

    recipe = loads(
        'name = "r"\n[model]\nname = "x:y"\n[train]\nepochs = 2\n'
        '[[pass]]\nname = "train-gmp"\nsparsity = 0.9\nspread = "budget"\n'
    )
    with pytest.raises(RecipeError, match="needs a budget"):
        build_passes(recipe, "r.toml")
