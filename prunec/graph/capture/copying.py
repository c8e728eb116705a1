"""Copies of a network that can run without affecting the network, its state or its hooks."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_TREE = frozenset(("_modules", "_parameters", "_buffers"))
_CONTAINERS = nn.Module, Tensor, list, dict, set


def copied(module: nn.Module, tensors: Mapping[int, Any] | None = None) -> nn.Module:
    """Return a copy of a network, with its attributes, caches and hooks.

    Computed tensors are copied without their autograd graph. A function that closes over a part of
    the network, as hooks do, closes over that part of the copy. Attributes that cannot be copied (a
    lock, an open file) are shared.

    Args:
        module: any network.
        tensors: id of a tensor of the network → its replacement in the copy; all others are
            cloned.
    """
    given = dict(tensors or {})
    try:
        made, memo = _deep(module, given)
    except Exception:  # any error of an attribute that does not support copying
        # Testing every attribute is slow, so it happens only after a plain copy failed.
        made, memo = _deep(module, given | _not_copied(module, given))
    _close_over(made, memo)
    return made


def standing_in(module: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode that shares the network's parameters.

    For traces, which never write parameters; buffers and everything else belong to the copy.
    """
    return copied(module, {id(value): value for value in module.parameters()}).eval()


def _deep(module: nn.Module, given: Mapping[int, Any]) -> tuple[nn.Module, dict[int, Any]]:
    memo = dict(given)
    with _Detached():
        return copy.deepcopy(module, memo), memo


class _Detached(TorchFunctionMode):
    """Copies of computed tensors without their autograd graph; torch itself refuses to copy
    them.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Pass every call through, except for copies."""
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            if id(tensor) not in memo:
                with torch.no_grad():
                    memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def _not_copied(module: nn.Module, memo: Mapping[int, Any]) -> dict[int, Any]:
    """Return attributes that cannot be copied, by their ids."""
    parts = {id(part): part for part in module.modules()}
    shared: dict[int, Any] = {}
    for part in parts.values():
        for name, value in vars(part).items():
            items = value.values() if isinstance(value, dict) else (value,)
            for item in items if name not in _TREE else ():
                try:
                    with _Detached():
                        copy.deepcopy(item, {**memo, **parts})
                except Exception:  # any error means that it cannot be copied
                    shared[id(item)] = item
    return shared


def _close_over(made: nn.Module, memo: dict[int, Any]) -> None:
    """Make functions that the copy holds close over the copy."""
    for part in made.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, types.FunctionType):
                setattr(part, name, _reclosed(value, memo))
            elif isinstance(value, dict) and name not in _TREE:
                for key, item in value.items():
                    if isinstance(item, types.FunctionType):
                        value[key] = _reclosed(item, memo)


def _reclosed(function: types.FunctionType, memo: dict[int, Any]) -> Callable[..., Any]:
    cells = function.__closure__ or ()
    new = tuple(types.CellType(_inside(cell.cell_contents, memo)) for cell in cells if _full(cell))
    if len(new) < len(cells) or all(
        a.cell_contents is b.cell_contents for a, b in zip(new, cells, strict=True)
    ):
        return function
    made = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, new
    )
    # FunctionType takes all but the defaults of keyword-only arguments.
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _inside(value: Any, memo: dict[int, Any]) -> Any:
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, types.FunctionType):
        return _reclosed(value, memo)
    if not isinstance(value, _CONTAINERS):
        return value
    try:
        with _Detached():
            return copy.deepcopy(value, memo)
    except Exception:  # any error means that it cannot be copied: share it
        return value


def _full(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # the cell is still empty
        return False
    return True
