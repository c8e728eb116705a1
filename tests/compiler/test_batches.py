"""A compact network computes what the network computes at every batch size, or there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sampling import sampled
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import prunec
from prunec.errors import UntraceableModel

Rule = Callable[[Any, Tensor], Any]


class Ruled(nn.Module):
    """Two convolutions, half of the channels between them zero, and a rule behind."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.classes, self.rule = nn.Linear(6, 4), rule
        self.kept: dict[Any, Tensor] = {}
        with torch.no_grad():
            self.first.weight[::2] = 0
        self.double().eval()

    def forward(self, x: Tensor) -> Any:
        return self.rule(self, self.last(self.first(x).relu()))


def ramp(like: Tensor) -> Tensor:
    return torch.linspace(0, 1, like.numel(), dtype=like.dtype).view(like.shape)


def kept_by_shape(net: Any, y: Tensor) -> Tensor:
    if tuple(y.shape) not in net.kept:
        net.kept[tuple(y.shape)] = ramp(y)
    return y + net.kept[tuple(y.shape)]


def kept_by_width(net: Any, y: Tensor) -> Tensor:
    return y + net.kept.setdefault(y.shape[-1], ramp(y[0, 0]))


def remembers_the_shape(net: Any, y: Tensor) -> Tensor:
    if getattr(net, "shape", None) != y.shape:
        net.grid, net.shape = ramp(y[:1]), y.shape
    return (y + net.grid).view(*y.shape[:2], -1)


def registers(net: Any, y: Tensor) -> Tensor:
    if not hasattr(net, "grid"):
        net.register_buffer("grid", ramp(y[0, 0]), persistent=False)
    return y + net.grid


def counts_its_calls(net: Any, y: Tensor) -> Tensor:
    net.calls = getattr(net, "calls", 0) + 1
    return y * net.calls


def last_of_another(net: Any, y: Tensor) -> Tensor:
    before, net.before = getattr(net, "before", y[:1].mean()), y[:1].mean()
    return y + before


EXACT: dict[str, Rule] = {
    "its size as a factor": lambda net, y: y * y.shape[0],
    "its length as a divisor": lambda net, y: y / len(y),
    "root of its size": lambda net, y: y * y.shape[0] ** 0.5,
    "at least three": lambda net, y: y * max(y.shape[0], 3),
    "mean of the batch": lambda net, y: y - y.mean(0, keepdim=True),
    "flat": lambda net, y: y.mean((2, 3)).flatten(),
    "stacked before": lambda net, y: torch.stack([y, -y]),
    "numbered samples": lambda net, y: y + torch.arange(len(y))[:, None, None, None],
    "rolled": lambda net, y: y.roll(1, 0),
    "the first sample": lambda net, y: y - y[0],
    "folded": lambda net, y: y.flatten(0, 1).unflatten(0, (y.shape[0], 6)),
    "squeezed by number": lambda net, y: net.classes(y.mean((2, 3), keepdim=True).squeeze((2, 3))),
    "kept by shape": kept_by_shape,
    "kept by width": kept_by_width,
    "remembers the shape": remembers_the_shape,
    "registers": registers,
}
REFUSED: dict[str, Rule] = {
    "stack of a loop": lambda net, y: torch.stack([net.last(v[None])[0] for v in y]),
    "unbind": lambda net, y: torch.stack([v * 2 for v in y.unbind(0)]),
    "enumerate": lambda net, y: torch.stack([v * i for i, v in enumerate(y)]),
    "slices": lambda net, y: torch.cat([y[i : i + 1] * 2 for i in range(len(y))]),
    "split": lambda net, y: torch.cat([v * 2 for v in y.split(1)]),
    "tuple": lambda net, y: tuple(y),
    "squeezed": lambda net, y: net.classes(y.mean((2, 3), keepdim=True).squeeze()),
    "a branch at two": lambda net, y: y * 2 if y.shape[0] > 1 else y,
    "a branch at five": lambda net, y: y * 2 if y.shape[0] > 4 else y,
    "counts its calls": counts_its_calls,
    "reads what it saw before": last_of_another,
}
BATCHES = 1, 2, 3, 5


def images(batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 3, 4, 4, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("ran", [False, True], ids=["fresh", "ran"])
@pytest.mark.parametrize("name", sampled(EXACT, 4))
def test_every_batch_is_exact(name: str, ran: bool) -> None:
    model = Ruled(EXACT[name])
    if ran:
        model(images(2))
    compact = prunec.compile(model, images(2)).module
    for batch in BATCHES:
        expected, actual = model(images(batch)), compact(images(batch))
        for a, b in zip(tree_leaves(expected), tree_leaves(actual), strict=True):
            assert a.shape == b.shape
            assert (a - b).abs().max() <= 1e-10 * a.abs().max()


@pytest.mark.parametrize("name", sampled(REFUSED, 3))
def test_what_is_a_number_of_samples_is_refused(name: str) -> None:
    with pytest.raises(UntraceableModel) as caught:
        prunec.compile(Ruled(REFUSED[name]), images(2))
    assert "batch" in str(caught.value)
    assert caught.value.remedy


def test_the_place_is_named() -> None:
    with pytest.raises(
        UntraceableModel, match=r"a batch of 1 .* part before classes .* after last"
    ):
        prunec.compile(Ruled(REFUSED["squeezed"]), images(2))


@pytest.mark.parametrize("name", ["kept by width", "registers"])
def test_the_plan_of_a_network_that_ran_fits_a_fresh_one(name: str) -> None:
    model = Ruled(EXACT[name])
    model(images(2))
    compiled = prunec.compile(model, images(2))
    rebuilt = compiled.plan.apply(Ruled(EXACT[name]))
    rebuilt.load_state_dict(compiled.module.state_dict())
    assert torch.equal(rebuilt(images(3)), compiled.module(images(3)))
