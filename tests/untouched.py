"""Everything that was handed in, as something that can be compared with what it is later."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


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
