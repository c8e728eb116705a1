"""Nothing that is handed in is ever changed: networks, examples, random states, caches, hooks."""

from __future__ import annotations

import contextlib
import functools
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sampling import sampled
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from zoo import ZOO

import prunec

EXAMPLE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
BESIDE: dict[int, Tensor] = {}


class Body(nn.Module):
    """A convolution that half is left of, and one that reads it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 4, 1)
        with torch.no_grad():
            self.first.weight[:3] = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)).relu())

    def between(self, x: Tensor) -> Tensor:
        return x


class Remembers(Body):
    """Assigns what it computed, with the graph of its gradients."""

    seen: Tensor | None = None

    def between(self, x: Tensor) -> Tensor:
        self.seen, self.shape = x, x.shape
        return x


class Fills(Body):
    """Keeps a grid in a dictionary, in a list, in its class and beside it."""

    shared: ClassVar[dict[int, Tensor]] = {}
    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.grids: dict[int, Tensor] = {}
        self.log: list[Any] = []

    def between(self, x: Tensor) -> Tensor:
        width = x.shape[-1]
        type(self).calls += 1
        self.log.append(x)
        for kept in (self.grids, self.shared, BESIDE):
            if width not in kept:
                kept[width] = torch.linspace(0, 1, width)
            x = x + kept[width]
        return x


@functools.lru_cache
def remembered(width: int) -> Tensor:
    return torch.linspace(0, 1, width)


class Asks(Body):
    """Asks a function that remembers its results."""

    def between(self, x: Tensor) -> Tensor:
        return x + remembered(x.shape[-1])


class Registers(Body):
    """Registers a buffer in its first forward."""

    def between(self, x: Tensor) -> Tensor:
        if not hasattr(self, "grid"):
            self.register_buffer("grid", torch.linspace(0, 1, x.shape[-1]), persistent=False)
        return x + self.grid


class Counts(Body):
    """Writes into its buffers, counts its calls, draws numbers that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(6))
        self.calls = 0

    def between(self, x: Tensor) -> Tensor:
        self.steps += 1
        self.calls += 1
        self.mean.mul_(0.9).add_(x.detach().mean((0, 2, 3)), alpha=0.1)
        torch.rand(3), random.random(), np.random.rand(2)
        return x


class Overwrites(Body):
    """Writes into its input."""

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5).div_(0.25)
        return super().forward(x)


class Clamps(Body):
    """Writes into its parameters."""

    def between(self, x: Tensor) -> Tensor:
        self.last.weight.data.clamp_(-0.1, 0.1)
        return x


class Hooked(Body):
    """Reads what a hook, which closes over the network, put into it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Tensor | None = None
        self.calls: list[int] = []

        def keep(module: nn.Module, given: Any, made: Tensor) -> None:
            self.found = made
            self.calls.append(1)

        self.first.register_forward_hook(keep)

    def between(self, x: Tensor) -> Tensor:
        assert self.found is not None
        return x + self.found


class Locked(Body):
    """Holds what cannot be copied, and a function of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.scale = lambda x: x * len(self.last.weight)

    def between(self, x: Tensor) -> Tensor:
        with self.lock:
            return self.scale(x)


def masked_by_torch() -> nn.Module:
    model = Body()
    prune.ln_structured(model.first, "weight", 0.5, n=2, dim=0)
    parametrizations.weight_norm(model.last)
    return model


def half_in_training() -> nn.Module:
    model = Body().train()
    model.last.eval()
    model.first.weight.requires_grad_(False)
    model(EXAMPLE).sum().backward()
    return model


STATEFUL: dict[str, Callable[[], nn.Module]] = {
    kind.__name__.lower(): kind
    for kind in (
        Remembers, Fills, Asks, Registers, Counts, Overwrites, Clamps, Hooked, Locked,
    )
} | {"masked-by-torch": masked_by_torch, "half-in-training": half_in_training}  # fmt: skip


def look(value: Any, seen: set[int]) -> Any:
    """A value as something that can be compared with what it is later."""
    if isinstance(value, Tensor):
        grad = None if value.grad_fn is not None or value.grad is None else value.grad.clone()
        data = value.detach()
        return (id(value), type(value), data.clone(), value.requires_grad, grad, value.is_meta)
    if isinstance(value, nn.Module):
        known = id(value) in seen
        seen.add(id(value))
        return (id(value), type(value), None if known else look(vars(value), seen))
    if isinstance(value, dict):
        return [(key, look(item, seen)) for key, item in value.items()]
    if isinstance(value, (list, tuple, set)):
        return [look(item, seen) for item in value]
    return value if isinstance(value, (int, float, str, type(None))) else id(value)


def everything(model: nn.Module, example: tuple[Tensor, ...]) -> Any:
    beside = [dict(vars(type(model))), example]
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    flags = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.backends.cudnn.enabled)
    return [look(item, set()) for item in (model, *beside)], states, flags


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def public(
    model: nn.Module, example: tuple[Tensor, ...], folder: Path
) -> Iterator[Callable[[], Any]]:
    """Every public function that takes a network."""
    file = folder / "model.onnx"
    yield lambda: prunec.groups(model, example)
    yield lambda: prunec.count(model, example)
    yield lambda: prunec.compile(model, example).plan.apply(model)
    yield lambda: prunec.export_onnx(model, example, file)
    yield lambda: prunec.verify(model, file, example_inputs=example)


@pytest.mark.parametrize(
    ("name", "ran"), sampled([(name, ran) for name in STATEFUL for ran in (False, True)], 6, 3)
)
def test_a_network_with_state_is_as_it_was(name: str, ran: bool, tmp_path: Path) -> None:
    model, example = STATEFUL[name](), (EXAMPLE.clone(),)
    if ran:
        model(EXAMPLE.clone())
    before = everything(model, example)
    for call in public(model, example, tmp_path):
        try:
            call()
        except prunec.PrunecError:
            assert name in ("counts", "clamps")
        assert same(before, everything(model, example))
    assert model(EXAMPLE.clone()).device == EXAMPLE.device
    assert not any(type(x) is not Tensor or x.is_meta for x in (remembered(6), *BESIDE.values()))


@pytest.mark.parametrize("name", sampled(ZOO, 48, 12))
def test_a_network_of_the_zoo_is_as_it_was(name: str, tmp_path: Path) -> None:
    model, example = ZOO[name]()
    before = everything(model, example)
    for call in public(model, example, tmp_path):
        with contextlib.suppress(prunec.PrunecError):
            call()
        assert same(before, everything(model, example))
