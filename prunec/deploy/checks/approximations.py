"""Functions that every engine approximates in a way of its own, to about a rounding of their range.

A sigmoid of −60 is 9e-27 in torch and 1.5e-8 under a runtime that takes −18 for it: right to a
rounding of 1, not to one of its own value. What comes of such errors is measured like that of any
other rounding: the functions are moved by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_OF_ONE = {_aten.sigmoid.default, _aten.tanh.default, _aten.erf.default}
_OF_INPUT = {_aten.silu.default, _aten.gelu.default, _aten.mish.default}
_ROUNDING = 2.0**-24


def approximating(roundings: float) -> AbstractContextManager[object]:
    """Move sigmoids and their kin by so many roundings of their range while the block runs."""
    return _Approximating(roundings * _ROUNDING) if roundings else nullcontext()


class _Approximating(TorchDispatchMode):
    def __init__(self, step: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._step = step

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in _OF_ONE:
            return made + self._step
        return made + self._step * args[0].abs() if func in _OF_INPUT else made
