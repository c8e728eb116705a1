"""Small networks and data for the tests of what ships."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from prunec.cost import Cost, LayerCost
from prunec.deploy.checks import Report
from prunec.tasks.task import Classification


def tiny(seed: int) -> nn.Module:
    """Regular, depthwise and pointwise convolution, ReLU6 in place, linear; input 3×16×16."""
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(inplace=True),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 16, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )
    for part in module:
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.2)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
    return module.eval()


def _dense(name: str, macs: int, params: int) -> LayerCost:
    return LayerCost(name, "conv", macs, macs, params, params)


# By hand: positions × outputs × inputs a group × kernel; parameters with norms and biases.
TINY_COST = Cost(
    layers=(
        _dense("0", 16 * 16 * 8 * 3 * 9, 8 * 3 * 9),
        _dense("3", 8 * 8 * 8 * 9, 8 * 9),
        _dense("6", 8 * 8 * 16 * 8, 16 * 8),
        _dense("9", 4 * 16, 4 * 16),
    ),
    params=216 + 16 + 72 + 16 + 128 + 16 + 64 + 4,
    nonzero_params=216 + 16 + 72 + 16 + 128 + 16 + 64 + 4,
)


class FakeData:
    """Two batches of noise with labels."""

    test_size = 14
    task = Classification(4)

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        assert batch_size > 0
        generator = torch.Generator().manual_seed(3)
        for size in (9, 5):
            images = torch.randn(size, 3, 16, 16, generator=generator)
            yield images, torch.arange(size) % 4


METADATA = {"prunec.macs": str(TINY_COST.macs), "prunec.recipe_digest": "feed" * 16}


@dataclass(frozen=True)
class Shipped:
    module: nn.Module
    example: tuple[Tensor, ...]
    path: Path


Verify = Callable[..., Report]
