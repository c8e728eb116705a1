"""A length that is a number in the graph: an error at another length, never a wrong answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sampling import sampled
from torch import Tensor, nn
from torch.nn import functional as F

import prunec

Rule = Callable[[Any, Tensor], Tensor]


class Sequence(nn.Module):
    """A linear layer on each step (N, T, 4), and a rule that takes the steps one by one."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.cell, self.leave = nn.Linear(4, 6), nn.GRUCell(6, 6), nn.Linear(6, 3)
        self.rule = rule
        with torch.no_grad():
            self.enter.weight[::2] = 0
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.rule(self, self.enter(x).relu()))


def cells(net: Any, y: Tensor) -> Tensor:
    state = torch.zeros_like(y[:, 0])
    for t in range(y.shape[1]):
        state = net.cell(y[:, t], state)
    return state


def backwards(net: Any, y: Tensor) -> Tensor:
    state = torch.zeros_like(y[:, 0])
    for step in reversed(y.unbind(1)):
        state = 0.5 * state + step
    return state


def all_but_one(net: Any, y: Tensor) -> Tensor:
    return sum((y[:, t + 1] * y[:, t] for t in range(y.shape[1] - 1)), y[:, 0])


def split(net: Any, y: Tensor) -> Tensor:
    total = y[:, 0]
    for step in y.split(1, 1):
        total = 0.9 * total + step.squeeze(1)
    return total


def narrow(net: Any, y: Tensor) -> Tensor:
    total = y[:, :1]
    for t in range(y.shape[1]):
        total = 0.9 * total + y.narrow(1, t, 1)
    return total


def transposed(net: Any, y: Tensor) -> Tensor:
    return cells(net, y.transpose(0, 1).flip(0).transpose(0, 1))


def through_a_list(net: Any, y: Tensor) -> Tensor:
    scale = [1.0 / y.size(1)] * 6
    return y.sum(1) * torch.tensor(scale, dtype=y.dtype)


UNROLLED: dict[str, Rule] = {
    rule.__name__: rule for rule in (cells, backwards, all_but_one, split, narrow, transposed)
}
NUMBERS: dict[str, Rule] = {
    "a mean by hand": lambda net, y: y.sum(1) / y.shape[1],
    "a root of it": lambda net, y: y.sum(1) * y.shape[1] ** -0.5,
    "its logarithm": lambda net, y: y.mean(1) * math.log(len(y[0])),
    "all but the last": lambda net, y: y[:, : y.shape[1] - 1].mean(1),
    "at most four": lambda net, y: y[:, :4].sum(1) / min(y.shape[1], 4),
    "a branch": lambda net, y: y.sum(1) if y.shape[1] > 4 else y.mean(1),
    "a window as long": lambda net, y: F.avg_pool1d(y.transpose(1, 2), y.shape[1]).squeeze(-1),
    "a number of it in another": lambda net, y: y.amax(1) + float(y.shape[1] % 3),
    "one of all": lambda net, y: y.mean(1) / (y[0].numel() / 6),
    "a ramp": lambda net, y: (y * torch.linspace(0, 1, y.shape[1], dtype=y.dtype)[:, None]).sum(1),
    "through a list": through_a_list,
    "written": lambda net, y: y.clone().mul_(1 / y.shape[1]).sum(1),
}
UNROLLED |= NUMBERS
OPEN: dict[str, Rule] = {
    "asked and not used": lambda net, y: y.mean(1) if y.shape[1] else y.sum(1),
    "flattened and back": lambda net, y: y.flatten(0, 1).unflatten(0, (len(y), -1)).amax(1),
    "its batch": lambda net, y: y.reshape(y.shape[0], -1, 6).mean(1),
    "a log of it": lambda net, y: setattr(net, "seen", (y * y.shape[1]).sum()) or y.mean(1),
    "the last step": lambda net, y: y[:, -1],
    "mean": lambda net, y: y.mean(1),
    "parts of the features": lambda net, y: torch.cat(y.chunk(2, -1)[::-1], -1),
    "of a literal": lambda net, y: torch.stack(y.unflatten(-1, (3, 2)).unbind(-2), -2).flatten(-2),
}


def steps(length: int) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(2, length, 4, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", sampled(UNROLLED, 3))
def test_another_length_is_an_error(name: str) -> None:
    model = Sequence(UNROLLED[name])
    compiled = prunec.compile(model, steps(5))
    rebuilt = compiled.plan.apply(Sequence(UNROLLED[name]))
    for compact in (compiled.module, rebuilt, prunec.compile(compiled.module, steps(5)).module):
        for length in (3, 4, 6, 10):
            with pytest.raises(prunec.PrunecError, match="fixed at length 5") as caught:
                compact(steps(length))
            assert "other length" in caught.value.remedy
    assert (compiled.module(steps(5)) - model(steps(5))).abs().max() < 1e-12


@pytest.mark.parametrize("name", OPEN)
def test_what_is_no_loop_takes_any_length(name: str) -> None:
    model = Sequence(OPEN[name])
    compact = prunec.compile(model, steps(5)).module
    for length in (1, 3, 8):
        assert (compact(steps(length)) - model(steps(length))).abs().max() < 1e-12


class Images(nn.Module):
    """Two convolutions with a rule between them."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.rule = rule
        with torch.no_grad():
            self.first.weight[::2] = 0
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.rule(self, self.first(x).relu()))


def shuffled(net: Any, y: Tensor) -> Tensor:
    n, c, h, w = y.shape
    return y.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)


def images(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, dtype=torch.float64)


@pytest.mark.parametrize("rule", [shuffled, lambda net, y: y], ids=["shuffled", "plain"])
def test_an_image_of_any_size_is_taken(rule: Rule) -> None:
    model = Images(rule)
    compact = prunec.compile(model, images(6, 6)).module
    for given in (images(4, 9), images(12, 12)):
        assert (compact(given) - model(given)).abs().max() < 1e-12


def test_sides_of_an_image_are_told_apart() -> None:
    compact = prunec.compile(Images(lambda net, y: y / y.shape[2]), images(6, 6)).module
    assert compact(images(6, 8)).shape == (2, 4, 6, 8)
    with pytest.raises(prunec.PrunecError, match="its axis 2 is fixed at length 6"):
        compact(images(8, 6))


def test_an_input_may_be_given_by_its_name() -> None:
    model, steps = Sequence(cells), torch.ones(2, 5, 4, dtype=torch.float64)
    compact = prunec.compile(model, steps).module
    assert torch.equal(compact(x=steps), compact(steps))
    with pytest.raises(prunec.PrunecError, match="fixed at length 5"):
        compact(x=steps[:, :4])


def test_a_compact_network_keeps_what_was_found() -> None:
    net = Sequence(cells)
    once = prunec.compile(net, steps(5)).module
    twice = prunec.compile(once, steps(5)).module
    for compact in (once, twice):
        with pytest.raises(prunec.PrunecError, match="axis 1 is fixed at length 5"):
            compact(steps(6))


def test_a_layer_put_into_a_compact_network_is_looked_at() -> None:
    class Tail(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) / x.shape[2]

    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout()).double().eval()
    compact, inside = (prunec.compile(plain, images(6, 6)).module for _ in range(2))
    joined = nn.Sequential(compact, Tail()).eval()
    setattr(inside, "1", Tail())
    for module in (joined, inside):
        again = prunec.compile(module, images(6, 6)).module
        with pytest.raises(prunec.PrunecError, match="fixed at length 6"):
            again(images(8, 6))


def test_lengths_that_do_not_run_are_tried_without_a_word(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def from_zero(net: Any, y: Tensor) -> Tensor:
        state = y.new_zeros(len(y), 6)
        for step in y.unbind(1):
            state = net.cell(step, state)
        return state

    example = torch.randn(2, 3, 4, dtype=torch.float64)
    assert prunec.compile(Sequence(from_zero), example).report.after.macs > 0
    assert capfd.readouterr().err == ""
