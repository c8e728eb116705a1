"""Single weights masked: what is zero by chance goes at once, and compiled again nothing more."""

from __future__ import annotations

import pytest
import torch
from masks import masked, randomise, unstructured_masks
from oracles import worst
from torch import Tensor, nn

from prunec.graph.rewriting.compile import compile_module

SEEDS = range(6, 18)
SHARES = (0.03, 0.06, 0.1)


class Sparse(nn.Module):
    """Kernels that pad, so that a constant may stay in one for the sake of a single weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.other = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.third, self.last = (nn.Conv2d(6, size, 3, padding=1) for size in (6, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        y = self.third(self.other(self.second(x)).relu()).relu() + x
        return self.head(self.last(y).mean((2, 3)))


@pytest.mark.parametrize("seed", SEEDS)
def test_compiled_again_nothing_more_goes(seed: int) -> None:
    torch.manual_seed(seed)
    net = randomise(Sparse()).double().eval()
    net = masked(net, unstructured_masks(net, SHARES[seed % len(SHARES)], seed))
    example = (torch.randn(2, 3, 8, 8, dtype=torch.float64),)
    once = compile_module(net, example).module
    assert worst(net, once, example) < 1e-12
    twice = compile_module(once, example).module
    shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in (once, twice)]
    assert shapes[0] == shapes[1]


def test_a_filter_that_nobody_reads_asks_for_no_constant() -> None:
    """It alone sees the constant at the border, where no bias could stand for it."""
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 2, 1)
    net = nn.Sequential(*parts).double().eval()
    first, _, second, last = parts
    with torch.no_grad():
        first.weight[3], first.bias[3] = 0.0, 0.7
        last.weight[:, 4] = 0.0
        second.weight[:4, 3] = 0.0
        second.weight[:4, 3, 1, 1] = 1.0
    example = (torch.randn(2, 3, 6, 6, dtype=torch.float64),)
    compact = compile_module(net, example).module
    assert worst(net, compact, example) < 1e-12
    assert compact.get_parameter("0.weight").shape[0] == 3


@pytest.mark.parametrize("left", [0, 2])
def test_a_projection_keeps_more_units_than_outputs(left: int) -> None:
    """Sizes that torch requires, even if few units are read."""

    class Projecting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory, self.head = nn.LSTM(5, 6, proj_size=3, batch_first=True), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.memory(x)[0][:, -1])

    torch.manual_seed(0)
    net = Projecting().double().eval()
    with torch.no_grad():
        net.memory.weight_hr_l0[:, left:] = 0.0
    example = (torch.randn(2, 4, 5, dtype=torch.float64),)
    compact = compile_module(net, example).module
    assert worst(net, compact, example) < 1e-12
    assert compact.get_parameter("memory.weight_hr_l0").shape[1] == (4 if left else 2)
