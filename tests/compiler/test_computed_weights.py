"""Weights that are computed from parameters alone are constants: evaluated, and cut as others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sampling import sampled
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

import prunec

Make = Callable[[], nn.Module]


class Convolution(nn.Conv2d):
    """A convolution whose kernel is computed from its weight."""

    def __init__(self, rule: Callable[[Tensor], Tensor], i: int, o: int) -> None:
        super().__init__(i, o, 3, padding=1)
        self.rule = rule

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.rule(self.weight), self.bias, padding=1)


class Sigmoids(nn.Module):
    """A parametrisation that keeps zeros."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight * torch.sigmoid(weight)


class Blur(nn.Module):
    """A kernel for every channel that comes in, from one that is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.outer(torch.arange(1.0, 4), torch.arange(1.0, 4)) / 36)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.expand(x.size(1), 1, -1, -1)
        return F.conv2d(x, kernel, groups=x.shape[1])


def standardised(weight: Tensor) -> Tensor:
    variance, mean = torch.var_mean(weight, (1, 2, 3), keepdim=True, unbiased=False)
    return (weight - mean) * torch.rsqrt(variance + 1e-5)


def one_bit(weight: Tensor) -> Tensor:
    return weight.sign() * weight.abs().mean((1, 2, 3), keepdim=True)


def wrapped(wrap: Callable[[nn.Module], Any]) -> Make:
    def make() -> nn.Module:
        part = nn.Conv2d(8, 8, 3, padding=1)
        with torch.no_grad():
            part.weight[1::2] = 0
            part.weight[:, ::4] = 0
        wrap(part)
        return part

    return make


def ruled(rule: Callable[[Tensor], Tensor]) -> Make:
    return lambda: Convolution(rule, 8, 8)


def with_sigmoids(part: nn.Module) -> None:
    parametrize.register_parametrization(part, "weight", Sigmoids())


PARTS: dict[str, Make] = {
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
}
HALF = {"masks still on", "parametrised", "spectral norm"}


class Body(nn.Module):
    """A convolution, half of whose filters are zero, a part, a convolution."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.part, self.last = nn.Conv2d(3, 8, 3), make(), nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            self.first.weight[::2] = 0
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.part(self.first(x).relu()).relu())


def images(batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 3, 7, 6, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", sampled(PARTS, 2))
def test_it_is_exact_and_cut(name: str) -> None:
    model = Body(PARTS[name])
    compiled = prunec.compile(model, images(2))
    rebuilt = compiled.plan.apply(Body(PARTS[name]))
    rebuilt.load_state_dict(compiled.module.state_dict())
    for batch in (1, 2, 3, 5):
        expected = model(images(batch))
        for compact in (compiled.module, rebuilt):
            assert (compact(images(batch)) - expected).abs().max() < 1e-10 * expected.abs().max()
    assert compiled.plan.computed == (("computed_expand",) if name == "blur" else ("part.weight",))
    assert prunec.Plan.from_json(compiled.plan.to_json()) == compiled.plan
    share = compiled.report.after.macs / compiled.report.before.macs
    assert share < (0.5 if name in HALF else 0.8)
    again = prunec.compile(compiled.module, images(2))
    assert again.report.after == compiled.report.after


def test_masks_go_with_what_is_made_of_them() -> None:
    model = Body(PARTS["standardised"])
    mask = torch.ones_like(model.part.weight, dtype=torch.bool)
    mask[:, 3] = False
    compiled = prunec.compile(model, images(2), masks={"part.weight": mask})
    with torch.no_grad():
        model.part.weight[:, 3] = 0
    assert (compiled.module(images(3)) - model(images(3))).abs().max() < 1e-12
    left = dict(compiled.module.named_parameters())
    assert all(mask.shape == left[name].shape for name, mask in compiled.masks.items())


def test_a_parameter_that_is_read_otherwise_too_stays() -> None:
    class Tied(Body):
        def forward(self, x: Tensor) -> Tensor:
            y = self.part(self.first(x).relu())
            return self.last(F.conv2d(y.relu(), self.part.weight, padding=1))

    compiled = prunec.compile(Tied(PARTS["standardised"]), images(2))
    assert compiled.plan.computed == ()
    assert "part.weight" in dict(compiled.module.named_parameters())
