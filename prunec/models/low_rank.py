"""Low-rank linear maps: factorisation of linear layers, and multiplication back into one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from prunec.errors import PassError

Made = TypeVar("Made", bound=nn.Module)


class LowRank(nn.Module):
    """Linear map y = Wx + b with W = (1·mᵀ ⊙ W₂)W₁: r(n_in + n_out) weights for n_in·n_out.

    Attributes:
        first: W₁ [r, n_in].
        m: scale per rank [1, r]; two axes, so that weight decay applies to it as to kernels; None
            where it is absorbed into W₂.
        second: W₂ [n_out, r], and b.
    """

    m: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        *,
        bias: bool = True,
        scaled: bool = True,
    ) -> None:
        super().__init__()
        self.first = nn.Linear(in_features, rank, bias=False)
        self.register_parameter("m", nn.Parameter(torch.ones(1, rank)) if scaled else None)
        self.second = nn.Linear(rank, out_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., n_out] for x [..., n_in]."""
        inner: Tensor = self.first(x)
        outer: Tensor = self.second(inner if self.m is None else inner * self.m)
        return outer


@dataclass(frozen=True)
class Form:
    """Form of a linear map.

    Attributes:
        rank: rank of two factors; 0 for one full matrix.
        scaled: whether there is a scale m between the factors.
    """

    rank: int
    scaled: bool = False


def maps_of(module: nn.Module) -> dict[str, LowRank]:
    """Return the low-rank maps of a network that have a scale m, by name."""
    named = module.named_modules()
    return {n: part for n, part in named if isinstance(part, LowRank) and part.m is not None}


def reform(module: nn.Module, forms: Mapping[str, Form]) -> None:
    """Replace linear maps by maps of other forms, in place, with new weights.

    Raises:
        PassError: a module is not a linear map.
    """
    for name, form in forms.items():
        old = module.get_submodule(name)
        if not isinstance(old, nn.Linear | LowRank):
            raise PassError(f"{name} is a {type(old).__name__}, not a linear map")
        into, out = (old, old) if isinstance(old, nn.Linear) else (old.first, old.second)
        sizes, bias = (into.in_features, out.out_features), out.bias is not None
        new: nn.Module = nn.Linear(*sizes, bias=bias)
        if form.rank:
            new = LowRank(*sizes, form.rank, bias=bias, scaled=form.scaled)
        put(module, name, _like(new.to(out.weight), old))


def put(module: nn.Module, name: str, part: nn.Module) -> None:
    """Replace a module at its name, and at every other name where the same module is shared."""
    old = module.get_submodule(name)
    names = [n for n, other in module.named_modules(remove_duplicate=False) if other is old]
    for holder, _, attribute in (n.rpartition(".") for n in names):
        setattr(module.get_submodule(holder), attribute, part)


@torch.no_grad()
def factored(layer: nn.Linear, rank: int = 0) -> LowRank:
    """Factor W = V·diag(σ)·Uᵀ as W₂ = √σ₁·V, m = σ/σ₁, W₁ = √σ₁·Uᵀ, of the ``rank`` largest σ.

    ``rank`` = 0 is full rank, at which the factorisation is exact. Thresholds on m are thresholds
    on the singular values, relative to the largest.
    """
    weight = layer.weight.detach().double()
    v, sigma, u = torch.linalg.svd(weight, full_matrices=False)
    rank = min(rank or len(sigma), len(sigma))
    largest = sigma[0].clamp(min=torch.finfo(torch.float32).tiny)
    made = LowRank(layer.in_features, layer.out_features, rank, bias=layer.bias is not None)
    made.to(layer.weight)
    assert made.m is not None
    made.first.weight.copy_(largest.sqrt() * u[:rank])
    made.m.copy_(sigma[:rank] / largest)
    made.second.weight.copy_(largest.sqrt() * v[:, :rank])
    if layer.bias is not None:
        made.second.bias.copy_(layer.bias)
    return _like(made, layer)


@torch.no_grad()
def unscaled(low: LowRank) -> LowRank:
    """Return the map with m absorbed into W₂."""
    first, second = low.first, low.second
    bias = second.bias is not None
    made = LowRank(
        first.in_features, second.out_features, first.out_features, bias=bias, scaled=False
    ).to(second.weight)
    made.first.weight.copy_(first.weight)
    made.second.weight.copy_(second.weight if low.m is None else second.weight * low.m)
    if bias:
        made.second.bias.copy_(second.bias)
    return _like(made, low)


@torch.no_grad()
def whole(low: LowRank) -> nn.Linear:
    """Return the map as one matrix, multiplied in float64."""
    first, second = low.first, low.second
    made = nn.Linear(first.in_features, second.out_features, bias=second.bias is not None)
    made.to(second.weight)
    outer = second.weight.double()
    if low.m is not None:
        outer = outer * low.m
    made.weight.copy_(outer @ first.weight.double())
    if second.bias is not None:
        made.bias.copy_(second.bias)
    return _like(made, low)


def _like(made: Made, old: nn.Module) -> Made:
    """Give a map the mode and the frozen parameters of the one that it replaces; return it."""
    learns = {name: p.requires_grad for name, p in old.named_parameters()}
    weights = any(value for name, value in learns.items() if not name.endswith("bias"))
    biases = any(value for name, value in learns.items() if name.endswith("bias"))
    for name, parameter in made.named_parameters():
        kind = biases if name.endswith("bias") else weights
        parameter.requires_grad_(learns.get(name, kind))
    return made.train(old.training)
