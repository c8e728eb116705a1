"""Layers as modules."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from random_networks.computed import COMPUTED
from random_networks.spellings import SPELLINGS
from random_networks.states import STATES, Remembering
from random_networks.wiring import Step, convolution_options


class Ruled(nn.Module):
    """A part that a rule uses, whole or its parameters apart."""

    def __init__(self, part: nn.Module, rule: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.part, self.rule = part, rule

    def forward(self, x: Tensor) -> Tensor:
        return self.rule(self.part, x)


class Attention(nn.Module):
    """Attention of whole heads over the pixels, added to what came in."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.q, self.k, self.v = (nn.Linear(channels, channels) for _ in range(3))
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        shape = (n, h * w, self.heads, c // self.heads)
        q, k, v = (p(tokens).view(shape).transpose(1, 2) for p in (self.q, self.k, self.v))
        mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        mixed = self.out(mixed.transpose(1, 2).reshape(n, h * w, c))
        return x + mixed.transpose(1, 2).reshape(n, c, h, w)


class Excitation(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, 3, 1), nn.Conv2d(3, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.squeeze(x.mean((2, 3), keepdim=True)).relu()
        return x * torch.sigmoid(self.excite(squeezed))


def part_of(step: Step, i: int) -> nn.Module | None:
    """The module of a step that has one, for ``i`` channels."""
    make = PARTS.get(step.kind)
    return make(step, i) if make else None


def _convolution(step: Step, i: int) -> nn.Module:
    o, k, groups, bias, stride, dilation, padding = convolution_options(step)
    return nn.Conv2d(i, o, k, stride, padding, dilation, groups, bias=bool(bias))


def _transposed(step: Step, i: int) -> nn.Module:
    o, k, groups, bias, stride, padding = map(int, step.options)
    return nn.ConvTranspose2d(i, o, k, stride, padding, 0, groups, bias=bool(bias))


def _padded(step: Step, i: int) -> nn.Module:
    """Options: out, bias, how."""
    return nn.Conv2d(i, int(step.options[0]), (3, 2), bias=bool(step.options[1]))


def _linear(step: Step, i: int) -> nn.Module:
    """Options: out, width inside."""
    o, inner = map(int, step.options)
    return nn.Sequential(nn.Linear(i, inner), nn.GELU(), nn.Linear(inner, o))


def _spelled(step: Step, i: int) -> nn.Module:
    make, rule = SPELLINGS[str(step.options[0])]
    return Ruled(make(i), rule)


PARTS: dict[str, Callable[[Step, int], nn.Module]] = {
    "conv": _convolution,
    "transposed": _transposed,
    "padded": _padded,
    "linear": _linear,
    "norm": lambda step, i: nn.BatchNorm2d(i),
    "group-norm": lambda step, i: nn.GroupNorm(int(step.options[0]), i),
    "instance-norm": lambda step, i: nn.InstanceNorm2d(i, affine=True),
    "layer-norm": lambda step, i: nn.LayerNorm(i),
    "prelu": lambda step, i: nn.PReLU(i),
    "excite": lambda step, i: Excitation(i),
    "attention": lambda step, i: Attention(i, int(step.options[0])),
    "spelled": _spelled,
    "computed": lambda step, i: COMPUTED[str(step.options[0])](i),
    "state": lambda step, i: Remembering(i, STATES[str(step.options[0])]),
}
