"""Weights that are computed from parameters alone: masks still on, standardised, parametrised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

Make = Callable[[int], nn.Module]


class Convolution(nn.Conv2d):
    """A convolution whose kernel is computed from its weight."""

    def __init__(self, rule: Callable[[Tensor], Tensor], channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)
        self.rule = rule

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.rule(self.weight), self.bias, padding=1)


class Sigmoids(nn.Module):
    """A parametrisation that keeps zeros."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight * torch.sigmoid(weight)


class Blur(nn.Module):
    """A kernel for every channel that comes in, from one that is stored."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.outer(torch.arange(1.0, 4), torch.arange(1.0, 4)) / 36)
        self.padding = 1

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.expand(x.size(1), 1, -1, -1)
        return F.conv2d(x, kernel, padding=self.padding, groups=x.shape[1])


class Mixture(nn.Module):
    """One kernel of several, in shares that are learnt."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.kernels = nn.Parameter(torch.randn(3, channels, channels, 3, 3) / channels)
        self.shares = nn.Parameter(torch.randn(3))
        self.bias = nn.Parameter(torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        kernel = (self.shares.softmax(0)[:, None, None, None, None] * self.kernels).sum(0)
        return F.conv2d(x, kernel, self.bias, padding=1)


class OfLowRank(nn.Module):
    """A linear map over the channels that is a product of two matrices, times a gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.randn(channels, 2))
        self.right = nn.Parameter(torch.randn(2, channels))
        self.gate = nn.Parameter(torch.randn(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.movedim(1, -1), self.gate * (self.left @ self.right)).movedim(-1, 1)


def standardised(weight: Tensor) -> Tensor:
    variance, mean = torch.var_mean(weight, (1, 2, 3), keepdim=True, unbiased=False)
    return (weight - mean) * torch.rsqrt(variance + 1e-5)


def one_bit(weight: Tensor) -> Tensor:
    return weight.sign() * weight.abs().mean((1, 2, 3), keepdim=True)


def wrapped(wrap: Callable[[nn.Module], Any]) -> Make:
    @torch.no_grad()
    def make(channels: int) -> nn.Module:
        part = nn.Conv2d(channels, channels, 3, padding=1)
        part.weight[1::2] = 0
        part.weight[:, ::4] = 0
        wrap(part)
        return part

    return make


def ruled(rule: Callable[[Tensor], Tensor]) -> Make:
    return lambda channels: Convolution(rule, channels)


def with_sigmoids(part: nn.Module) -> None:
    parametrize.register_parametrization(part, "weight", Sigmoids())


COMPUTED: dict[str, Make] = {
    "masks still on": wrapped(lambda part: prune.ln_structured(part, "weight", 0.5, n=2, dim=0)),
    "masks of single weights": wrapped(lambda part: prune.l1_unstructured(part, "weight", 0.9)),
    "parametrised": wrapped(with_sigmoids),
    "spectral norm": wrapped(parametrizations.spectral_norm),
    "standardised": ruled(standardised),
    "one bit": ruled(one_bit),
    "turned": ruled(lambda weight: weight.flip(-1)),
    "symmetric": ruled(lambda weight: (weight + weight.transpose(-1, -2)) / 2),
    "quantised": ruled(lambda weight: (weight * 16).round() / 16),
    "blur": Blur,
    "mixture": Mixture,
    "of low rank": OfLowRank,
}
