"""How near to a network's outputs a file's must be: as near as rounding leaves them.

Rounding of this very network on these very inputs is measured in two ways: its outputs y beside
those of the same network in float64, y64, and these beside y64′, of weights moved by one rounding
each and sigmoids and their kin off by one (``approximations``). An engine that computes the same in
another order errs by about as much, so a file's outputs may differ from torch's by ``MARGIN`` times
what was measured, in each slice of an output (a channel, a column) on its own, whatever the scale
of the others.

    noise_c = max(|y − y64| and |y64′ − y64| over slice c,  m · s_c,  ε · s_c)
    bound_c = MARGIN · noise_c

with s_c the largest value of the slice, m the median of noise / s over slices (a slice whose few
values happen to be rounded luckily is no more exact than its neighbours) and ε of the type. A slice
that is 0 everywhere has the ε of the whole output. The bound is never wider than ``tolerance · s``
with s the largest value of the output, but for some roundings: a half holds three digits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunec.deploy.checks.approximations import approximating
from prunec.graph.capture.copying import copied

MARGIN = 64.0  # 3 times what was seen of right files: the runtime folds norms into kernels
_SEED = 7
_ROUNDINGS = 4  # of the type: no tolerance asks for more than it holds


@dataclass(frozen=True)
class Noise:
    """What rounding does to one output.

    Attributes:
        relative: axis → share of a slice's largest value, slice by slice.
        absolute: axis → the same as it was measured, in the output's unit.
        undecided: of an output of whole numbers, where one rounding decides.
    """

    relative: Mapping[int, np.ndarray]
    absolute: Mapping[int, np.ndarray]
    undecided: np.ndarray | None = None

    def bounds(self, values: np.ndarray, axis: int) -> np.ndarray:
        """How far the slices along an axis may lie from these finite values."""
        size = largest(values, axis)
        noise = np.maximum(self.relative[axis] * size, self.absolute[axis])
        dead = float(np.finfo(values.dtype).eps) * float(size.max(initial=0.0))
        least = _ROUNDINGS * float(np.finfo(values.dtype).smallest_subnormal)
        bounds: np.ndarray = np.maximum(
            MARGIN * np.where(size > 0, noise, np.maximum(noise, dead)), least
        )
        return bounds


class Rounding:
    """Measures what rounding does to the outputs of a network."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._kinds = {t.dtype for t in module.parameters() if t.is_floating_point()}
        self._wide = torch.float64 not in self._kinds
        self._variants: dict[float, nn.Module] = {}

    def noise(
        self, inputs: Sequence[Tensor], ours: Sequence[np.ndarray], *, whole: bool = False
    ) -> list[Noise]:
        """Return the noise of every output on these inputs.

        Args:
            inputs: of the network, batch first.
            ours: its outputs on them.
            whole: whether to tell which whole numbers are undecided, for twice the work.
        """
        moves = (0.0, 1.0, *((MARGIN, -MARGIN) if whole else ()))
        others = [self._run(inputs, move) for move in moves]
        return [noise_of(y, [other[index] for other in others]) for index, y in enumerate(ours)]

    def undecided(self, inputs: Sequence[Tensor], ours: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return where every output is finite or not by rounding alone: at overflow or underflow.

        The network runs in its own types, its weights moved by ``MARGIN`` roundings up and down,
        and with numbers too small for full precision taken for 0, as some engines take them.
        """
        step = MARGIN * max((torch.finfo(k).eps for k in self._kinds), default=2.0**-23)
        moved = [_moved(copied(self._module).eval(), s) for s in (step, -step)]
        others = [run(module, inputs) for module in moved]
        with _small_numbers_as_zero() as flushing:
            others += [run(self._module, inputs)] if flushing else []
        return [
            np.logical_or.reduce([np.isfinite(other[i]) != np.isfinite(y) for other in others])
            for i, y in enumerate(ours)
        ]

    def _run(self, inputs: Sequence[Tensor], roundings: float) -> list[np.ndarray]:
        """The outputs in float64, every weight moved by so many roundings of its type.

        A network that is float64 already, or names a type in its forward pass so that it does not
        run in float64, runs in its own types, its weights moved the other way in place of float64.
        """
        if self._wide:
            wide = [x.double() if x.is_floating_point() else x for x in inputs]
            try:
                with approximating(roundings):
                    return run(self._variant(roundings), wide)
            except (RuntimeError, TypeError, ValueError):
                self._wide, self._variants = False, {}
        with approximating(roundings):
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
    """Take subnormal numbers for 0; yields whether this processor can; afterwards as before."""
    least = torch.tensor(torch.finfo(torch.float32).smallest_normal, dtype=torch.float32)
    before = not bool(least * 0.5)
    try:
        yield torch.set_flush_denormal(True)
    finally:
        torch.set_flush_denormal(before)


def widest(values: np.ndarray, tolerance: float) -> float:
    """How far finite values may lie apart at most: by the tolerance, or some of their roundings."""
    kind = np.finfo(values.dtype)
    share = max(tolerance, _ROUNDINGS * float(kind.eps))
    size = float(np.abs(values).max(initial=0.0))
    return max(share * size, _ROUNDINGS * float(kind.smallest_subnormal))


def run(module: nn.Module, inputs: Sequence[Tensor]) -> list[np.ndarray]:
    """Return all outputs of a network, flat; what it writes into its inputs reaches nobody."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        outputs = module(*(x.to(device, copy=True) for x in inputs))
    return [x.detach().cpu().numpy() for x in tensors(outputs)]


def tensors(output: Any) -> Iterator[Tensor]:
    """Yield the tensors of a nested output, in order; what is no tensor is no output of a file."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for item in output.values():
            yield from tensors(item)
    elif isinstance(output, (list, tuple)):
        for item in output:
            yield from tensors(item)


def _moved(module: nn.Module, step: float) -> nn.Module:
    """Return the network with every parameter changed in place by a share of it, up or down."""
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for tensor in module.parameters() if step else ():
            if tensor.is_floating_point():
                signs = torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1
                tensor.mul_(1 + step * signs.to(tensor))
    return module


def slices(shape: Sequence[int]) -> tuple[int, ...]:
    """The axes along which an output is judged slice by slice: channels; of sequences, both."""
    return (1, 2) if len(shape) == 3 else (1,) if len(shape) > 1 else (0,)


def largest(values: np.ndarray, axis: int) -> np.ndarray:
    """The largest absolute value of each slice along an axis; one number for axis 0."""
    others = tuple(a for a in range(values.ndim) if a != axis) if axis else None
    found = np.abs(values).max(axis=others, initial=0.0)
    return np.atleast_1d(np.asarray(found, dtype=np.float64))


def noise_of(y: np.ndarray, others: Sequence[np.ndarray]) -> Noise:
    """Return the noise of an output.

    Args:
        y: the output.
        others: the same, computed more exactly; with every weight moved by one rounding; and, of
            whole numbers, by some roundings more.
    """
    if not np.issubdtype(y.dtype, np.floating):
        return Noise({}, {}, np.logical_or.reduce([other != y for other in others]))
    values = np.where(np.isfinite(y), y, 0).astype(np.float64)
    exact, moved = (np.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0) for x in others[:2])
    error = np.maximum(np.abs(values - exact), np.abs(moved - exact))
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
