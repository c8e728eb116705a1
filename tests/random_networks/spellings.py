"""Layers and norms in functional spellings, with parameters of a module used apart from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUPED = 2
Rule = Callable[[Any, Tensor], Tensor]


def lifted(vector: Tensor, like: Tensor) -> Tensor:
    """A vector of channels as an image."""
    return vector.reshape(1, -1, *[1] * (like.dim() - 2))


def normalised(norm: Any, x: Tensor) -> Tensor:
    mean, variance = (lifted(v, x) for v in (norm.running_mean, norm.running_var))
    return (x - mean) * torch.rsqrt(variance + norm.eps)


def tokens(rule: Rule) -> Rule:
    """The rule on the channels as the last axis."""
    return lambda part, x: rule(part, x.movedim(1, -1)).movedim(-1, 1)


CONV: dict[str, Rule] = {
    "convolution": lambda p, x: F.conv2d(x, p.weight, p.bias, padding=1),
    "weight alone": lambda p, x: F.conv2d(x, p.weight, padding=1),
    "bias apart": lambda p, x: F.conv2d(x, p.weight, padding=1) + lifted(p.bias, x),
    "bias multiplied": lambda p, x: F.conv2d(x, p.weight, padding=1) * lifted(p.bias, x),
    "bias before": lambda p, x: lifted(p.bias, x) + F.conv2d(x, p.weight, padding=1),
    "bias first": lambda p, x: F.conv2d(lifted(p.bias, x) + x, p.weight, padding=1),
    "bias behind the whole": lambda p, x: p(x) + lifted(p.bias, x),
    "bias before the whole": lambda p, x: p(x + lifted(p.bias, x)),
    "whole and functional": lambda p, x: p(x) + F.conv2d(x, p.weight, None, 1, 1),
    "functional and whole": lambda p, x: F.conv2d(x, p.weight, None, 1, 1) * p(x),
    "other settings": lambda p, x: F.conv2d(x, p.weight, p.bias, padding=2, dilation=2) + p(x),
    "unfolded": lambda p, x: (
        (p.weight.flatten(1) @ F.unfold(x, 3, padding=1)).unflatten(-1, x.shape[2:])
        + lifted(p.bias, x)
    ),
    "norm of the weight": lambda p, x: p(x) * lifted(p.weight.square().sum((1, 2, 3)).sqrt(), x),
}
TRANSPOSED: dict[str, Rule] = {
    "transposed": lambda p, x: F.conv_transpose2d(x, p.weight, p.bias, padding=1),
    "transposed, bias apart": lambda p, x: (
        F.conv_transpose2d(x, p.weight, padding=1) + lifted(p.bias, x)
    ),
    "transposed, bias multiplied": lambda p, x: (
        F.conv_transpose2d(x, p.weight, padding=1) * lifted(p.bias, x)
    ),
}
LINEAR: dict[str, Rule] = {
    "transpose": tokens(lambda p, x: x @ p.weight.T + p.bias),
    "transpose alone": tokens(lambda p, x: x @ p.weight.T),
    "linear, bias apart": tokens(lambda p, x: F.linear(x, p.weight) + p.bias),
    "linear, bias twice": tokens(lambda p, x: F.linear(x, p.weight, p.bias) + p.bias),
    "einsum": lambda p, x: torch.einsum("bchw,oc->bohw", x, p.weight) + lifted(p.bias, x),
    "matmul": lambda p, x: (p.weight @ x.flatten(2)).unflatten(-1, x.shape[2:]) + lifted(p.bias, x),
    "addmm": lambda p, x: (
        torch.addmm(p.bias, x.movedim(1, -1).flatten(0, 2), p.weight.t())
        .unflatten(0, (-1, *x.shape[2:])).movedim(-1, 1)
    ),
    "as a convolution": lambda p, x: F.conv2d(x, p.weight[:, :, None, None], p.bias),
    "tensordot": lambda p, x: (
        torch.tensordot(x, p.weight, dims=([1], [1])).movedim(-1, 1) * p.bias[0]
    ),
    "whole and transpose": tokens(lambda p, x: p(x) + x @ p.weight.T),
    "baddbmm": lambda p, x: torch.baddbmm(
        p.bias[None, :, None], p.weight[None].expand(len(x), -1, -1), x.flatten(2)
    ).unflatten(-1, x.shape[2:]),
}  # fmt: skip
NORM: dict[str, Rule] = {
    "norm": lambda p, x: F.batch_norm(x, p.running_mean, p.running_var, p.weight, p.bias),
    "statistics alone": lambda p, x: F.batch_norm(x, p.running_mean, p.running_var),
    "factor alone": lambda p, x: F.batch_norm(x, p.running_mean, p.running_var, p.weight),
    "shift alone": lambda p, x: F.batch_norm(x, p.running_mean, p.running_var, None, p.bias),
    "factor apart": lambda p, x: (
        F.batch_norm(x, p.running_mean, p.running_var) * lifted(p.weight, x)
    ),
    "shift apart": lambda p, x: (
        F.batch_norm(x, p.running_mean, p.running_var, p.weight) + lifted(p.bias, x)
    ),
    "by hand": lambda p, x: normalised(p, x) * lifted(p.weight, x) + lifted(p.bias, x),
    "mean apart": lambda p, x: p(x) - lifted(p.running_mean, x),
    "mean first": lambda p, x: p(x - lifted(p.running_mean, x)),
    "whole, then without": lambda p, x: p(x) + F.batch_norm(x, p.running_mean, p.running_var),
    "other epsilon": lambda p, x: (
        F.batch_norm(x, p.running_mean, p.running_var, p.weight, p.bias, eps=0.1) + p(x)
    ),
    "frozen": lambda p, x: (
        x * lifted(p.weight * (p.running_var + p.eps).rsqrt(), x)
        + lifted(p.bias - p.weight * p.running_mean * (p.running_var + p.eps).rsqrt(), x)
    ),
}
GROUPS: dict[str, Rule] = {
    "group norm": lambda p, x: F.group_norm(x, GROUPED, p.weight, p.bias),
    "group norm, factor apart": lambda p, x: F.group_norm(x, GROUPED) * lifted(p.weight, x),
    "group norm, shift apart": lambda p, x: F.group_norm(x, GROUPED, p.weight) + lifted(p.bias, x),
    "group norm, shift twice": lambda p, x: p(x) + lifted(p.bias, x),
    "group norm, one group": lambda p, x: F.group_norm(x, 1, p.weight, p.bias),
    "instance norm": lambda p, x: F.instance_norm(x, weight=p.weight, bias=p.bias),
    "instance norm, shift apart": lambda p, x: (
        F.instance_norm(x, weight=p.weight) + lifted(p.bias, x)
    ),
    "group norm, shift alone": lambda p, x: F.group_norm(x, GROUPED, None, p.bias),
}
LAYERS: dict[str, Rule] = {
    "layer norm": tokens(lambda p, x: F.layer_norm(x, p.weight.shape, p.weight, p.bias)),
    "layer norm, factor apart": tokens(lambda p, x: F.layer_norm(x, p.weight.shape) * p.weight),
    "layer norm, shift apart": tokens(
        lambda p, x: F.layer_norm(x, p.weight.shape, p.weight) + p.bias
    ),
    "layer norm, shift alone": tokens(lambda p, x: F.layer_norm(x, p.weight.shape, None, p.bias)),
    "root mean square": tokens(lambda p, x: F.rms_norm(x, p.weight.shape, p.weight) + p.bias),
}
SLOPES: dict[str, Rule] = {
    "slopes": lambda p, x: F.prelu(x, p.weight),
    "slopes apart": lambda p, x: F.prelu(x, p.weight) * lifted(p.weight, x),
    "slopes by hand": lambda p, x: x.clamp(min=0) + lifted(p.weight, x) * x.clamp(max=0),
}
RECURRENT: dict[str, Rule] = {
    "whole": tokens(lambda p, x: p(x.flatten(1, 2))[0].unflatten(1, x.shape[1:3])),
    "weight apart": tokens(
        lambda p, x: (
            p(x.flatten(1, 2))[0].unflatten(1, x.shape[1:3]) + x @ p.weight_ih_l0[: x.shape[-1]].T
        )
    ),
    "bias apart": tokens(
        lambda p, x: p(x.flatten(1, 2))[0].unflatten(1, x.shape[1:3]) + p.bias_ih_l0[: x.shape[-1]]
    ),
    "bias before": tokens(
        lambda p, x: p(x.flatten(1, 2) + p.bias_hh_l0[: x.shape[-1]])[0].unflatten(1, x.shape[1:3])
    ),
}
PARTS: tuple[tuple[Callable[[int], nn.Module], dict[str, Rule]], ...] = (
    (lambda c: nn.Conv2d(c, c, 3, padding=1), CONV),
    (lambda c: nn.ConvTranspose2d(c, c, 3, padding=1), TRANSPOSED),
    (lambda c: nn.Linear(c, c), LINEAR),
    (nn.BatchNorm2d, NORM),
    (lambda c: nn.GroupNorm(2, c), GROUPS),
    (nn.LayerNorm, LAYERS),
    (nn.PReLU, SLOPES),
    (lambda c: nn.LSTM(c, c, batch_first=True), {f"lstm, {k}": r for k, r in RECURRENT.items()}),
    (lambda c: nn.GRU(c, c, batch_first=True), {f"gru, {k}": r for k, r in RECURRENT.items()}),
)
SPELLINGS = {name: (make, rule) for make, rules in PARTS for name, rule in rules.items()}
"""Name → what makes the part for so many channels, and how it is used."""
OF_PAIRS = frozenset(GROUPS)
"""Parts that need an even number of channels, and more than one pixel."""
OF_STEPS = frozenset(name for name in SPELLINGS if name.startswith(("lstm", "gru")))
"""Parts that take the pixels one after the other."""
