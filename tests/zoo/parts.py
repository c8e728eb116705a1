"""Parts of the nets of the zoo: a module from a function, usual blocks, the registry."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import torch
from masks import randomise
from torch import Tensor, nn

Case = tuple[nn.Module, tuple[Tensor, ...]]
ZOO: dict[str, Callable[[], Case]] = {}


class Net(nn.Module):
    """A module of one input: named parts, and the function that wires them."""

    def __init__(self, rule: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.rule = rule
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.rule(self, x)


class Net2(Net):
    """The same with two inputs."""

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.rule(self, x, y)


def member(*shapes: tuple[int, ...]) -> Callable[[Callable[[], nn.Module]], Callable[[], Case]]:
    """Register a net under its function's name: seeded, float64, eval, batch 2, norms random."""

    def register(build: Callable[[], nn.Module]) -> Callable[[], Case]:
        name = build.__name__.replace("_", "-")

        def case() -> Case:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(zlib.crc32(name.encode()))
                module = randomise(build().double()).eval()
                example = tuple(torch.randn(2, *shape, dtype=torch.float64) for shape in shapes)
            return module, example

        ZOO[name] = case
        return case

    return register


def conv(i: int, o: int, k: int = 3, **options: Any) -> nn.Conv2d:
    """A convolution without bias that keeps the size of its image at stride 1."""
    return nn.Conv2d(i, o, k, **({"padding": k // 2, "bias": False} | options))


def block(i: int, o: int, k: int = 3, **options: Any) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(conv(i, o, k, **options), nn.BatchNorm2d(o), nn.ReLU())


def linear_block(i: int, o: int, k: int = 3, **options: Any) -> nn.Sequential:
    """Convolution and batch norm, nothing after them."""
    return nn.Sequential(conv(i, o, k, **options), nn.BatchNorm2d(o))


def head(i: int, classes: int = 5) -> nn.Sequential:
    """Global average, flatten, linear."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(i, classes))
