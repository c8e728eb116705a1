"""Weights whose zeros have a pattern: blocks of four filters, N of M input channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunec.deploy.native.builder import Builder, Fields
from prunec.deploy.native.packing import exact

ROWS = 4
"""Filters of a block (prunec_blocks.h)."""
FILLED = 0.9
"""Least share of nonzero weights in a block: regrown weights may still be 0."""
FULL = 0.98
"""The same for N of M, whose kernel saves bytes rather than time."""
LARGEST = 64
"""Largest M. If M is at most 16, a position takes four bits, else a byte."""
WORTH = 3
"""Least mean of nonzero weights per position of a block for which the kernel of blocks is used:
full blocks have four."""
_SHARED = 0.6
"""Least share of weights for which the next filter has a weight at the same position; below it, no
blocks are looked for. Blocks of four have 0.75."""
_TRIED = 64
"""Filters that are searched for N of M first, since most layers have no pattern."""


@dataclass(frozen=True)
class Packed:
    """Weights of a pattern as a kernel reads them.

    Attributes:
        kernel: name of the kernel.
        offsets: offsets in floats: of all weights of a filter, or of the first of each M.
        values: values of the weights; halves if that loses no bit.
        arrays: argument of the kernel → its array.
        numbers: argument of the kernel → its number.
    """

    kernel: str
    offsets: np.ndarray
    values: np.ndarray
    arrays: dict[str, np.ndarray]
    numbers: dict[str, int]

    @property
    def bytes(self) -> int:
        """Size of the arrays."""
        return sum(array.nbytes for array in (*self.arrays.values(), self.values))

    def fields(self, builder: Builder, layer: str) -> tuple[Fields, list[str]]:
        """Store the arrays; return the arguments of the kernel and the buffers that it reads."""
        add = builder.data.add
        fields: Fields = {f"pattern.{key}": add(array) for key, array in self.arrays.items()}
        fields |= {f"pattern.{key}": number for key, number in self.numbers.items()}
        place, reads = builder.floats(self.values, layer)
        return fields | {"pattern.values": place, "pattern.widened": len(reads)}, reads


def patterned(values: np.ndarray, groups: int, offsets: np.ndarray, taps: int) -> Packed | None:
    """Return the weights of a convolution in the layout of their pattern; None if they have none.

    Args:
        values: [filters, input channels of a group × taps].
        groups: number of groups.
        offsets: offset of every weight of a filter, in floats.
        taps: number of kernel positions.
    """
    if not values.any():
        return None
    return _blocks(values, groups, offsets) or _neighbours(values, offsets, taps)


def _blocks(values: np.ndarray, groups: int, offsets: np.ndarray) -> Packed | None:
    """Return blocks of up to four consecutive filters with equal positions; None if too few."""
    filters, count = values.shape
    live, total = values != 0, np.count_nonzero(values)
    if count > 1 << 16 or np.count_nonzero(live[1:] & live[:-1]) < _SHARED * total:
        return None
    firsts = _firsts(live, filters // groups)
    used = np.logical_or.reduceat(live, firsts, axis=0)
    if total < WORTH * np.count_nonzero(used):
        return None
    own = np.repeat(np.arange(len(firsts)), np.diff([*firsts, filters]))
    full = np.zeros((len(firsts), ROWS, count), np.float32)
    full[own, np.arange(filters) - np.array(firsts)[own]] = values
    block, place = np.nonzero(used)
    arrays: dict[str, np.ndarray] = {
        "firsts": np.array([*firsts, filters], np.uint32),
        "starts": np.concatenate([[0], np.cumsum(used.sum(1))]).astype(np.uint32),
        "places": place.astype(np.uint16),
    }
    chosen = exact(full[block, :, place])
    return Packed("blocks", offsets, chosen, arrays, {"groups": len(firsts)})


def _firsts(live: np.ndarray, of_group: int) -> list[int]:
    """Return the first filter of every block; none spans two groups.

    A block may begin at any filter: a constant channel that removal keeps, for one, shifts them.
    """
    counts = live.sum(1)
    firsts, union, held = [0], live[0], counts[0]
    for number in range(1, len(live)):
        rows, joined = number - firsts[-1] + 1, union | live[number]
        full = held + counts[number] >= FILLED * rows * np.count_nonzero(joined)
        if rows <= ROWS and number % of_group and full:
            union, held = joined, held + counts[number]
        else:
            firsts.append(number)
            union, held = live[number], counts[number]
    return firsts


def _neighbours(values: np.ndarray, offsets: np.ndarray, taps: int) -> Packed | None:
    """Return weights of N of M input channels, for the smallest M that fits; None if none fits."""
    channels = values.shape[1] // taps
    live = np.count_nonzero(values) / values.size
    for size in range(2, LARGEST + 1):
        kept = int(live * size / FULL)
        if channels % size or not 0 < kept < size:
            continue
        if _kept(values[:_TRIED], size, taps) <= kept and _kept(values, size, taps) == kept:
            return _of_group(values, offsets, taps, (kept, size))
    return None


def _kept(values: np.ndarray, size: int, taps: int) -> int:
    """Return the largest number of nonzero weights in any group of ``size`` input channels."""
    groups = (values != 0).reshape(len(values), -1, size, taps)
    return int(groups.sum(2).max())


def _of_group(
    values: np.ndarray, offsets: np.ndarray, taps: int, pattern: tuple[int, int]
) -> Packed:
    """Return, for every group of M input channels, N values and their positions."""
    kept, size = pattern
    along = values.reshape(len(values), -1, size, taps).swapaxes(2, 3)
    groups = along.reshape(-1, size)
    # Nonzero ones first, in order; zeros fill a group that has fewer.
    places = np.argsort(groups == 0, axis=1, kind="stable")[:, :kept]
    chosen = np.take_along_axis(groups, places, 1).astype(np.float32)
    own = offsets.reshape(-1, size, taps)
    flat = places.reshape(-1).astype(np.uint8)
    if size <= 16:
        pairs = np.concatenate([flat, np.zeros(len(flat) % 2, np.uint8)]).reshape(-1, 2)
        flat = pairs[:, 0] | pairs[:, 1] << 4
    arrays: dict[str, np.ndarray] = {"starts": own[0, :, 0] - own[0, 0, 0], "places": flat}
    numbers = {"groups": own.shape[0] * taps, "kept": kept, "packed": int(size <= 16)}
    return Packed("neighbours", own[:, 0].reshape(-1), exact(chosen), arrays, numbers)
