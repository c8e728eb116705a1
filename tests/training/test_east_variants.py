"""EAST as published versions of its authors' code have it: floors of density, DyReLU's start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import small_context
from torch import nn

from prunec.artifact import Artifact
from prunec.errors import PassError
from prunec.models.resnet_cifar import ResNetCifar
from prunec.passes.train_east import TrainEast
from prunec.sparsity.dyrelu import DyReLU, Phasing, Units
from prunec.sparsity.kernels import sparse_kernels
from prunec.training.method import Moment

OPTIONS = TrainEast(sparsity=0.9, cycle_steps=2, update_steps=4, dyrelu_from=0.5, dyrelu_until=0.75)
EXAMPLE = (torch.randn(2, 1, 8, 8),)


def net() -> nn.Module:
    torch.manual_seed(5)
    return ResNetCifar(1, 3, 1).eval()


@pytest.mark.parametrize(
    ("floor", "share", "kept"),
    [
        (0.0, 0.0, 2_127),
        (0.001, 0.0, 21_365),  # ten times what is meant
        (0.0, 0.7, 2_303),
        (0.0, 0.01, 2_128),
    ],
)
def test_a_floor_keeps_more_of_resnet_34_than_is_meant(
    floor: float, share: float, kept: int
) -> None:
    """Its kernels at 99.99 %: [O, I, k, k], a classifier of ten classes, nothing shared."""
    widths = [(64, 3), (128, 4), (256, 6), (512, 3)]
    shapes: list[tuple[int, ...]] = [(64, 3, 3, 3)]
    inputs = 64
    for width, blocks in widths:
        shapes += [(width, inputs, 3, 3)] + [(width, width, 3, 3)] * (2 * blocks - 1)
        shapes += [(width, inputs, 1, 1)] if width != inputs else []
        inputs = width
    shapes.append((10, 512))
    options = TrainEast(sparsity=0.9999, layer_floor=floor, layer_floor_share=share)
    assert sum(options.counts(shapes, 1e-4)) == kept


def test_what_a_floor_keeps_is_reported(tmp_path: Path) -> None:
    """The weights meant and the weights left, both by count."""
    options = replace(OPTIONS, sparsity=0.99, layer_floor=0.05, own_blocks=0)
    result = options(Artifact(net(), EXAMPLE), small_context(tmp_path, epochs=2))
    total = sum(kernel.numel() for kernel in sparse_kernels(net()).values())
    left = sum(int(mask.sum()) for mask in result.masks.values())
    assert left > 4 * 0.01 * total
    notes = " ".join(result.history[-1].notes)
    assert f"{left:,} of {total:,} weights left" in notes
    assert f"more than the {round(0.01 * total):,} weights meant" in notes


def test_a_floor_without_erk_is_refused() -> None:
    with pytest.raises(PassError, match="layer_floor"):
        TrainEast(sparsity=0.9, spread="uniform", layer_floor=0.01)


@pytest.mark.parametrize(("waits", "same"), [(True, True), (False, False)])
def test_units_that_wait_are_relu_until_beta_falls(waits: bool, same: bool) -> None:
    phasing = Phasing([8])
    phasing.waits = waits
    module = nn.Sequential(nn.ReLU())
    phasing.install(module)
    x = torch.randn(3, 8, 4, 4)
    assert torch.equal(module(x), x.relu()) == same
    phasing.beta = 0.9
    assert not torch.equal(module(x), x.relu())


@pytest.mark.parametrize(
    ("acts", "learns", "moved"),
    [
        ("at once", "before", {1, 2}),  # the paper: DyReLU from the start, frozen as it fades
        ("at once", "always", {1, 2, 3}),
        ("at once", "never", set()),
        ("fading", "always", {3}),  # published: ReLU first, and the freeze never comes
        ("fading", "before", set()),  # published, with the freeze: as they were drawn
        ("fading", "never", set()),
    ],
)
def test_units_learn_when_they_are_said_to(acts: Any, learns: Any, moved: set[int]) -> None:
    """Epochs of four in which the units move: DyReLU fades from the third on."""
    options = replace(OPTIONS, dyrelu_acts=acts, dyrelu_learns=learns, dyrelu_from=0.5,
                      dyrelu_until=0.75)  # fmt: skip
    module = net()
    rebuilt = options.rebuild(module, EXAMPLE, 0)
    method = rebuilt.method(options, module, torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-4, momentum=0.9)  # 0.1 diverges
    method.begin(optimizer, {})
    module.train()
    assert rebuilt.phasing is not None
    units: Units = rebuilt.phasing.units
    assert isinstance(units[0], DyReLU)
    collected = set()
    for number in range(12):
        before = torch.cat([p.detach().flatten().clone() for p in units.parameters()])
        moment = Moment(*divmod(number, 3), 3, 4, 0.1)
        optimizer.zero_grad()
        method.before_forward(moment)
        module(torch.randn(4, 1, 8, 8)).square().sum().backward()
        method.gradient(moment)
        optimizer.step()
        method.after_step(moment)
        after = torch.cat([p.detach().flatten() for p in units.parameters()])
        if not torch.equal(before, after):
            collected.add(moment.epoch + 1)
    assert collected == moved


def test_units_that_first_act_late_learn_by_a_fused_optimizer(tmp_path: Path) -> None:
    """As on a GPU: beside kernels whose momentum is there already."""
    options = replace(OPTIONS, dyrelu_acts="fading", dyrelu_learns="always")
    fused = {"name": "SGD", "momentum": 0.9, "fused": True}
    result = options(Artifact(net(), EXAMPLE), small_context(tmp_path, epochs=4, optimizer=fused))
    assert result.history
