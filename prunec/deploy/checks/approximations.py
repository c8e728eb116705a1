"""Functions and sums that every engine computes differently, beyond a rounding of their value.

A sigmoid of −60 is 9e-27 in torch and 1.5e-8 under a runtime that clamps its input to −18: exact to
a rounding of 1, not of its own value. The effect of such errors is measured like that of any other
rounding: the functions are shifted by one rounding.

A sum of n numbers in float32 rounds at every step by up to u = 2⁻²⁴ of the partial sum S_k. So its
error in plain order has a standard deviation of at most u · √(Σ S_k²) (Higham and Mary 2019,
doi:10.1137/18M1226312), which grows like u · √(n/3) of the sum. torch adds by pairs and hardly
errs; onnxruntime adds in 8 interleaved parts; OpenVINO adds a mean over an image in plain order if
the channels lie side by side, as after a convolution. Such a mean has no weights, so that moved
weights show nothing of this. Sums are shifted, too, by so much that the margin on measured rounding
makes eight standard deviations of it. The partial sums are those of the run itself, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
# Ranges of about 1: an error is a share of 1.
_OF_ONE = {_aten.sigmoid.default, _aten.tanh.default, _aten.erf.default}
# x times a function of range 1: an error is a share of |x|.
_OF_INPUT = {_aten.silu.default, _aten.gelu.default, _aten.mish.default}
_MEANS = {_aten.mean.default, _aten.mean.dim}
_POOLS = {_aten.adaptive_avg_pool2d.default, _aten._adaptive_avg_pool2d.default}
_SUMS = {_aten.sum.default, _aten.sum.dim_IntList, *_MEANS}
_ROUNDING = 2.0**-24  # half a unit in the last place of 1 in float32
_DEVIATIONS = 8 / 64  # of a sum, per rounding: the margin (rounding.MARGIN) is 64


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
        if func in _SUMS and args[0].is_floating_point() and args[0].numel() > 1:
            return made + self._step * _DEVIATIONS * _deviation(made, func in _MEANS, *args)
        # A pooling into several positions has short windows.
        if func in _POOLS and made.shape[-2:] == (1, 1):
            return made + self._step * _DEVIATIONS * _deviation(made, True, args[0], (-2, -1))
        return made + self._step * args[0].abs() if func in _OF_INPUT else made


def _deviation(
    made: Tensor, mean: bool, summed: Tensor, axes: Sequence[int] | None = None, *_: object
) -> Tensor:
    """Return the deviation of a sum, or of a mean, in plain order: in roundings, one per result."""
    places = sorted(axis % summed.dim() for axis in axes or range(summed.dim()))
    kept = [axis for axis in range(summed.dim()) if axis not in places]
    values = summed.double().permute(*kept, *places).flatten(len(kept))
    deviation = values.cumsum(-1).square().sum(-1).sqrt() / (values.shape[-1] if mean else 1)
    return deviation.reshape(made.shape).to(made.dtype)
