"""Methods beside the formulas of their authors' codes, step by step in float64.

Each formula is written anew in ``author_rules.py``, in the plainest PyTorch: autograd for what the
methods differentiate by hand, ``torch.optim.SGD`` for what moves, sorting for what is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import author_rules as authors
import pytest
import torch
from small_training import small_recipe
from torch import Tensor, nn

from prunec.passes.train_acdc import Acdc, TrainAcdc
from prunec.passes.train_dnw import Dnw, TrainDnw
from prunec.passes.train_gmp import Gmp, TrainGmp
from prunec.passes.train_granet import Granet, TrainGranet
from prunec.passes.train_rigl import Rigl, TrainRigl
from prunec.passes.train_snfs import Snfs, TrainSnfs
from prunec.passes.train_st3 import St3, TrainSt3
from prunec.passes.train_str import Str, TrainStr
from prunec.passes.train_two_of_four import TrainTwoOfFour, TwoOfFour
from prunec.sparsity.dyrelu import DyReLU
from prunec.sparsity.kernels import sparse_kernels
from prunec.sparsity.spread import shared_equally
from prunec.sparsity.training_pass import MaskMethod
from prunec.tasks.task import Classification
from prunec.training.method import Moment
from prunec.training.objective import Objective
from prunec.training.optimisation import make_optimizer
from prunec.training.settings import Settings
from prunec.training.step import Stepper

EPOCHS, STEPS = 10, 6
RATE, DECAY = 0.05, 1e-3
NESTEROV = {"name": "SGD", "momentum": 0.9, "nesterov": True}


def net() -> nn.Module:
    """A stem and a body with norms, and a classifier with a bias; 1,152 weights in kernels."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 4),
    ).double().train()  # fmt: skip


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(9)
    return [
        (torch.randn(8, 4, 6, 6, generator=generator, dtype=torch.float64),
         torch.randint(0, 4, (8,), generator=generator))
        for _ in range(EPOCHS * STEPS)
    ]  # fmt: skip


class Ours:
    """A method in prunec's own step, without the rest of the loop."""

    def __init__(
        self,
        make: Callable[[dict[str, Tensor]], MaskMethod],
        optimizer: dict[str, Any],
        clip: float,
    ) -> None:
        self.module = net()
        self.method = make(sparse_kernels(self.module))
        train = small_recipe(learning_rate=RATE, weight_decay=DECAY, optimizer=optimizer).train
        moving = make_optimizer(self.module, train, self.method.parameters())
        self.method.begin(moving, {})
        objective = Objective(Classification(4))
        self.take = Stepper(
            self.module, self.module, moving, self.method, objective, Settings(), clip_norm=clip
        )

    def step(self, number: int, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Learn a batch; return the state."""
        moment = Moment(*divmod(number, STEPS), STEPS, EPOCHS, RATE)
        self.take(images, labels, moment)
        return {**self.module.state_dict(), **self.method.tensors()}


GRANET = TrainGranet(sparsity=0.9, update_steps=5, stop=0.5, exchange="training")
SNFS = TrainSnfs(sparsity=0.5, surplus="equal")
CASES: dict[str, tuple[Callable[[dict[str, Tensor]], MaskMethod], type[authors.Rule]]] = {
    "str": (lambda k: Str(TrainStr(s_init=-4.0), k), authors.SoftThresholds),
    "dnw": (lambda k: Dnw(TrainDnw(sparsity=0.75, spread="uniform"), k), authors.DiscoverWirings),
    "two-of-four": (lambda k: TwoOfFour(TrainTwoOfFour(decay=2e-4), k), authors.TwoOfFour),
    "st3": (
        lambda k: St3(TrainSt3(sparsity=0.9, start=0.0, end=0.5, update_steps=1), k),
        authors.StraightThrough,
    ),
    "gmp": (
        lambda k: Gmp(TrainGmp(sparsity=0.875, update_steps=5, end=0.5), k),
        authors.GradualMagnitude,
    ),
    "rigl": (
        lambda k: Rigl(TrainRigl(sparsity=0.8, update_steps=7), k, drawn()),
        authors.RiggedLottery,
    ),
    "granet": (
        lambda k: Granet(GRANET, k, drawn()),
        authors.GradualNeuroregeneration,
    ),
    "snfs": (lambda k: Snfs(SNFS, k, drawn()), authors.SparseMomentum),
    "acdc": (
        lambda k: Acdc(
            TrainAcdc(sparsity=0.8, warmup_epochs=2, phase_epochs=1, final_epochs=3), k
        ),
        authors.Alternating,
    ),
}  # fmt: skip


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize(
    ("optimizer", "clip"),
    [({"name": "SGD", "momentum": 0.9}, 0.0), (NESTEROV, 0.2)],
    ids=["momentum", "nesterov-clipped"],
)
@pytest.mark.parametrize("name", CASES)
def test_every_step_is_that_of_the_authors(
    name: str, optimizer: dict[str, Any], clip: float
) -> None:
    """Weights, norms and their statistics, thresholds and masks, over ten epochs of six steps."""
    make, rule = CASES[name]
    ours = Ours(make, optimizer, clip)
    masks = [mask.clone() for mask in getattr(getattr(ours.method, "masks", None), "values", [])]
    theirs = rule(net(), masks, optimizer, RATE, DECAY, clip, EPOCHS, STEPS)
    changed = 0
    for number, (images, labels) in enumerate(batches()):
        before = theirs.support()
        wanted = theirs.step(number, images, labels)
        actual = ours.step(number, images, labels)
        changed += theirs.support() != before
        for key, value in wanted.items():
            told = f"{key} after step {number}"
            torch.testing.assert_close(actual[key], value, rtol=1e-9, atol=1e-11, msg=told)
    assert changed >= 3


@pytest.mark.parametrize("total", [10, 60, 150, 300, 395])
def test_a_surplus_ends_where_the_authors_rounds_end(total: int) -> None:
    """One level for all that are not full; their code shares again and again."""
    means, room = [8.0, 1.0, 3.0, 0.5], [20, 180, 50, 150]
    actual = shared_equally(total, means, room)
    assert sum(actual) == total
    expected = authors.redistributed(total, means, room)
    assert all(abs(a - b) <= 1 for a, b in zip(actual, expected, strict=True))


def test_a_surplus_that_fits_below_no_cap_fills_the_rooms() -> None:
    assert sum(shared_equally(399, [1.0, 1.0], [100, 300])) == 399
    assert shared_equally(400, [1.0, 0.0], [100, 300]) == [100, 300]
    assert shared_equally(0, [0.0, 0.0], [100, 300]) == [0, 0]


@pytest.mark.parametrize("beta", [0.75, 0.1])
def test_dyrelu_is_its_formula(beta: float) -> None:
    """Outputs and all gradients, where the authors' is no ReLU: 0 < β < 1."""
    torch.manual_seed(0)
    unit = DyReLU(8).double()
    x = torch.randn(3, 8, 4, 4, dtype=torch.float64, requires_grad=True)
    own = x.detach().clone().requires_grad_()
    weights = [p.detach().clone().requires_grad_() for p in unit.parameters()]
    wanted = authors.dynamic_relu(own, weights, beta)
    actual = unit(x, beta)
    torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=1e-12)
    wanted.square().sum().backward()
    actual.square().sum().backward()
    pairs = [(x, own), *zip(unit.parameters(), weights, strict=True)]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)


def test_the_share_that_granet_exchanges_ends_at_the_last_step() -> None:
    """Half at first, 0.005 at the end of the whole training; until the ramp ends it is 0 there."""
    kernels = sparse_kernels(net())
    long = Granet(TrainGranet(sparsity=0.9, stop=0.5, exchange="training"), kernels, drawn())
    short = Granet(TrainGranet(sparsity=0.9, stop=0.5), kernels, drawn())
    middle = Moment(EPOCHS // 2, 0, STEPS, EPOCHS, RATE)
    assert long.share(middle) == pytest.approx(0.005 + 0.495 / 2 * (1 + math.cos(math.pi / 2)))
    assert long.regrows(middle)
    assert short.share(middle) == 0
    assert not short.regrows(middle)
