"""Distances between a file's outputs and the network's, in relation to their bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunec.deploy.checks.check import Check
from prunec.deploy.checks.rounding import Noise, largest, widest
from prunec.wording import percent


@dataclass(frozen=True)
class Gap:
    """Distance of outputs, at the place where it exceeds its bound most.

    Attributes:
        worst: largest absolute difference; NaN if outputs cannot be compared.
        bound: allowed difference.
        size: largest absolute value of torch's output.
        rounding: difference that rounding alone explains, before the limit by the tolerance.
        reason: reason why outputs cannot be compared, or empty.
    """

    worst: float = 0.0
    bound: float = 0.0
    size: float = 0.0
    rounding: float = 0.0
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether the difference is within its bound."""
        return not self.reason and self.worst <= self.bound

    @property
    def excess(self) -> float:
        """Difference divided by its bound; infinite if outputs cannot be compared."""
        if self.reason:
            return float("inf")
        # 1e300: worse than any finite ratio, but better than outputs that cannot be compared.
        return self.worst / self.bound if self.bound else float(self.worst > 0) * 1e300

    def check(self, name: str, where: str) -> Check:
        """Return the check that the difference is within its bound."""
        if self.passed:
            return Check(name, 0.0, self.worst, self.bound, True)
        message = f"{self.reason} {where}" if self.reason else self._explained(where)
        return Check(name, 0.0, self.worst, self.bound, False, f"{message}.")

    def _explained(self, where: str) -> str:
        """Return the difference in words, and how much of it rounding explains."""
        text = f"outputs of up to {self.size:.3g} differ by {self.worst:.3g} {where}; "
        if self.rounding <= self.bound:
            return f"{text}rounding explains {self.bound:.2g}"
        text += f"rounding explains {self.rounding:.2g}, the tolerance allows {self.bound:.2g}"
        if self.worst > self.rounding:
            return text
        return (
            f"{text}. The file is not to blame: this network amplifies rounding, and no two "
            "engines agree on its outputs. Train its weights and norms, or allow a larger "
            "tolerance if such rough outputs suffice"
        )

    def numbers(self, name: str, where: str) -> Check:
        """Return the check that both outputs are finite numbers, for forms that change values."""
        message = f"{self.reason} {where}." if self.reason else ""
        return Check(name, "numbers", self.worst, None, not self.reason, message)


def farthest(gaps: Sequence[Gap]) -> Gap:
    """Return the gap that exceeds its bound most."""
    return max(gaps, key=lambda gap: gap.excess, default=Gap())


def incomparable(reason: str) -> Gap:
    """Return a gap for outputs that cannot be compared."""
    return Gap(float("nan"), reason=reason)


def unlike(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> str:
    """Return how output shapes differ; empty if they are equal."""
    shapes, given = [a.shape for a in ours], [b.shape for b in theirs]
    return f"the file's outputs have shapes {given}, torch's {shapes}" if shapes != given else ""


def comparable(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> str:
    """Return why outputs cannot be compared: other shapes, or other places of infinity and NaN."""
    if text := unlike(ours, theirs):
        return text
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if not (_floating(a) and _floating(b)):
            continue
        finite = np.isfinite(a)
        if a.size and not finite.any() and np.isnan(a).all():
            return f"torch's outputs are not finite (NaN): output {number} cannot be compared"
        if not np.isfinite(b[finite]).all():
            return "the file's outputs are not finite (NaN or infinite)"
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return f"output {number} is not finite in torch, and has other values in the file"
    return ""


def decided(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], undecided: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Return a file's outputs with torch's value where rounding alone decides finiteness."""
    return [
        np.where(places & (np.isfinite(a) != np.isfinite(b)), a, b)
        if a.shape == b.shape and _floating(a) and _floating(b)
        else b
        for a, b, places in zip(ours, theirs, undecided, strict=True)
    ]


def gap_of(ours: np.ndarray, theirs: np.ndarray, noise: Noise, tolerance: float) -> Gap:
    """Compare one output slice by slice; places where torch's is not finite are ignored."""
    if not ours.size:
        return Gap()
    if not _floating(ours):
        return _whole_numbers(ours, theirs, noise)
    finite = np.isfinite(ours)
    values = np.where(finite, ours, 0)
    # In float64: the comparison adds no rounding of its own.
    difference = np.subtract(
        theirs, ours, out=np.zeros(ours.shape), where=finite, dtype=np.float64, casting="unsafe"
    )
    size = float(np.abs(values).max())
    most = widest(values, tolerance)
    gaps = []
    for axis in noise.relative:
        apart = largest(difference, axis)
        explained = noise.bounds(values, axis)
        bounds = np.minimum(explained, most)
        # Any difference beyond a bound of 0 is worse than every ratio.
        excess = np.divide(apart, bounds, out=(apart > 0) * 1e300, where=bounds > 0)
        place = int(np.argmax(excess))
        gaps.append(Gap(float(apart[place]), float(bounds[place]), size, float(explained[place])))
    return farthest(gaps)


def amplified(ours: np.ndarray, noise: Noise, tolerance: float) -> str:
    """Return how far rounding alone moves an output if that exceeds the tolerance, in words."""
    moved = max((float(each.max(initial=0.0)) for each in noise.absolute.values()), default=0.0)
    finite = ours[np.isfinite(ours)] if moved else ours
    if not moved or moved <= widest(finite, tolerance):
        return ""
    share = percent(moved / float(np.abs(finite).max()))
    return (
        f"moves by up to {share} of its largest value by rounding alone: the network amplifies "
        "it, and on other inputs two engines may differ by more than the tolerance"
    )


def _whole_numbers(ours: np.ndarray, theirs: np.ndarray, noise: Noise) -> Gap:
    """Compare integers: equal, except where one rounding of the weights decides."""
    wrong = ours != theirs
    if noise.undecided is not None:
        wrong &= ~noise.undecided
    count = int(np.count_nonzero(wrong))
    size = float(np.abs(ours.astype(np.float64)).max())
    if not count:
        return Gap(size=size)
    apart = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    return Gap(float(apart[wrong].max()), 0.0, size)


def _floating(values: np.ndarray) -> bool:
    return bool(np.issubdtype(values.dtype, np.floating))
