"""How far a file's outputs lie from the network's, beside how far they may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunec.deploy.checks.check import Check
from prunec.deploy.checks.rounding import Noise, largest, widest
from prunec.wording import percent


@dataclass(frozen=True)
class Gap:
    """How far outputs lie apart, where that is most beyond what it may be.

    Attributes:
        worst: the largest absolute difference; NaN where it cannot be told.
        bound: what it may be.
        size: the largest absolute value of torch's output.
        rounding: how far rounding alone may move it, where that is more than the tolerance.
        reason: why it cannot be told; empty where it can.
    """

    worst: float = 0.0
    bound: float = 0.0
    size: float = 0.0
    rounding: float = 0.0
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether they are near enough."""
        return not self.reason and self.worst <= self.bound

    @property
    def excess(self) -> float:
        """By how many times they are apart what they may be; larger where it cannot be told."""
        if self.reason:
            return float("inf")
        return self.worst / self.bound if self.bound else float(self.worst > 0) * 1e300

    def check(self, name: str, where: str) -> Check:
        """Return whether they are near enough."""
        if self.passed:
            return Check(name, 0.0, self.worst, self.bound, True)
        message = f"{self.reason} {where}" if self.reason else self._told(where)
        return Check(name, 0.0, self.worst, self.bound, False, f"{message}.")

    def _told(self, where: str) -> str:
        """How far they are apart, and what of it rounding explains."""
        found = f"outputs of up to {self.size:.3g} differ by {self.worst:.3g} {where}; "
        if self.rounding <= self.bound:
            return f"{found}rounding explains {self.bound:.2g}"
        found += f"rounding explains {self.rounding:.2g}, the tolerance allows {self.bound:.2g}"
        if self.worst > self.rounding:
            return found
        return (
            f"{found}. The file is not to blame: this network amplifies rounding, and no two "
            "engines agree on its outputs. Trained weights and norms mend it, or a larger "
            "tolerance where so rough an output will do"
        )

    def numbers(self, name: str, where: str) -> Check:
        """Return whether both are numbers, of a form that changes them."""
        message = f"{self.reason} {where}." if self.reason else ""
        return Check(name, "numbers", self.worst, None, not self.reason, message)


def farthest(gaps: Sequence[Gap]) -> Gap:
    """The gap that is most beyond its bound."""
    return max(gaps, key=lambda gap: gap.excess, default=Gap())


def untold(reason: str) -> Gap:
    """A gap that cannot be told."""
    return Gap(float("nan"), reason=reason)


def unlike(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> str:
    """Why outputs are of other shapes; empty where they are not."""
    shapes, given = [a.shape for a in ours], [b.shape for b in theirs]
    return f"the file's outputs have shapes {given}, torch's {shapes}" if shapes != given else ""


def comparable(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> str:
    """Why outputs cannot be compared: other shapes, or infinite and NaN in other places."""
    if text := unlike(ours, theirs):
        return text
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if not (_floating(a) and _floating(b)):
            continue
        finite = np.isfinite(a)
        if a.size and not finite.any() and np.isnan(a).all():
            return f"torch's outputs are not finite (NaN): nothing of output {number} can be told"
        if not np.isfinite(b[finite]).all():
            return "the file's outputs are not finite (NaN or infinite)"
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
            return f"output {number} is not finite in torch, and something else in the file"
    return ""


def decided(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], undecided: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Return a file's outputs with torch's value where rounding alone decides what is finite."""
    return [
        np.where(places & (np.isfinite(a) != np.isfinite(b)), a, b)
        if a.shape == b.shape and _floating(a) and _floating(b)
        else b
        for a, b, places in zip(ours, theirs, undecided, strict=True)
    ]


def gap_of(ours: np.ndarray, theirs: np.ndarray, noise: Noise, tolerance: float) -> Gap:
    """Compare one output slice by slice; places where torch's is not finite are left out."""
    if not ours.size:
        return Gap()
    if not _floating(ours):
        return _whole_numbers(ours, theirs, noise)
    finite = np.isfinite(ours)
    values = np.where(finite, ours, 0)
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
        excess = np.divide(apart, bounds, out=(apart > 0) * 1e300, where=bounds > 0)
        place = int(np.argmax(excess))
        gaps.append(Gap(float(apart[place]), float(bounds[place]), size, float(explained[place])))
    return farthest(gaps)


def amplified(ours: np.ndarray, noise: Noise, tolerance: float) -> str:
    """How far rounding alone moves an output, where that is further than the tolerance allows."""
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
    """Whole numbers are equal but where one rounding of the weights decides."""
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
