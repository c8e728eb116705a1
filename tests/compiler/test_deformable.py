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
