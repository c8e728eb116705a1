"""State that a forward pass writes: attributes, buffers, caches, what hooks keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Rule = Callable[[Any, Tensor], Tensor]


class Remembering(nn.Module):
    """A layer with attributes that its rule writes into."""

    def __init__(self, channels: int, rule: Rule) -> None:
        super().__init__()
        self.scale = nn.Conv2d(channels, channels, 1, groups=channels)
        self.kept: dict[Any, Tensor] = {}
        self.log: list[Any] = []
        self.calls = 0
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(channels))
        self.scale.register_forward_hook(self._keep)
        self.rule = rule

    def forward(self, x: Tensor) -> Tensor:
        return self.rule(self, self.scale(x))

    def _keep(self, module: nn.Module, given: Any, made: Tensor) -> None:
        self.hooked = made


def ramp(like: Tensor) -> Tensor:
    return torch.linspace(0, 1, like.numel(), dtype=like.dtype).view(like.shape)


def _by_shape(net: Any, x: Tensor) -> Tensor:
    if getattr(net, "shape", None) != x.shape:
        net.grid, net.shape = ramp(x[:1]), x.shape
    return x + net.grid


def _in_a_dictionary(net: Any, x: Tensor) -> Tensor:
    return x * net.kept.setdefault(x.shape[-1], ramp(x[0, 0]))


def _by_batch(net: Any, x: Tensor) -> Tensor:
    if tuple(x.shape) not in net.kept:
        net.kept[tuple(x.shape)] = torch.zeros_like(x) + 0.25
    return x + net.kept[tuple(x.shape)]


def _registered(net: Any, x: Tensor) -> Tensor:
    if not hasattr(net, "grid"):
        net.register_buffer("grid", ramp(x[0]), persistent=False)
    return x + net.grid


def _in_lists(net: Any, x: Tensor) -> Tensor:
    net.log.append(x)
    net.log.append({"shape": x.shape, "mean": x.mean()})
    return x.relu()


def _assigned(net: Any, x: Tensor) -> Tensor:
    net.features = x
    net.last = net.features * 2
    return net.last - net.features


def _from_the_hook(net: Any, x: Tensor) -> Tensor:
    return x + net.hooked


def _counted(net: Any, x: Tensor) -> Tensor:
    net.calls += 1
    return x


def _steps(net: Any, x: Tensor) -> Tensor:
    net.steps += 1
    return x


def _running_mean(net: Any, x: Tensor) -> Tensor:
    net.mean.mul_(0.9).add_(x.detach().mean((0, 2, 3)), alpha=0.1)
    return x


def _replaced(net: Any, x: Tensor) -> Tensor:
    net.mean = x.mean((0, 2, 3))
    return x - net.mean[:, None, None]


def _read_from_before(net: Any, x: Tensor) -> Tensor:
    before, net.mean = net.mean, x.detach().mean((0, 2, 3))
    return x - before[:, None, None]


def _clamped(net: Any, x: Tensor) -> Tensor:
    net.scale.weight.data.clamp_(-0.1, 0.1)
    return net.scale(x)


def _as_a_factor(net: Any, x: Tensor) -> Tensor:
    net.calls += 1
    return x * net.calls


STATES: dict[str, Rule] = {
    "by shape": _by_shape,
    "in a dictionary": _in_a_dictionary,
    "by batch": _by_batch,
    "registered": _registered,
    "in lists": _in_lists,
    "assigned": _assigned,
    "from the hook": _from_the_hook,
    "counted": _counted,
    "steps": _steps,
    "a running mean": _running_mean,
    "replaced": _replaced,
    "read from before": _read_from_before,
    "clamped": _clamped,
    "as a factor": _as_a_factor,
}
REFUSED = frozenset(("read from before", "clamped", "as a factor"))
"""Networks whose answers depend on earlier calls, or that write into what they store."""
