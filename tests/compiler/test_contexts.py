"""Contexts in a forward pass: seen through where they change nothing, else refused by name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from sampling import sampled, slow_but
from torch import Tensor, nn
from torch.nn import functional as F

import prunec
from prunec.errors import UntraceableModel
from prunec.graph.capture.contexts import see_through

Rule = Callable[[Any, Tensor], Tensor]


class Within(nn.Module):
    """A convolution, half of whose filters are zero, and a rule with another."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.rule = rule
        with torch.no_grad():
            self.first.weight[::2] = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.rule(self, self.first(x).relu())


def inside(*contexts: Callable[[], AbstractContextManager[Any]]) -> Rule:
    def rule(net: Any, y: Tensor) -> Tensor:
        if not contexts:
            return net.last(y)
        with contexts[0]():
            made = inside(*contexts[1:])(net, y)
        return made.sigmoid()

    return rule


def off() -> AbstractContextManager[Any]:
    return torch.autocast("cpu", enabled=False)


SEEN: dict[str, Rule] = {
    "autocast off": inside(off),
    "autocast of another device": inside(lambda: torch.autocast("cuda", enabled=False)),
    "no gradients": inside(torch.no_grad),
    "gradients": inside(torch.enable_grad),
    "inference": inside(torch.inference_mode),
    "one in the other": inside(torch.enable_grad, off, torch.no_grad),
}
REFUSED: dict[str, tuple[Rule, str]] = {
    "autocast on": (inside(lambda: torch.autocast("cpu", dtype=torch.bfloat16)), "autocast"),
    "cond": (
        lambda net, y: torch.cond(y.sum() > 0, lambda v: v * 2, lambda v: v * 0.5, (y,)),
        r"torch\.cond",
    ),
    "while loop": (
        lambda net, y: torch.while_loop(
            lambda i, v: i < 3, lambda i, v: (i + 1, v * 0.5), (torch.tensor(0), y)
        )[1],
        r"torch\.while_loop",
    ),
    "vmap": (
        lambda net, y: torch.vmap(lambda v: F.conv2d(v[None], net.last.weight)[0])(y),
        r"torch\.vmap",
    ),
}
DERIVED: dict[str, tuple[Rule, str]] = {
    "forward derivative": (
        lambda net, y: torch.func.jvp(torch.sin, (y,), (torch.ones_like(y),))[1],
        r"takes derivatives in its forward \(torch\.func\.jvp",
    ),
    "second derivative": (
        lambda net, y: torch.func.hessian(lambda v: v.square().sum())(y[0, 0, 0]).sum() * y,
        r"takes derivatives in its forward \(torch\.func\.\w+\).*test_contexts\.py",
    ),
    "gradient": (
        lambda net, y: torch.autograd.grad(y.square().sum(), y)[0],
        r"takes derivatives in its forward \(torch\.autograd\.grad\).*test_contexts\.py",
    ),
}
EXAMPLE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", sampled(SEEN, 3))
def test_it_is_seen_through(name: str) -> None:
    model = Within(SEEN[name])
    compiled = prunec.compile(model, EXAMPLE)
    assert compiled.report.after.macs < compiled.report.before.macs
    torch.testing.assert_close(compiled.module(EXAMPLE[:1]), model(EXAMPLE[:1]))


@pytest.mark.parametrize("name", ["autocast off", "gradients", "one in the other"])
def test_a_graph_inside_takes_the_place_of_its_call(name: str) -> None:
    model = Within(SEEN[name])
    exported = torch.export.export(model, (EXAMPLE,))
    see_through(exported.graph_module)
    targets = [node.target for node in exported.graph.nodes]
    assert not any(isinstance(target, torch._ops.HigherOrderOperator) for target in targets)
    torch.testing.assert_close(exported.module()(EXAMPLE), model(EXAMPLE))


@pytest.mark.parametrize("name", slow_but(REFUSED, "autocast on", "vmap"))
def test_it_is_refused_by_name(name: str) -> None:
    rule, said = REFUSED[name]
    for public in (prunec.compile, prunec.count):
        with pytest.raises(UntraceableModel, match=said) as caught:
            public(Within(rule), EXAMPLE)
        assert caught.value.remedy


@pytest.mark.parametrize("name", slow_but(DERIVED, "gradient"))
def test_a_derivative_in_forward_is_no_fault_of_the_inputs(name: str) -> None:
    rule, said = DERIVED[name]
    with pytest.raises(UntraceableModel, match=said) as caught:
        prunec.compile(Within(rule), EXAMPLE)
    assert "operators" in caught.value.remedy
