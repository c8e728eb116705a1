"""DyReLU and how it stands in for ReLU, against its formula, differences and ReLU itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision import models

from prunec.errors import PassError
from prunec.models.resnet_cifar import resnet20
from prunec.sparsity import two_lines
from prunec.sparsity.dyrelu import DyReLU, Phasing, phasing_of

IMAGE = (torch.zeros(2, 3, 32, 32),)


@pytest.mark.parametrize("shape", [(3, 8, 5, 4), (3, 8), (2, 8, 6)])
def test_dyrelu_is_its_formula(shape: tuple[int, ...]) -> None:
    """Written out channel by channel, in float64."""
    torch.manual_seed(0)
    unit, x, beta = DyReLU(8).double(), torch.randn(shape, dtype=torch.float64), 0.3
    actual = unit(x, beta)
    for n in range(shape[0]):
        s = x[n].reshape(8, -1).mean(1)
        hidden = (unit.squeeze.weight @ s + unit.squeeze.bias).clamp(min=0)
        theta = 2 / (1 + torch.exp(-(unit.expand.weight @ hidden + unit.expand.bias))) - 1
        for c in range(8):
            a1, a2 = 1 + beta * theta[c], beta * theta[8 + c]
            b1, b2 = beta * theta[16 + c] / 2, beta * theta[24 + c] / 2
            expected = torch.maximum(a1 * x[n, c] + b1, a2 * x[n, c] + b2)
            torch.testing.assert_close(actual[n, c], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 8, 5, 4), (3, 8), (2, 8, 6)])
def test_dyrelus_gradients_are_differences_of_its_values(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    unit, x = DyReLU(8).double(), torch.randn(shape, dtype=torch.float64, requires_grad=True)
    names, values = zip(*unit.named_parameters(), strict=True)

    def answer(x: Tensor, *given: Tensor) -> Tensor:
        parameters = dict(zip(names, given, strict=True))
        result: Tensor = functional_call(unit, parameters, (x, 0.7))
        return result

    assert torch.autograd.gradcheck(answer, (x, *values))


def test_at_beta_0_its_gradient_is_relus_bit_for_bit() -> None:
    x = torch.randn(4, 8, 5, 5).round().requires_grad_()  # with zeros, where ReLU's is 0
    assert (x == 0).any()
    (actual,) = torch.autograd.grad(DyReLU(8)(x, 0.0).square().sum(), x)
    (expected,) = torch.autograd.grad(x.relu().square().sum(), x)
    assert torch.equal(actual, expected)
    (actual,) = torch.autograd.grad(DyReLU(8)(x, 0.0).sum(), x)
    (expected,) = torch.autograd.grad(x.relu().sum(), x)
    assert torch.equal(actual, expected)


def test_without_theta_or_beta_it_is_relu_bit_for_bit() -> None:
    unit, x = DyReLU(8), torch.randn(4, 8, 5, 5)
    assert torch.equal(unit(x, 0.0), x.relu())
    assert not torch.equal(unit(x, 1.0), x.relu())
    nn.init.zeros_(unit.expand.weight)
    nn.init.zeros_(unit.expand.bias)
    assert torch.equal(unit(x, 1.0), x.relu())


@pytest.mark.parametrize("channels", [4, 64, 512])
def test_a_unit_has_the_parameters_of_the_paper(channels: int) -> None:
    count = sum(p.numel() for p in DyReLU(channels).parameters())
    assert count == 1.25 * channels**2 + 4.25 * channels


@pytest.mark.parametrize(
    ("network", "calls"),
    [(models.resnet18(num_classes=3), 17), (models.resnet50(num_classes=3), 49), (resnet20(3), 19)],
    ids=["shared modules", "bottlenecks", "functions"],
)
def test_every_relu_is_replaced_and_comes_back(network: nn.Module, calls: int) -> None:
    network.eval()
    example = (torch.randn(2, 3, 64, 64),)
    plain = network(*example)
    phasing = phasing_of(network, example)
    channels = phasing.channels
    assert len(channels) == calls
    seen: list[int] = []
    for unit in phasing.units:
        unit.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    phasing.install(network)
    assert not torch.equal(network(*example), plain)
    assert seen == channels
    phasing.beta = 0.0
    assert torch.equal(network(*example), plain)
    phasing.beta = 1.0
    phasing.remove()
    assert torch.equal(network(*example), plain)


def test_a_network_without_relu_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU())
    with pytest.raises(PassError, match="calls none") as caught:
        phasing_of(network, IMAGE)
    assert "dyrelu_until = 0" in str(caught.value.remedy)


def test_a_forward_pass_that_fails_leaves_relu_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3, 3)).eval()
    phasing = Phasing([4])
    phasing.install(network)
    with pytest.raises(RuntimeError):
        network(*IMAGE)
    assert torch.equal(nn.functional.relu(torch.tensor([-1.0])), torch.tensor([0.0]))


class Reading(nn.Module):
    """Reads what a call in place has changed, and a weight of two numbers through ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.share = nn.Parameter(torch.tensor([0.7, -0.1]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.body(self.act(x))
        y.relu_()
        return (x + y) * self.share.relu().sum()


def test_a_call_in_place_changes_its_argument_where_that_is_read() -> None:
    network = Reading().eval()
    plain = network(*IMAGE)
    assert not torch.equal(plain, torch.zeros_like(plain))
    phasing = phasing_of(network, IMAGE)
    assert phasing.channels == [4, 4]
    phasing.install(network)
    assert not torch.equal(network(*IMAGE), plain)
    phasing.beta = 0.0
    assert torch.equal(network(*IMAGE), plain)
    network(*IMAGE).sum().backward()
    assert all(parameter.grad is not None for parameter in network.stem.parameters())


class Skipping(nn.Module):
    """Leaves a block out, or calls it twice."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, wide, 1)
        self.times = 1

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(self.times):
            x = torch.relu(x)
        return torch.relu(self.second(x))


@pytest.mark.parametrize(
    ("wide", "times", "message"),
    [(4, 0, "fewer ReLUs"), (4, 2, "more ReLUs"), (8, 0, "other ReLUs"), (8, 2, "other ReLUs")],
)
def test_a_network_that_calls_other_relus_while_it_trains_is_refused(
    wide: int, times: int, message: str
) -> None:
    network = Skipping(wide).eval()
    phasing_of(network, IMAGE).install(network)
    network.times = times
    with pytest.raises(PassError, match=message) as caught:
        network(*IMAGE)
    assert "dyrelu_until = 0" in str(caught.value.remedy)


def coefficients(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    small = (*shape[:2], *[1] * (len(shape) - 2))
    x = torch.randn(shape, dtype=dtype)
    if len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return x, *(torch.randn(small, dtype=dtype) for _ in range(4))


@pytest.mark.parametrize("backend", [None, "aot_eager"])
@pytest.mark.parametrize("shape", [(3, 5, 4, 6), (3, 5), (2, 3, 7)])
def test_what_a_gpu_computes_is_the_formula(
    shape: tuple[int, ...], backend: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass over x each way, compiled by any backend: y and all gradients, in float64."""

    def built(way: Any) -> Any:
        return torch.compile(way, dynamic=True, backend=backend) if backend else way

    monkeypatch.setattr(two_lines, "fused", built)
    given = [v.requires_grad_() for v in coefficients(shape, torch.float64)]
    x, a1, a2, b1, b2 = given
    plain = torch.maximum(a1 * x + b1, a2 * x + b2)
    weight = torch.randn_like(plain)
    wanted = torch.autograd.grad((plain * weight).sum(), given)
    for way in (two_lines.Recomputed, two_lines.Larger):
        y = way.apply(*given)
        torch.testing.assert_close(y, plain, rtol=1e-12, atol=1e-12)
        actual = torch.autograd.grad((y * weight).sum(), given)
        for a, b in zip(actual, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
        assert torch.autograd.gradcheck(way.apply, given)


def test_where_both_are_equal_the_second_counts() -> None:
    x = torch.zeros(1, 1, requires_grad=True)
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    for way in (two_lines.Recomputed, two_lines.Larger):
        (slope,) = torch.autograd.grad(way.apply(x, one, zero, zero, zero).sum(), x)
        assert slope.item() == 0


def test_half_precision_is_summed_in_float32() -> None:
    given = coefficients((2, 3, 40, 40), torch.bfloat16)
    grad = torch.ones_like(given[0])
    actual = two_lines.slopes_of(grad, *given)
    wanted = two_lines.slopes_of(grad.double(), *(v.double() for v in given))
    assert {v.dtype for v in actual} == {torch.bfloat16}
    larger = (actual[3].double() - wanted[3]).abs() / wanted[3].abs().clamp(min=1)
    assert larger.max() < 0.01  # counts of places
