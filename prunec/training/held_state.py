"""Copies of the state of a training, to restore it: network, optimizer, method and averages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from prunec.training.averaging import Average
from prunec.training.step import Stepper

AGREE = 0.05  # of a part's movement, allowed: a stale number would change it by a factor
FLOOR = 1e-6  # of a part's size, allowed in addition: rounding


class HeldState:
    """Copies of every tensor that a step changes, and the state of the random generators.

    Tensors are restored in place, so that recordings still read the same memory.
    """

    def __init__(self, take: Stepper, average: Average) -> None:
        self.take, self.average = take, average
        self.before = {key: tensor.detach().clone() for key, tensor in self._tensors()}
        self.numbers = self._numbers()
        device = next(take.model.parameters()).device
        self.device = device if device.type == "cuda" else None
        self.random = torch.get_rng_state(), self._on_device()

    def restore(self) -> None:
        """Restore the state."""
        now = dict(self._tensors())
        for key, tensor in now.items():
            if key in self.before:
                tensor.detach().copy_(self.before[key])
        for parameter, entries in self.numbers:
            state = self.take.optimizer.state[parameter]
            # An optimizer makes its momentum at the first step, which is undone here.
            for key in state.keys() - entries.keys():
                del state[key]
            state.update({k: v for k, v in entries.items() if not isinstance(v, Tensor)})
        torch.set_rng_state(self.random[0])
        if self.device is not None and self.random[1] is not None:
            torch.cuda.set_rng_state(self.random[1], self.device)

    def moved(self) -> dict[str, Tensor]:
        """Return copies of all tensors in their present state."""
        return {key: tensor.detach().clone() for key, tensor in self._tensors()}

    def difference(self, computed: dict[str, Tensor]) -> str:
        """Return which part of the state differs from ``computed`` too much; empty if none does."""
        now = dict(self._tensors())
        for part in sorted({key.partition("/")[0] for key in computed}):
            keys = [k for k in computed if k.startswith(f"{part}/") and k in now]
            values = [(self.before.get(k), computed[k], now[k].detach()) for k in keys]
            known = [(b, c, n) for b, c, n in values if b is not None and c.is_floating_point()]
            movement = _norm([c - b for b, c, _ in known])
            size = _norm([b for b, _, _ in known])
            difference = _norm([n - c for _, c, n in known])
            # Not `difference > …`: NaN must fail.
            if not difference <= AGREE * movement + FLOOR * size:
                share = difference / max(movement, 1e-300)
                return f"replayed steps move the {part} otherwise, by {share:.2g} of its movement"
        return ""

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        model, optimizer = self.take.model, self.take.optimizer
        for name, parameter in self.take.named.items():
            yield f"weights/{name}", parameter
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    yield f"optimizer/{name}/{key}", value
        for name, buffer in model.named_buffers():
            yield f"buffers/{name}", buffer
        for name, value in self.take.method.tensors().items():
            yield f"method/{name}", value
        for name, value in self.average.values.items():
            yield f"average/{name}", value

    def _numbers(self) -> list[tuple[Any, dict[str, Any]]]:
        return [(p, dict(state)) for p, state in self.take.optimizer.state.items()]

    def _on_device(self) -> Tensor | None:
        return None if self.device is None else torch.cuda.get_rng_state(self.device)


def _norm(tensors: list[Tensor]) -> float:
    """Return the norm of all values together, in float64."""
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))
