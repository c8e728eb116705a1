"""Refusals of capture name the reason in one sentence; every signature of forward is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import worst
from torch import Tensor, nn

import prunec
from prunec.errors import UntraceableModel
from prunec.graph.rewriting.compile import compile_module
from prunec.models.inputs import checked_example


class Two(nn.Module):
    """A hidden layer that adds a second input behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 8).double(), nn.Linear(8, 4).double()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.last(self.first(x).relu()) + y


class Listed(Two):
    def forward(self, *xs: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(xs[0], xs[1])


class Named(Two):
    def forward(self, x: Tensor, *rest: Tensor, scale: float = 2.0) -> dict[str, Tensor]:  # type: ignore[override]
        return {"sum": super().forward(x, rest[0]) * scale}


class Branching(Two):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        made = super().forward(x, y)
        return made if made.sum() > 0 else -made


class Written(nn.Module):
    """Channels written in place behind a norm."""

    def __init__(self, write: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6)).double().eval()
        self.last, self.write = nn.Conv2d(6, 2, 1).double(), write

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        self.write(y)
        return self.last(y)


def every_second(y: Tensor) -> None:
    y[:, ::2] = y[:, ::2].sigmoid()


def one_half_by_the_other(y: Tensor) -> None:
    first, second = y.chunk(2, 1)
    first.mul_(second)


def the_first_sample(y: Tensor) -> None:
    y[0] = y[0] * 2.0


def rows_added(y: Tensor) -> None:
    y.index_add_(1, torch.tensor([0, 4]), y[:, 2:4].clone(), alpha=0.5)


def rows_scattered(y: Tensor) -> None:
    places = torch.tensor([1, 5]).reshape(1, 2, 1, 1).expand(y.shape[0], 2, *y.shape[2:])
    y.scatter_add_(1, places, y[:, 2:4].clone())


WRITES = [every_second, one_half_by_the_other, the_first_sample, rows_added, rows_scattered]


def inputs(batch: int = 2) -> tuple[Tensor, Tensor]:
    return torch.randn(batch, 3).double(), torch.randn(batch, 4).double()


@pytest.mark.parametrize("kind", [Two, Listed, Named])
def test_the_signature_is_kept_and_the_batch_is_free(kind: type[Two]) -> None:
    net = kind()
    with torch.no_grad():
        net.first.weight[3:] = 0
    compiled = compile_module(net, inputs())
    assert compiled.module.first.out_features == 3
    for batch in (1, 5):
        assert worst(net, compiled.module, inputs(batch)) < 1e-12


@pytest.mark.parametrize("write", WRITES)
def test_what_is_written_behind_a_norm_is_captured(write: Callable[[Tensor], object]) -> None:
    net, example = Written(write).eval(), (torch.randn(2, 3, 4, 4).double(),)
    compact = compile_module(net, example).module
    for batch in (1, 3):
        assert worst(net, compact, (torch.randn(batch, 3, 4, 4).double(),)) < 1e-12


@pytest.mark.parametrize("write", [rows_added, rows_scattered])
def test_channels_added_at_fixed_places_go(write: Callable[[Tensor], object]) -> None:
    """Of six the first is read alone, or the second and what is added to it."""
    net, example = Written(write).eval(), (torch.randn(2, 3, 4, 4).double(),)
    with torch.no_grad():
        net.last.weight[:, 2:] = 0.0
    compact = compile_module(net, example).module
    assert worst(net, compact, example) < 1e-12
    assert compact.get_parameter("stem.0.weight").shape[0] == 3


@pytest.mark.parametrize(
    ("net", "example", "words"),
    [
        (Two(), (torch.zeros(2, 7).double(), inputs()[1]), r"not run on inputs of shape \(2, 7\)"),
        (Two(), inputs()[:1], "missing 1 required positional argument: 'y'"),
        (Two(), (*inputs(), inputs()[0]), "takes 3 positional arguments but 4 were given"),
        (Branching(), inputs(), "could not capture Branching .*data-dependent"),
    ],
)
def test_a_failed_capture_says_why_once(
    net: nn.Module,
    example: tuple[Tensor, ...],
    words: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UntraceableModel, match=words):
        compile_module(net, example)
    assert capfd.readouterr() == ("", "")


class Beside(nn.Module):
    """A factor for every channel and a prior beside a batch of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 1).double(), nn.Conv2d(6, 2, 1).double()

    def forward(self, x: Tensor, factors: Tensor, prior: Tensor) -> Tensor:
        return self.last(self.first(x).relu() * factors[None, :, None, None] + prior)


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_an_input_of_another_length_is_no_batch(samples: int) -> None:
    net = Beside().eval()
    with torch.no_grad():
        net.last.weight[:, 2:] = 0.0
    prior = torch.randn(1 if samples > 1 else 6, 4, 4).double()
    rest = torch.randn(6).double(), prior
    example = checked_example(net, (torch.randn(samples, 3, 4, 4).double(), *rest))
    compact = compile_module(net, example).module
    for batch in (1, 3):
        assert worst(net, compact, (torch.randn(batch, 3, 4, 4).double(), *rest)) < 1e-12


class Averaging(nn.Module):
    """A mean of what passes is kept in a buffer, which no output follows from."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 1).double(), nn.Conv2d(6, 2, 1).double()
        self.register_buffer("mean", torch.zeros(6, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).relu()
        self.mean.mul_(0.9).add_(y.detach().mean((0, 2, 3)), alpha=0.1)
        return self.last(y)


def test_what_is_only_kept_in_a_buffer_keeps_no_channel() -> None:
    net, example = Averaging().eval(), (torch.randn(2, 3, 4, 4).double(),)
    with torch.no_grad():
        net.last.weight[:, 2:] = 0.0
    compact = compile_module(net, example).module
    assert worst(net, compact, example) < 1e-12
    assert compact.first.out_channels == 2


class Taken(Written):
    """Channels in another order, by stored numbers that stand along their axis."""

    def __init__(self) -> None:
        super().__init__(every_second)
        self.register_buffer("order", torch.tensor([5, 1, 2, 3, 4, 0]))

    def forward(self, x: Tensor) -> Tensor:
        order = self.order[None, :, None, None]
        return self.last(torch.take_along_dim(self.stem(x), order, 1))


def test_channels_taken_by_number_are_cut() -> None:
    net, example = Taken().eval(), (torch.randn(2, 3, 4, 4).double(),)
    with torch.no_grad():
        net.last.weight[:, 2:] = 0.0
    compact = compile_module(net, example).module
    for batch in (1, 3):
        assert worst(net, compact, (torch.randn(batch, 3, 4, 4).double(),)) < 1e-12
    assert compact.get_parameter("stem.0.weight").shape[0] == 2


class Keeping(nn.Module):
    """Keeps what a function makes of its first batch, and scales all batches by it."""

    def __init__(self, rule: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)
        self.kept: dict[str, Any] = {}
        self.rule = rule

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if "scale" not in self.kept:
            self.kept["scale"] = self.rule(x)
        return self.last(x * self.kept["scale"])


KEPT: dict[str, Callable[[Tensor], Any]] = {
    "size": len,
    "share": lambda x: 1 / x.shape[0],
    "numbers": lambda x: torch.arange(len(x), dtype=x.dtype).view(-1, 1, 1, 1) + 1,
    "mean": lambda x: x.detach().mean((0, 2, 3), keepdim=True),
    "tensor-of-size": lambda x: torch.tensor(float(len(x)), dtype=x.dtype),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_of_the_first_batch_is_refused(name: str) -> None:
    model = Keeping(KEPT[name]).double().eval()
    with pytest.raises(UntraceableModel):
        prunec.compile(model, torch.randn(2, 3, 5, 5, dtype=torch.float64))
    assert not model.kept


def test_what_is_kept_of_a_width_is_taken() -> None:
    model = Keeping(lambda x: torch.linspace(0, 1, x.shape[-1], dtype=x.dtype)).double().eval()
    example = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    compact = prunec.compile(model, example).module
    assert torch.allclose(compact(example), model(example), rtol=0, atol=1e-12)
