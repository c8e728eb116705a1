"""Layouts and values over them: axes along which nothing differs are shrunk to size 1."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

NAN = float("nan")


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that these shapes broadcast to."""
    return tuple(int(size) for size in np.broadcast_shapes(*shapes))


def varying(layout: Tensor) -> list[int]:
    """Return the axes along which the atoms of a layout differ."""
    return [
        axis
        for axis in range(layout.dim())
        if layout.shape[axis] > 1 and not bool((layout == layout.narrow(axis, 0, 1)).all())
    ]


def shrink(tensor: Tensor) -> Tensor:
    """Return the tensor with every axis along which nothing differs cut to size 1."""
    for axis in range(tensor.dim()):
        if tensor.shape[axis] > 1:
            first = tensor.narrow(axis, 0, 1)
            if bool((tensor == first).all()):
                tensor = first
    return tensor.contiguous()


def on_axis(values: Tensor, axis: int, rank: int) -> Tensor:
    """Return values of shape (size,) along one of ``rank`` axes."""
    return values.reshape([-1 if i == axis else 1 for i in range(rank)])


def one_value(values: Tensor, axis: int) -> Tensor:
    """Return the axis cut to size 1: its single value, NaN where values differ."""
    first = values.narrow(axis, 0, 1)
    return torch.where((values == first).all(axis, keepdim=True), first, NAN)


def is_one_number(values: Tensor) -> bool:
    """Return whether values are known and all equal."""
    return bool((values == values.reshape(-1)[:1]).all())


def fit(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Shrink or expand to a shape; a shrunk axis keeps a value only if all its entries agree."""
    if value.dim() != len(shape):
        return torch.full(shape, NAN, dtype=torch.float64)
    for axis, size in enumerate(shape):
        if value.shape[axis] > 1 and size == 1:
            value = one_value(value, axis)
    return value.expand(shape)


def along(values: Tensor, axis: int, size: int) -> Tensor:
    """Return the values along one axis, shape (size,); NaN where they differ along another."""
    axis %= values.dim()
    shape = tuple(n if i == axis else 1 for i, n in enumerate(values.shape))
    return fit(values, shape).reshape(-1).expand(size)
