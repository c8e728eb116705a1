"""Deformable convolutions: channels go as of any kernel, what says where taps read stays."""

from __future__ import annotations

import pytest
import torch
from masks import randomise
from oracles import worst
from torch import Tensor, nn
from torchvision.ops import DeformConv2d
from zoo.parts import block

from prunec.graph.rewriting.compile import compile_module


class Deformed(nn.Module):
    """A deformable convolution, whose taps may have factors, between two others."""

    def __init__(self, *, factors: bool) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.offsets = nn.Conv2d(8, 18, 3, padding=1)
        self.factors = nn.Conv2d(8, 9, 3, padding=1) if factors else None
        self.deformed = DeformConv2d(8, 6, 3, padding=1)
        self.tail = nn.Conv2d(6, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        factors = None if self.factors is None else self.factors(x).sigmoid()
        return self.tail(self.deformed(x, self.offsets(x), factors).relu())


@pytest.mark.parametrize("factors", [False, True])
def test_channels_of_a_deformable_convolution_go(factors: bool) -> None:
    torch.manual_seed(0)
    net = randomise(Deformed(factors=factors).double()).eval()
    with torch.no_grad():
        net.stem[0].weight[3:] = 0.0
        net.stem[1].bias[3:] = torch.rand(5, dtype=torch.float64) + 0.5
        net.deformed.weight[4:] = 0.0
        net.deformed.bias[4:] = -1.0
    example = (torch.randn(2, 3, 9, 9, dtype=torch.float64),)
    compact = compile_module(net, example).module
    for batch in (1, 2, 3, 5):
        assert worst(net, compact, (torch.randn(batch, 3, 9, 9, dtype=torch.float64),)) < 1e-12
    assert compact.get_parameter("deformed.weight").shape == (4, 4, 3, 3)  # three and a carrier


class Arranged(nn.Module):
    """A deformable convolution of several groups or offsets, with or without a bias."""

    def __init__(self, groups: int, offsets: int, *, bias: bool) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.offsets = nn.Conv2d(3, 18 * offsets, 3, padding=1)
        self.deformed = DeformConv2d(8, 8, 3, padding=1, groups=groups, bias=bias)
        self.tail = nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.deformed(self.stem(x), self.offsets(x)).relu())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("groups", "offsets", "left"),
    [(1, 1, (4, 4)), (2, 1, (4, 4)), (8, 1, (4, 1)), (1, 2, (4, 6)), (2, 2, (8, 4))],
)
def test_groups_and_offsets_stay_even(
    groups: int, offsets: int, left: tuple[int, int], bias: bool
) -> None:
    """Of constants each group keeps a carrier, and several offsets keep all."""
    torch.manual_seed(0)
    net = randomise(Arranged(groups, offsets, bias=bias).double()).eval()
    with torch.no_grad():
        net.stem[0].weight[[3, 4, 5, 6, 7]] = 0.0
        net.stem[1].bias[3:] = torch.rand(5, dtype=torch.float64) + 0.5
        net.tail.weight[:, [2, 3, 6, 7]] = 0.0
        if groups < offsets:
            net.deformed.weight[:, [2, 7]] = 0.0
    example = (torch.randn(2, 3, 7, 7, dtype=torch.float64),)
    compact = compile_module(net, example).module
    for batch in (1, 3):
        assert worst(net, compact, (torch.randn(batch, 3, 7, 7, dtype=torch.float64),)) < 1e-12
    assert compact.get_parameter("deformed.weight").shape[:2] == left
