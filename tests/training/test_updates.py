"""Updates of masks, method by method, against brute force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from small_training import small_context
from torch import nn

import prunec
from prunec.artifact import Artifact
from prunec.catalogue import build_passes
from prunec.errors import PassError
from prunec.passes.train_acdc import Acdc, TrainAcdc
from prunec.passes.train_dsr import Dsr, TrainDsr
from prunec.passes.train_gmp import Gmp, TrainGmp
from prunec.passes.train_rigl import Rigl, TrainRigl
from prunec.passes.train_snfs import Snfs, TrainSnfs
from prunec.passes.train_st3 import St3, TrainSt3
from prunec.recipe import load_recipe
from prunec.sparsity.kernels import sparse_kernels
from prunec.training.method import Moment


def moment(number: int, steps: int = 100, rate: float = 0.1) -> Moment:
    return Moment(0, number, steps, 1, rate)


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


def test_uniform_rigl_leaves_the_first_layer_dense() -> None:
    """And counts without it, as its paper does; ERK masks all."""
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(64, 3))
    names = [
        set(options.kernels(net))
        for options in (
            TrainRigl(sparsity=0.8, spread="uniform"),
            TrainRigl(sparsity=0.8, spread="uniform", dense=("0",)),
            TrainRigl(sparsity=0.8, spread="erk"),
        )
    ]
    assert names == [{"1.weight", "3.weight"}] * 2 + [{"0.weight", "1.weight", "3.weight"}]
    assert TrainRigl(sparsity=0.8, spread="uniform").kernels(nn.Linear(4, 4))


def test_a_ramp_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(PassError, match=r"train-gmp: begin is 0\.8, end 0\.75"):
        TrainGmp(sparsity=0.5, begin=0.8)


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


def test_an_evaluation_of_st3_leaves_its_training_alone() -> None:
    """Averages have a quantile of their own; training goes on with that of its weights."""
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(4, 3))
    method = St3(TrainSt3(sparsity=0.5, start=0.0, end=0.5), {"w": kernel})
    method.before_forward(Moment(0, 30, 100, 1, 0.1))
    method.gradient(Moment(0, 30, 100, 1, 0.1))
    state = {name: value.clone() for name, value in method.tensors().items()}
    own = kernel.detach().clone()
    with torch.no_grad():
        kernel.mul_(3)
    with method.shipping():
        zeros = int((kernel == 0).sum())
    with torch.no_grad():
        kernel.copy_(own)
    assert zeros == round(float(state["sparsity"]) * kernel.numel()) > 0
    assert all(torch.equal(value, state[name]) for name, value in method.tensors().items())


@pytest.mark.parametrize(
    ("epochs", "changes", "wanted"),
    [
        (12, {"warmup_epochs": 2, "phase_epochs": 2, "final_epochs": 3}, "ddccddccdccc"),
        (12, {"warmup_epochs": 2, "phase_epochs": 2, "final_epochs": 2}, "ddccddccddcc"),
        (12, {"warmup_epochs": 2, "phase_epochs": 2, "final_epochs": 4}, "ddccddddcccc"),
        (5, {"warmup_epochs": 2, "final_epochs": 3}, "ddccc"),
        # the authors' own on ImageNet
        (100, {}, 10 * "d" + 6 * (5 * "c" + 5 * "d") + 5 * "c" + 10 * "d" + 15 * "c"),
    ],
)
def test_acdc_alternates_and_ends_compressed(
    epochs: int, changes: dict[str, int], wanted: str
) -> None:
    method = Acdc(TrainAcdc(sparsity=0.5, **changes), sparse_kernels(nn.Linear(4, 4)))
    actual = "".join("c" if method.is_compressed(e, epochs) else "d" for e in range(epochs))
    assert actual == wanted


@pytest.mark.slow
def test_two_of_four_ships_two_of_every_four(tmp_path: Path) -> None:
    """On the road of its recipe, and with filters that are dead."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 1), nn.ReLU(),  # stays dense
        nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 3),
    ).eval()  # fmt: skip
    assert isinstance(net[1], nn.BatchNorm2d)
    with torch.no_grad():
        net[1].weight[2:4] = -9.0
        net[1].bias[2:4] = -9.0
    first, *road = build_passes(load_recipe("two_of_four_resnet20"), "")
    result = first(Artifact(net, (torch.randn(2, 1, 8, 8),)), small_context(tmp_path, epochs=3))
    assert set(result.masks) == {"5.weight", "7.weight"}
    for step in road:
        result = step(result)
    path = tmp_path / "model.onnx"
    prunec.export_onnx(result.module, result.example, path)
    kernels = [
        numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if len(t.dims) > 1
    ]
    fours = [
        np.moveaxis(k, 1, -1).reshape(-1, 4) for k in kernels if k.shape in ((8, 8, 3, 3), (3, 128))
    ]
    assert len(fours) == 2
    for rows in fours:
        assert int((rows != 0).sum(1).max()) == int((rows != 0).sum(1).min()) == 2
