"""A step of a method is a handful of operations for the whole network, however many its kernels."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prunec.graph.capture import capture
from prunec.graph.channels.analyse import analyse
from prunec.passes._gdp import Gdp
from prunec.passes.train_dnw import TrainDnw
from prunec.passes.train_dpf import TrainDpf
from prunec.passes.train_gdp import TrainGdp
from prunec.passes.train_rigl import TrainRigl
from prunec.passes.train_snfs import TrainSnfs
from prunec.passes.train_st3 import TrainSt3
from prunec.passes.train_str import TrainStr
from prunec.passes.train_two_of_four import TrainTwoOfFour
from prunec.sparsity import proximal
from prunec.sparsity.flat import Flat
from prunec.sparsity.gated_macs import gated_channels
from prunec.training.context import Context
from prunec.training.method import Method, Moment

GDP = TrainGdp(dense_epochs=1, select_epochs=1, macs_ratio=0.5, round_to=2)
METHODS = {
    "str": (TrainStr(s_init=-5.0), 0),
    "str by filter": (TrainStr(s_init=-5.0, granularity="filter"), 0),
    "str, steered": (TrainStr(s_init=-5.0, sparsity=0.9), 0),
    "mask": (TrainRigl(sparsity=0.9, update_steps=1000), 0),
    "st3": (TrainSt3(sparsity=0.9, end=0.1), 1),
    "st3, scaled": (TrainSt3(sparsity=0.9, end=0.1, criterion="scaled"), 1),
    "dpf": (TrainDpf(sparsity=0.9, update_steps=1000), 0),
    "dnw": (TrainDnw(sparsity=0.9), 0),
    "snfs": (TrainSnfs(sparsity=0.9), 0),
    "two of four": (TrainTwoOfFour(), 0),
    "gdp, selecting": (GDP, 1),
    "gdp, finishing": (GDP, 2),
}
FREE = ("_unsafe_view", "lift_fresh", "_local_scalar_dense", "scalar_tensor")  # no work of a GPU


class _Counting(TorchDispatchMode):
    """Counts operations that a GPU would launch."""

    def __init__(self) -> None:
        super().__init__()
        self.launched: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__
        free = func.is_view or name.startswith(("detach", "alias", "empty", *FREE))
        self.launched += [] if free else [name] * _launches(name, args)
        return func(*args, **(kwargs or {}))


def _launches(name: str, args: Any) -> int:
    """One, but for lists of tensors whose shapes differ: CUDA then takes one after the other."""
    lists = [x for x in args if isinstance(x, (list, tuple)) and x and isinstance(x[0], Tensor)]
    if not name.startswith("_foreach") or len(lists) < 2:
        return 1
    alike = all(len({x.shape for x in some}) == 1 for some in zip(*lists, strict=True))
    return 1 if alike else len(lists[0])


def network(depth: int) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [nn.Conv2d(8 if number else 1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3))


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on all kernels at once, as on a GPU."""
    own = Flat.__init__

    def init(self: Flat, given: Any, *, together: bool | None = None) -> None:
        own(self, given, together=True)

    monkeypatch.setattr(Flat, "__init__", init)
    monkeypatch.setattr(proximal, "ROUNDS", proximal.ROUNDS_AT_ONCE)
    monkeypatch.setattr(proximal, "PARTS", proximal.PARTS_AT_ONCE)


def method_of(options: Any, module: nn.Module) -> Method:
    recipe = SimpleNamespace(seed=0, train=SimpleNamespace(epochs=4))
    if options is GDP:
        example = (torch.randn(2, 1, 8, 8),)
        frozen = copy.deepcopy(module).eval()
        return Gdp(options, module, gated_channels(analyse(capture(frozen, example))))
    context = cast(Context, SimpleNamespace(recipe=recipe, device=torch.device("cpu")))
    made: Method = options.method(options.kernels(module), context)
    return made


def launched(name: str, depth: int) -> list[str]:
    """Return what the hooks of a step launch, after others that made what they keep."""
    options, epoch = METHODS[name]
    module = network(depth).train()
    method = method_of(options, module)
    parameters = [*module.parameters(), *method.parameters().values()]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    method.begin(optimizer, {})
    x, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    for step in range(4):
        moment = Moment(epoch, step, 1000, 4, 0.01)
        optimizer.zero_grad()
        counting = _Counting()
        with counting:
            method.before_forward(moment)
        torch.nn.functional.cross_entropy(module(x), labels).backward()  # type: ignore[no-untyped-call]
        with counting:
            method.gradient(moment)
        optimizer.step()
        with counting:
            method.after_step(moment)
    assert all(p.isfinite().all() for p in tree_leaves(list(module.parameters())))
    return counting.launched


MOST = {
    "str": 26, "str by filter": 28, "str, steered": 47, "mask": 2, "st3": 172, "st3, scaled": 175,
    "dpf": 1, "dnw": 131, "snfs": 3, "two of four": 14, "gdp, selecting": 234, "gdp, finishing": 32,
}  # fmt: skip
"""Operations in a step, as docs/costs.md has them."""


@pytest.mark.parametrize("name", METHODS)
def test_the_operations_of_a_step_do_not_grow_with_the_network(name: str, together: None) -> None:
    few, many = launched(name, 3), launched(name, 9)
    assert len(few) == len(many), (few, many)
    assert len(few) <= MOST[name], few
