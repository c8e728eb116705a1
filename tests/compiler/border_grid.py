"""Operators at the borders of images, in every setting that changes what a constant becomes there.

A family is a dict from a readable name to a module that takes 8 channels to 6. Each stands in a
branch of its own, all branches of a family in one network, so that one capture serves them all.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from masks import randomise
from torch import Tensor, nn
from torch.nn import functional as F
from zoo.parts import linear_block

SIZE = 9
Operators = dict[str, nn.Module]

# f(0) ≠ 0 in all of them.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "hardsigmoid": F.hardsigmoid,
    "gaussian": lambda x: torch.exp(-x * x),
    "shifted-tanh": lambda x: torch.tanh(x + 0.7),
}


class Function(nn.Module):
    """A function with its options, as a module."""

    def __init__(self, function: Callable[..., Tensor], *options: Any, **named: Any) -> None:
        super().__init__()
        self.function, self.options, self.named = function, options, named

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.options, **self.named)


class Branch(nn.Module):
    """Kernel, norm, activation, the operator, activation, and a last kernel that pads."""

    def __init__(self, activation: Callable[[Tensor], Tensor], operator: nn.Module) -> None:
        super().__init__()
        self.activation = activation
        self.stem = linear_block(3, 8)
        self.operator = operator
        self.tail = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.activation(self.operator(self.activation(self.stem(x)))))


class Branches(nn.Module):
    """Independent branches on one input; a dict of their outputs. Float64, eval, seeded."""

    def __init__(self, operators: Operators, activation: str) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(operators))
            self.branches = nn.ModuleDict(
                {name: Branch(ACTIVATIONS[activation], part) for name, part in operators.items()}
            )
            randomise(self.double())
        self.eval()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: branch(x) for name, branch in self.branches.items()}


def _reader(padding: int = 0, **options: Any) -> nn.Module:
    return nn.Conv2d(8, 6, 3, padding=padding, **options)


def _then_read(first: nn.Module) -> Operators:
    """The operator before a reader that pads, and before one that does not."""
    return {
        "then-padded": nn.Sequential(first, nn.Conv2d(8, 6, 3, padding=1, bias=False)),
        "then-plain": nn.Sequential(first, nn.Conv2d(8, 6, 1, bias=False)),
    }


def convolutions() -> Operators:
    """Zeros around the image, at every padding, stride and dilation."""
    return {
        f"p{p}-s{s}-d{d}": _reader(p, stride=s, dilation=d, bias=s == 1)
        for p, s, d in product((0, 1, 2), (1, 2, 3), (1, 2))
    }


def grouped_convolutions() -> Operators:
    """Groups each of which needs a carrier of its own, depthwise kernels, even and uneven ones."""
    collected: Operators = {}
    for p, s in product((0, 1, 2), (1, 2)):
        collected[f"two-groups-p{p}-s{s}"] = _reader(p, stride=s, groups=2)
        deep = nn.Conv2d(8, 8, 3, padding=p, stride=s, groups=8)
        collected[f"depthwise-p{p}-s{s}"] = nn.Sequential(
            deep, nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1)
        )
    collected["same-even"] = nn.Conv2d(8, 6, 4, padding="same")
    collected["same-dilated"] = nn.Conv2d(8, 6, 3, padding="same", dilation=2)
    collected["uneven"] = nn.Conv2d(8, 6, (1, 3), padding=(1, 0), stride=(2, 1))
    collected["wider-than-needed"] = nn.Conv2d(8, 6, 1, padding=1)
    return collected


def padding_modes() -> Operators:
    """Borders that repeat the image: a constant stays one."""
    return {
        f"{mode}-p{p}-s{s}-d{d}": _reader(p, stride=s, dilation=d, padding_mode=mode)
        for mode, p, s, d in product(
            ("reflect", "replicate", "circular"), (1, 2), (1, 2, 3), (1, 2)
        )
        if (s, d) != (3, 2)
    }


def paddings() -> Operators:
    """``F.pad`` before a reader, asymmetric, cropping too, by repetition and by a number."""
    sides = {"even": (1, 1, 1, 1), "uneven": (0, 1, 2, 1), "cropped": (-1, 2, 0, 1)}
    kinds: dict[str, dict[str, Any]] = {
        mode: {"mode": mode} for mode in ("reflect", "replicate", "circular")
    }
    kinds |= {"zeros": {}, "value": {"value": 0.37}}
    return {
        f"{kind}-{side}-s{s}": nn.Sequential(
            Function(F.pad, sides[side], **named), _reader(p, stride=s)
        )
        for (kind, named), (side, s, p) in product(
            kinds.items(), (("even", 1, 0), ("uneven", 2, 0), ("uneven", 1, 1), ("cropped", 1, 0))
        )
        if side != "cropped" or kind in ("zeros", "value")
    }


def average_pools() -> Operators:
    """With and without the padding in the count, with a ceiling, with a divisor."""
    collected: Operators = {}
    settings = [(2, 2, 0), (3, 1, 1), (3, 2, 1), (2, 1, 1), (3, 2, 0)]
    for (k, s, p), counted, ceiling in product(settings, (True, False), (False, True)):
        pool = nn.AvgPool2d(k, s, p, ceil_mode=ceiling, count_include_pad=counted)
        name = f"k{k}-s{s}-p{p}" + "-counted" * counted + "-ceiling" * ceiling
        reader = "then-padded" if s == 1 or ceiling else "then-plain"
        collected[f"{name}-{reader}"] = _then_read(pool)[reader]
    for reader, part in _then_read(nn.AvgPool2d(3, 2, 1, divisor_override=5)).items():
        collected[f"divisor-{reader}"] = part
    return collected


def max_pools() -> Operators:
    """Padded with −∞, dilated, with a ceiling: a constant stays one, of either sign."""
    collected: Operators = {}
    for k, s, p, d, ceiling in [
        (2, 2, 0, 1, False), (3, 2, 1, 1, False), (3, 1, 1, 1, True), (3, 2, 1, 1, True),
        (2, 1, 1, 2, False), (3, 2, 0, 2, True),
    ]:  # fmt: skip
        pool = nn.MaxPool2d(k, s, p, dilation=d, ceil_mode=ceiling)
        for reader, part in _then_read(pool).items():
            collected[f"k{k}-s{s}-p{p}-d{d}" + "-ceiling" * ceiling + f"-{reader}"] = part
    return collected


def transposed_convolutions() -> Operators:
    """Output pixels see different numbers of taps, at the border and, with strides, inside."""
    return {
        f"k{k}-s{s}-p{p}-o{o}-d{d}-g{g}": nn.ConvTranspose2d(
            8, 6, k, stride=s, padding=p, output_padding=o, dilation=d, groups=g, bias=g == 1
        )
        for k, s, p, o, d, g in [
            (1, 1, 0, 0, 1, 1), (3, 1, 0, 0, 1, 1), (3, 1, 1, 0, 1, 1), (3, 1, 2, 0, 1, 1),
            (2, 2, 0, 0, 1, 1), (2, 2, 0, 1, 1, 1), (3, 2, 1, 1, 1, 1), (3, 2, 0, 0, 1, 1),
            (3, 2, 1, 0, 2, 1), (3, 2, 2, 1, 2, 1), (3, 1, 2, 1, 2, 1), (3, 3, 1, 2, 1, 1),
            (2, 3, 0, 0, 1, 1), (3, 3, 0, 1, 2, 1), (3, 2, 1, 1, 1, 2), (2, 2, 0, 0, 1, 2),
            (4, 2, 1, 0, 1, 2),
        ]
    }  # fmt: skip


def upsamplings() -> Operators:
    """Interpolation weights sum to 1 everywhere, at the border too."""
    kinds: dict[str, dict[str, Any]] = {
        "nearest": {"scale_factor": 2, "mode": "nearest"},
        "nearest-exact": {"size": (13, 7), "mode": "nearest-exact"},
        "bilinear": {"scale_factor": 2, "mode": "bilinear"},
        "bilinear-aligned": {"size": (14, 11), "mode": "bilinear", "align_corners": True},
        "bilinear-smaller": {"scale_factor": 0.5, "mode": "bilinear", "antialias": True},
        "bicubic": {"scale_factor": 1.5, "mode": "bicubic"},
        "bicubic-aligned": {"size": (12, 12), "mode": "bicubic", "align_corners": True},
        "area": {"size": (5, 4), "mode": "area"},
    }
    return {
        f"{kind}-{reader}": part
        for kind, named in kinds.items()
        for reader, part in _then_read(Function(F.interpolate, **named)).items()
    }


def adaptive_pools() -> Operators:
    """Windows of different sizes, of everything, and more windows than pixels."""
    collected: Operators = {}
    for kind, size in product((nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d), (1, 3, (4, 2), 11)):
        if kind is nn.AdaptiveMaxPool2d and size == 1:
            continue  # activations that saturate have the same maximum in every image
        for reader, part in _then_read(kind(size)).items():
            collected[f"{kind.__name__}-{size}-{reader}"] = part
    return collected


FAMILIES: dict[str, Callable[[], Operators]] = {
    "convolutions": convolutions,
    "grouped convolutions": grouped_convolutions,
    "padding modes": padding_modes,
    "paddings": paddings,
    "average pools": average_pools,
    "max pools": max_pools,
    "transposed convolutions": transposed_convolutions,
    "upsamplings": upsamplings,
    "adaptive pools": adaptive_pools,
}
