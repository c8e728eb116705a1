"""Writes in place: into what came in, through views of it, at fixed places."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def _at(where: Callable[[Tensor], Tensor], write: Callable[[Tensor], object]) -> Callable:
    """Write into a view of what came in, and hand on what came in."""

    def written(x: Tensor) -> Tensor:
        write(where(x))
        return x

    return written


def _first_channel(x: Tensor) -> Tensor:
    x[:, 0] = 0.5
    return x


def _rows(x: Tensor) -> Tensor:
    x[:, :, ::2] += 1
    return x


def _swapped(x: Tensor) -> Tensor:
    x[:, [0, 1]] = x[:, [1, 0]]
    return x


def _where_large(x: Tensor) -> Tensor:
    x[x > 1] = 1.0
    return x


def _added_to_itself(x: Tensor) -> Tensor:
    x += x.relu()
    return x


WRITES: dict[str, Callable[[Tensor], Tensor]] = {
    "normalised": lambda x: x.sub_(0.5).div_(0.25),
    "rectified": lambda x: F.relu(x, inplace=True),
    "clamped": lambda x: x.clamp_(-1, 1),
    "bounded": lambda x: x.masked_fill_(x > 1, 1.0),
    "its first channel": _first_channel,
    "its rows": _rows,
    "its first channels swapped": _swapped,
    "where it is large": _where_large,
    "itself": _added_to_itself,
    "all but a channel": _at(lambda x: x[:, 1:], lambda view: view.mul_(2)),
    "flat": _at(lambda x: x.flatten(2), lambda view: view.add_(1)),
    "transposed": _at(lambda x: x.transpose(1, 2)[:, 0], lambda view: view.zero_()),
    "a corner": _at(lambda x: x[:, :, 0, 0], lambda view: view.zero_()),
    "a copy of a channel": lambda x: x.index_copy_(1, torch.tensor([0]), x[:, 1:2].clone()),
    "a channel of the first half": _at(lambda x: x.chunk(2, 1)[0], lambda view: view.neg_()),
    "handed on as it is": lambda x: x.mul_(0.5).detach(),
}
OF_TWO = frozenset(("its first channels swapped", "a copy of a channel"))
"""Writes that need two channels."""
