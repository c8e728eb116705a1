"""Steps without parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from random_networks.of_batch import OF_BATCH
from random_networks.pads import BORDERS
from random_networks.wiring import Step
from random_networks.writes import WRITES

ACTIVATIONS = {
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "hardswish": F.hardswish,
    "softplus": F.softplus,
    "gelu": F.gelu,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "masked": lambda x: x * (x > 0.1),
    "chosen": lambda x: torch.where(x < 0.2, 0.3 - x, x),
    "log-sigmoid": F.logsigmoid,
    "by-mean": lambda x: x * torch.sigmoid(x.mean(1, keepdim=True)),
    "by-extremes": lambda x: x - 0.1 * x.max(1, keepdim=True)[0] * x.amin(1).unsqueeze(1),
    "by-norm": lambda x: x / (1 + x.norm(dim=1, keepdim=True)),
    "by-sum": lambda x: torch.tanh(x.sum((1, 2, 3), keepdim=True)) + x,
}
POOLS = {
    "max": lambda x: F.max_pool2d(x, 3, 1, 1),
    "average": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "average-inside": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "halved": lambda x: F.max_pool2d(x, 2, ceil_mode=True),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 4),
    "padded-max": lambda x: F.max_pool2d(F.pad(x, (2, 0, 1, 1)), 3, 1),
    "padded-average": lambda x: F.avg_pool2d(F.pad(x, (1, 1, 2, 0), value=0.4), 3, 1),
    "standardised": lambda x: (
        (x - x.mean((2, 3), keepdim=True)) * (x.var((2, 3), keepdim=True) + 1).rsqrt()
    ),
    "shifted": lambda x: F.pad(x, (1, -1)),
}


def moved(step: Step, given: list[Tensor]) -> Tensor:
    """Computation of a step without parameters."""
    return MOVES[step.kind](step, *given)


def _halves(step: Step, x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return a * torch.sigmoid(b) if step.options[0] else a + b


def _swapped(step: Step, x: Tensor) -> Tensor:
    a, b = torch.split(x, [x.shape[1] // 2, x.shape[1] - x.shape[1] // 2], 1)
    return torch.cat([b, a], 1)


def _widened(step: Step, x: Tensor) -> Tensor:
    p = int(step.options[0])
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, p, p))


def _interpolated(step: Step, x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode=step.kind)


def _shuffled(step: Step, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    groups = int(step.options[0])
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


MOVES: dict[str, Callable[..., Tensor]] = {
    "act": lambda step, x: ACTIVATIONS[str(step.options[0])](x),
    "pool": lambda step, x: POOLS[str(step.options[0])](x),
    "bordered": lambda step, x: BORDERS[str(step.options[0])](x),
    "of-batch": lambda step, x: OF_BATCH[str(step.options[0])](x),
    "write": lambda step, x: WRITES[str(step.options[0])](x),
    "add": lambda step, x, y: x + y,
    "times": lambda step, x, y: x * y,
    "cat": lambda step, *given: torch.cat(given, 1),
    "stack": lambda step, *given: torch.stack(given, 2).flatten(1, 2),
    "slice": lambda step, x: x[:, int(step.options[0]) : int(step.options[1])],
    "halves": _halves,
    "swap": _swapped,
    "widen": _widened,
    "pixel-shuffle": lambda step, x: F.pixel_shuffle(x, 2),
    "pixel-unshuffle": lambda step, x: F.pixel_unshuffle(x, 2),
    "bilinear": _interpolated,
    "nearest": _interpolated,
    "softmax": lambda step, x: x.softmax(1),
    "channel-shuffle": lambda step, x: F.channel_shuffle(x, int(step.options[0])),
    "shuffle": _shuffled,
}
