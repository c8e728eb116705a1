"""Bounds on the distance between a file's outputs and a network's, from measured rounding.

The rounding of this network on these inputs is measured in two ways: its outputs y against those of
the same network in float64, y64, and y64 against y64′, computed with weights moved by one rounding
each and sigmoids and similar functions shifted by one (``approximations``). An engine that computes
in another order errs by about as much. So a file's outputs may differ from torch's by ``MARGIN``
times the measured error, in each slice of an output (a channel, a column) separately, whatever the
scale of the others.

    noise_c = max(|y − y64| and |y64′ − y64| over slice c,  m · s_c,  ε · s_c)
    bound_c = MARGIN · noise_c

with s_c the largest value of the slice, m the median of noise / s over slices (a slice whose few
values happen to round well is not more exact than its neighbours) and ε of the type. A slice that
is 0 everywhere has the ε of the whole output. The bound is at most ``tolerance · s``, with s the
largest value of the output, but at least a few roundings: a half-precision number holds three
digits.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunec.deploy.checks.approximations import approximating
from prunec.graph.capture.copying import copied

MARGIN = (
    64.0  # three times the largest ratio seen in correct files: runtimes fold norms into kernels
)
_SEED = 7  # fixed, so that a verification can be repeated
_ROUNDINGS = 4  # of the type; smaller tolerances exceed its precision


@dataclass(frozen=True)
class Noise:
    """Effect of rounding on one output.

    Attributes:
        relative: axis → noise as a share of each slice's largest value.
        absolute: axis → measured noise per slice, in the output's unit.
        undecided: for integer outputs, whether one rounding decides each value.
    """

    relative: Mapping[int, np.ndarray]
    absolute: Mapping[int, np.ndarray]
    undecided: np.ndarray | None = None

    def bounds(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Return the allowed distance of each slice along an axis from these finite values."""
        size = largest(values, axis)
        noise = np.maximum(self.relative[axis] * size, self.absolute[axis])
        dead = float(np.finfo(values.dtype).eps) * float(size.max(initial=0.0))
        least = _ROUNDINGS * float(np.finfo(values.dtype).smallest_subnormal)
        bounds: np.ndarray = np.maximum(
            MARGIN * np.where(size > 0, noise, np.maximum(noise, dead)), least
        )
        return bounds


class Rounding:
    """Measurement of rounding in the outputs of a network."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._kinds = {t.dtype for t in module.parameters() if t.is_floating_point()}
        self._wide = torch.float64 not in self._kinds
        self._variants: dict[float, nn.Module] = {}
        self._last: tuple[Sequence[Tensor], list[np.ndarray]] = ((), [])

    def noise(
        self,
        inputs: Sequence[Tensor],
        ours: Sequence[np.ndarray],
        *,
        whole: bool = False,
        moved: bool = True,
    ) -> list[Noise]:
        """Return the noise of every output on these inputs.

        Args:
            inputs: inputs of the network, batch first.
            ours: its outputs on these inputs.
            whole: whether to determine which integers are undecided, at twice the cost.
            moved: whether to run with moved weights too. Without, the noise is the first part of
                the maximum, at half the cost: what lies within its bounds lies within all.
        """
        moves = (*((1.0,) if moved else ()), *((MARGIN, -MARGIN) if whole else ()))
        others = [self._exact(inputs), *(self._run(inputs, move) for move in moves)]
        return [noise_of(y, [other[index] for other in others]) for index, y in enumerate(ours)]

    def undecided(self, inputs: Sequence[Tensor], ours: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return where rounding alone decides finiteness, at overflow or underflow.

        The network runs in its own types, with weights moved by ``MARGIN`` roundings up and down,
        and with subnormal numbers taken for 0, as some engines do.
        """
        # 2⁻²³ is float32's, for a network without weights.
        step = MARGIN * max((torch.finfo(k).eps for k in self._kinds), default=2.0**-23)
        moved = [_moved(copied(self._module).eval(), s) for s in (step, -step)]
        others = [run(module, inputs) for module in moved]
        with _small_numbers_as_zero() as flushing:
            others += [run(self._module, inputs)] if flushing else []
        return [
            np.logical_or.reduce([np.isfinite(other[i]) != np.isfinite(y) for other in others])
            for i, y in enumerate(ours)
        ]

    def _exact(self, inputs: Sequence[Tensor]) -> list[np.ndarray]:
        """Return the outputs with no weight moved; those on the last inputs are remembered."""
        known, outputs = self._last
        if len(known) == len(inputs) > 0 and all(map(operator.is_, known, inputs)):
            return outputs
        self._last = (tuple(inputs), self._run(inputs, 0.0))
        return self._last[1]

    def _run(self, inputs: Sequence[Tensor], roundings: float) -> list[np.ndarray]:
        """Return the outputs in float64 with every weight moved by ``roundings`` of its type.

        A network that is float64 already, or cannot run in float64 because its forward names a
        type, runs in its own types instead, with weights moved the other way in place of float64.
        """
        if self._wide:
            wide = [x.double() if x.is_floating_point() else x for x in inputs]
            try:
                with approximating(roundings):
                    return run(self._variant(roundings), wide)
            # Mixed types in forward fail in one of these ways.
            except (RuntimeError, TypeError, ValueError):
                self._wide, self._variants = False, {}
        with approximating(roundings):
            # In place of float64: the same type with weights moved the other way.
            return run(self._variant(roundings or -1.0), inputs)

    def _variant(self, roundings: float) -> nn.Module:
        if roundings not in self._variants:
            again = copied(self._module).eval()
            moved = again.double() if self._wide else again
            step = roundings * max((torch.finfo(k).eps for k in self._kinds), default=2.0**-23)
            self._variants[roundings] = _moved(moved, step)
        return self._variants[roundings]


@contextlib.contextmanager
def _small_numbers_as_zero() -> Iterator[bool]:
    """Treat subnormal numbers as 0 inside the block; yield whether the processor can."""
    least = torch.tensor(torch.finfo(torch.float32).smallest_normal, dtype=torch.float32)
    # Half of the smallest normal number is 0 if the processor flushes already; torch does not say.
    before = not bool(least * 0.5)
    try:
        yield torch.set_flush_denormal(True)
    finally:
        torch.set_flush_denormal(before)


def widest(values: np.ndarray, tolerance: float) -> float:
    """Return the largest allowed distance: by the tolerance, or a few roundings of the type."""
    kind = np.finfo(values.dtype)
    share = max(tolerance, _ROUNDINGS * float(kind.eps))
    size = float(np.abs(values).max(initial=0.0))
    return max(share * size, _ROUNDINGS * float(kind.smallest_subnormal))


def run(module: nn.Module, inputs: Sequence[Tensor]) -> list[np.ndarray]:
    """Return all outputs of a network, flat; the caller's inputs are copied, so writes do not reach
    them.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        outputs = module(*(x.to(device, copy=True) for x in inputs))
    return [x.detach().cpu().numpy() for x in tensors(outputs)]


def tensors(output: Any) -> Iterator[Tensor]:
    """Yield the tensors of a nested output, in order; other values are not outputs of a file."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for item in output.values():
            yield from tensors(item)
    elif isinstance(output, (list, tuple)):
        for item in output:
            yield from tensors(item)


def _moved(module: nn.Module, step: float) -> nn.Module:
    """Return the network with every parameter scaled in place by 1 ± ``step``, with random
    signs.
    """
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for tensor in module.parameters() if step else ():
            if tensor.is_floating_point():
                signs = torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1
                tensor.mul_(1 + step * signs.to(tensor))
    return module


def slices(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the axes along which an output is judged: channels; for sequences, both axes."""
    return (1, 2) if len(shape) == 3 else (1,) if len(shape) > 1 else (0,)


def largest(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the largest absolute value of each slice along an axis; one number for axis 0."""
    others = tuple(a for a in range(values.ndim) if a != axis) if axis else None
    values_of_slices = np.abs(values).max(axis=others, initial=0.0)
    return np.atleast_1d(np.asarray(values_of_slices, dtype=np.float64))


def noise_of(y: np.ndarray, others: Sequence[np.ndarray]) -> Noise:
    """Return the noise of an output.

    Args:
        y: output.
        others: the output computed more exactly, perhaps with weights moved by one rounding,
            and, for integers, moved by more roundings.
    """
    if not np.issubdtype(y.dtype, np.floating):
        return Noise({}, {}, np.logical_or.reduce([other != y for other in others]))
    values = np.where(np.isfinite(y), y, 0).astype(np.float64)
    exact, *moved = (np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0) for x in others[:2])
    error = np.maximum.reduce([np.abs(values - exact), *(np.abs(x - exact) for x in moved)])
    absolute = {axis: largest(error, axis) for axis in slices(y.shape)}
    relative = {
        axis: _relative(worst, largest(values, axis), y.dtype) for axis, worst in absolute.items()
    }
    return Noise(relative, absolute)


def _relative(worst: np.ndarray, size: np.ndarray, kind: np.dtype[Any]) -> np.ndarray:
    alive = size > 0
    relative = np.divide(worst, size, out=np.zeros_like(worst), where=alive)
    usual = float(np.median(relative[alive])) if alive.any() else 0.0
    floored: np.ndarray = np.maximum(relative, max(usual, float(np.finfo(kind).eps)))
    return floored
