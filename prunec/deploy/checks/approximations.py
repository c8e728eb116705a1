"""Functions that every engine approximates differently, to about a rounding of their range.

A sigmoid of −60 is 9e-27 in torch and 1.5e-8 under a runtime that clamps its input to −18: exact to
a rounding of 1, not of its own value. The effect of such errors is measured like that of any other
rounding: the functions are shifted by one rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
# Ranges of about 1: an error is a share of 1.
_OF_ONE = {_aten.sigmoid.default, _aten.tanh.default, _aten.erf.default}
# x times a function of range 1: an error is a share of |x|.
_OF_INPUT = {_aten.silu.default, _aten.gelu.default, _aten.mish.default}
_ROUNDING = 2.0**-24  # half a unit in the last place of 1 in float32


def approximating(roundings: float) -> AbstractContextManager[object]:
    """Shift sigmoids and similar functions by ``roundings`` of their range inside the block."""
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
