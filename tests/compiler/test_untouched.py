"""Arguments stay unchanged: networks, examples, random states, caches, hooks."""

from __future__ import annotations

import contextlib
import functools
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sampling import sampled
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from untouched import everything, same
from zoo import ZOO

import prunec
from prunec.errors import NeedsNotMet

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


class Nests(Body):
    """Keeps shapes, tensors and counters in containers inside containers, and in its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Any] = {"shapes": [], "last": {"tensors": (None,)}}

    def between(self, x: Tensor) -> Tensor:
        self.kept["shapes"].append(tuple(x.shape))
        self.kept["last"]["tensors"] = (x, x.mean())
        self.kept["calls"] = self.kept.get("calls", 0) + 1
        self.last.seen = x.detach()
        return x


class OverwritesViews(Body):
    """Writes into views of its input, and into what it made of it."""

    def forward(self, x: Tensor) -> Tensor:
        x[:, :1].mul_(2)
        x.transpose(2, 3)[:, :, 0] = 0.5
        x.view(-1)[:1].zero_()
        return super().forward(x)


class Watches(Body):
    """Hooks of every kind count and record; one of them changes what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Any] = []
        self.register_forward_pre_hook(lambda module, given: self.log.append(given[0].shape))
        self.first.register_forward_hook(lambda module, given, made: self.log.append(made))
        self.last.register_forward_hook(lambda module, given, made: made * 2)
        self.last.register_full_backward_hook(lambda module, actual, given: None)


class Switches(Body):
    """Turns its parts to evaluation and its parameters' gradients off."""

    def between(self, x: Tensor) -> Tensor:
        self.first.eval()
        self.last.weight.requires_grad_(False)
        self.thresholds = [x.shape[-1], float(x.shape[-2])]
        return x


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
        Nests, OverwritesViews, Watches, Switches,
    )
} | {"masked-by-torch": masked_by_torch, "half-in-training": half_in_training}  # fmt: skip


def public(
    model: nn.Module, example: Sequence[Tensor], folder: Path
) -> Iterator[Callable[[], Any]]:
    """Every public function that takes a network."""
    file = folder / "model.onnx"
    yield lambda: prunec.groups(model, example)
    yield lambda: prunec.count(model, example)
    yield lambda: prunec.compile(model, example).plan.apply(model)
    yield lambda: prunec.export_onnx(model, example, file)
    yield lambda: prunec.verify(model, file, example_inputs=example)


@pytest.mark.parametrize(
    ("name", "ran"), sampled([(name, ran) for name in STATEFUL for ran in (False, True)], 12, 6)
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


@pytest.mark.parametrize("name", sampled(ZOO, 120, 40))
def test_a_network_of_the_zoo_is_as_it_was(name: str, tmp_path: Path) -> None:
    model, example = ZOO[name]()
    before = everything(model, example)
    for call in public(model, example, tmp_path):
        with contextlib.suppress(prunec.PrunecError):
            call()
        assert same(before, everything(model, example))


class Named(Body):
    """Writes into inputs that a caller may give by name, one of them with a default."""

    def forward(self, x: Tensor, scale: Tensor | None = None, *, shift: float = 0.5) -> Tensor:
        x.mul_(2.0)
        if scale is not None:
            scale.add_(1.0)
            x = x * scale
        return super().forward(x + shift)


@pytest.mark.slow
def test_inputs_that_a_caller_gives_by_name_are_as_they_were(tmp_path: Path) -> None:
    model, example = Named(), (EXAMPLE.clone(), torch.rand(2, 3, 1, 1))
    before = everything(model, example)
    for call in public(model, example, tmp_path):
        call()
        assert same(before, everything(model, example))
    compact = prunec.compile(model, example).module
    expected = Named()(x=example[0].clone(), scale=example[1].clone())
    actual = compact(x=example[0].clone(), scale=example[1].clone())
    assert torch.allclose(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["dictionary", "nested", "none"])
def test_an_example_that_is_refused_is_as_it_was(form: str, tmp_path: Path) -> None:
    x = EXAMPLE.clone()
    example: Any = {"dictionary": {"x": x}, "nested": (x, {"scale": [x]}), "none": (x, None)}[form]
    model = Named()
    before = everything(model, (x,))
    for call in public(model, example, tmp_path):
        with pytest.raises(prunec.PrunecError, match="example_inputs"):
            call()
        assert same(before, everything(model, (x,)))


@pytest.mark.slow
def test_modes_of_the_caller_are_as_they_were(tmp_path: Path) -> None:
    """In training, without gradients, of double precision by default, with a list as example."""
    model = Overwrites().double().train()
    model.last.requires_grad_(False)
    example = [EXAMPLE.double().requires_grad_()]
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            before = everything(model, tuple(example))
            for call in public(model, example, tmp_path):
                with contextlib.suppress(NeedsNotMet):  # no runtime has convolutions of float64
                    call()
                assert same(before, everything(model, tuple(example)))
    finally:
        torch.set_default_dtype(torch.float32)
    assert model.training
    assert not model.last.weight.requires_grad
