"""A copy of a network that can be run without touching the network, its state or its hooks."""

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

    Tensors that were computed are copied without the graph that computed them. A function that
    closes over a part of the network, as hooks do, closes over the part of the copy. What cannot be
    copied (a lock, an open file) is shared.

    Args:
        module: any network.
        tensors: id of a tensor of the network → the tensor that takes its place in the copy; what
            is not named is cloned.
    """
    given = dict(tensors or {})
    try:
        made, memo = _deep(module, given)
    except Exception:  # whatever an attribute raises that is not made to be copied
        made, memo = _deep(module, given | _not_copied(module, given))
    _close_over(made, memo)
    return made


def standing_in(module: nn.Module) -> nn.Module:
    """Return a copy of a network in evaluation mode that has the network's own parameters.

    For a trace, which writes into no parameter; buffers and all else are the copy's.
    """
    return copied(module, {id(value): value for value in module.parameters()}).eval()


def _deep(module: nn.Module, given: Mapping[int, Any]) -> tuple[nn.Module, dict[int, Any]]:
    memo = dict(given)
    with _Detached():
        return copy.deepcopy(module, memo), memo


class _Detached(TorchFunctionMode):
    """Copies a tensor that was computed, which torch refuses, without its graph."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Every call as it is, but for copies."""
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            if id(tensor) not in memo:
                with torch.no_grad():
                    memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def _not_copied(module: nn.Module, memo: Mapping[int, Any]) -> dict[int, Any]:
    """Attributes that cannot be copied, by their ids."""
    parts = {id(part): part for part in module.modules()}
    found: dict[int, Any] = {}
    for part in parts.values():
        for name, value in vars(part).items():
            items = value.values() if isinstance(value, dict) else (value,)
            for item in items if name not in _TREE else ():
                try:
                    with _Detached():
                        copy.deepcopy(item, {**memo, **parts})
                except Exception:  # of whatever kind
                    found[id(item)] = item
    return found


def _close_over(made: nn.Module, memo: dict[int, Any]) -> None:
    """Let functions that are held by the copy close over the copy."""
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
    except Exception:  # of whatever kind: it is shared
        return value


def _full(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # nothing was put into it yet
        return False
    return True
