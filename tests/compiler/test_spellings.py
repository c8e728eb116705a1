"""Layers and norms in functional spellings, with parameters of a module used apart from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from masks import randomise
from sampling import sampled
from torch import Tensor, nn
from torch.nn import functional as F

from prunec.graph.rewriting.compile import compile_module

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
    "group norm": lambda p, x: F.group_norm(x, 2, p.weight, p.bias),
    "group norm, factor apart": lambda p, x: F.group_norm(x, 2) * lifted(p.weight, x),
    "group norm, shift apart": lambda p, x: F.group_norm(x, 2, p.weight) + lifted(p.bias, x),
    "group norm, shift twice": lambda p, x: p(x) + lifted(p.bias, x),
    "group norm, one group": lambda p, x: F.group_norm(x, 1, p.weight, p.bias),
    "instance norm": lambda p, x: F.instance_norm(x, weight=p.weight, bias=p.bias),
    "instance norm, shift apart": lambda p, x: (
        F.instance_norm(x, weight=p.weight) + lifted(p.bias, x)
    ),
    "group norm, shift alone": lambda p, x: F.group_norm(x, 2, None, p.bias),
}
LAYERS: dict[str, Rule] = {
    "layer norm": tokens(lambda p, x: F.layer_norm(x, (6,), p.weight, p.bias)),
    "layer norm, factor apart": tokens(lambda p, x: F.layer_norm(x, (6,)) * p.weight),
    "layer norm, shift apart": tokens(lambda p, x: F.layer_norm(x, (6,), p.weight) + p.bias),
    "layer norm, shift alone": tokens(lambda p, x: F.layer_norm(x, (6,), None, p.bias)),
    "root mean square": tokens(lambda p, x: F.rms_norm(x, (6,), p.weight) + p.bias),
}
SLOPES: dict[str, Rule] = {
    "slopes": lambda p, x: F.prelu(x, p.weight),
    "slopes apart": lambda p, x: F.prelu(x, p.weight) * lifted(p.weight, x),
    "slopes by hand": lambda p, x: x.clamp(min=0) + lifted(p.weight, x) * x.clamp(max=0),
}
RECURRENT: dict[str, Rule] = {
    "whole": tokens(lambda p, x: p(x.flatten(1, 2))[0].unflatten(1, x.shape[1:3])),
    "weight apart": tokens(
        lambda p, x: p(x.flatten(1, 2))[0].unflatten(1, x.shape[1:3]) + x @ p.weight_ih_l0[:6].T
    ),
    "bias apart": tokens(
        lambda p, x: p(x.flatten(1, 2))[0].unflatten(1, x.shape[1:3]) + p.bias_ih_l0[:6]
    ),
    "bias before": tokens(
        lambda p, x: p(x.flatten(1, 2) + p.bias_hh_l0[:6])[0].unflatten(1, x.shape[1:3])
    ),
}
PARTS: tuple[tuple[Callable[[], nn.Module], dict[str, Rule]], ...] = (
    (lambda: nn.Conv2d(6, 6, 3, padding=1), CONV),
    (lambda: nn.ConvTranspose2d(6, 6, 3, padding=1), TRANSPOSED),
    (lambda: nn.Linear(6, 6), LINEAR),
    (lambda: nn.BatchNorm2d(6), NORM),
    (lambda: nn.GroupNorm(2, 6), GROUPS),
    (lambda: nn.LayerNorm(6), LAYERS),
    (lambda: nn.PReLU(6), SLOPES),
    (lambda: nn.LSTM(6, 6, batch_first=True), {f"lstm, {k}": r for k, r in RECURRENT.items()}),
    (lambda: nn.GRU(6, 6, batch_first=True), {f"gru, {k}": r for k, r in RECURRENT.items()}),
)
SPELLINGS = {name: (make, rule) for make, rules in PARTS for name, rule in rules.items()}


class Spelled(nn.Module):
    """A convolution, a part used by a rule, a convolution."""

    def __init__(self, make: Callable[[], nn.Module], rule: Rule) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem, self.part = nn.Conv2d(3, 6, 3, padding=1), make()
        self.head, self.rule = nn.Conv2d(6, 3, 1), rule
        randomise(self)
        with torch.no_grad():
            self.stem.weight[::3] = 0
            for parameter in self.part.parameters():
                if parameter.dim() > 1:
                    parameter[1::3] = 0
                    parameter[:, 2::3] = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rule(self.part, self.stem(x).relu()).relu())


def images(batch: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 3, 5, 4, dtype=torch.float64, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("name", sampled(SPELLINGS, 4))
def test_a_spelling_is_exact(name: str, dtype: torch.dtype) -> None:
    module = Spelled(*SPELLINGS[name]).to(dtype)
    compact = compile_module(module, (images(2, dtype),)).module
    with torch.no_grad():
        for batch in (1, 2, 3, 5):
            given = images(batch, dtype)
            expected, found = module(given), compact(given)
            bound = 1e-10 if dtype == torch.float64 else 1e-5
            assert (expected - found).abs().max() <= bound * expected.abs().max()
