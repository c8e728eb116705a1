"""Distribution of a density over layers: number of kept weights per kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import prod

from prunec.errors import PassError

Shape = Sequence[int]
Counts = list[int]


def uniform(shapes: Sequence[Shape], density: float) -> Counts:
    """Return the kept counts for one share in all kernels, at least one each."""
    sizes = [prod(shape) for shape in shapes]
    return exact_total([density * size for size in sizes], sizes)


def erdos_renyi(shapes: Sequence[Shape], density: float) -> Counts:
    """Return counts by ER (Mocanu et al. 2018): density_l ∝ (n_in + n_out)/(n_in·n_out)."""
    return _solved(shapes, density, [sum(s[:2]) / prod(s[:2]) for s in shapes])


def erdos_renyi_kernel(shapes: Sequence[Shape], density: float) -> Counts:
    """Return counts by ERK (Evci et al. 2020).

    density_l ∝ (n_in + n_out + k_h + k_w)/(n_in·n_out·k_h·k_w).
    """
    return _solved(shapes, density, [sum(s) / prod(s) for s in shapes])


SPREADS: Mapping[str, Callable[[Sequence[Shape], float], Counts]] = {
    "uniform": uniform,
    "er": erdos_renyi,
    "erk": erdos_renyi_kernel,
}


def densities(shapes: Sequence[Shape], density: float, raw: Sequence[float]) -> list[float]:
    """Return min(1, ε·raw_l), with ε such that the total is ``density``.

    Layers above 1 become dense, and ε is solved again for the others, until none is above 1.
    """
    sizes = [prod(shape) for shape in shapes]
    budget, free = density * sum(sizes), set(range(len(sizes)))
    while free:
        full = sum(size for i, size in enumerate(sizes) if i not in free)
        epsilon = (budget - full) / sum(raw[i] * sizes[i] for i in free)
        above = {i for i in free if epsilon * raw[i] > 1}
        if not above:
            return [epsilon * raw[i] if i in free else 1.0 for i in range(len(sizes))]
        free -= above
    return [1.0] * len(sizes)


def clamped(shapes: Sequence[Shape], density: float, least: float) -> Counts:
    """Return ERK counts as in published versions of EAST's code: clamped to [least, 1], not solved
    again.

    density_l = min(max(ε·raw_l, least), 1) with the ε that would be exact without clamping, so the
    total deviates, slightly, or by a factor of ten where ``least`` binds.
    """
    sizes = [prod(shape) for shape in shapes]
    epsilon = density * sum(sizes) / sum(sum(shape) for shape in shapes)
    shares = [epsilon * sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
    return [
        round(min(max(share, least), 1.0) * size) for share, size in zip(shares, sizes, strict=True)
    ]


def _solved(shapes: Sequence[Shape], density: float, raw: Sequence[float]) -> Counts:
    shares = densities(shapes, density, raw)
    return exact_total(
        [share * prod(shape) for share, shape in zip(shares, shapes, strict=True)],
        [prod(shape) for shape in shapes],
    )


def exact_total(wanted: Sequence[float], most: Sequence[int], least: int = 1) -> Counts:
    """Return integers near ``wanted``, at most ``most``, whose sum is the rounded sum.

    The largest remainders are rounded up; none is below ``least``.
    """
    counts = [min(max(least, int(value)), limit) for value, limit in zip(wanted, most, strict=True)]
    left = round(sum(wanted)) - sum(counts)
    while left:
        step = 1 if left > 0 else -1
        by_need = sorted(range(len(counts)), key=lambda i: step * (counts[i] - wanted[i]))
        free = [i for i in by_need if least <= counts[i] + step <= most[i]][: abs(left)]
        if not free:
            break
        for i in free:
            counts[i] += step
        left -= step * len(free)
    return counts


def from_densities(
    densities: Mapping[str, float],
    names: Sequence[str],
    shapes: Sequence[Shape],
    source: str,
    dense: Sequence[str] = (),
) -> Counts:
    """Return kept counts for the densities of another run; at least one each.

    Args:
        densities: layer → density.
        names: names of the kernels that may be masked.
        shapes: shapes of these kernels.
        source: origin of the densities, for errors.
        dense: layers that stay dense, by name or pattern; densities may include them.

    Raises:
        PassError: a layer is missing from the densities, or from the network.
    """
    layers = [name.removesuffix(".weight") for name in names]
    free = [layer for layer in densities if not any(fnmatchcase(layer, p) for p in dense)]
    pairs = ((layers, densities, "have no layer"), (free, layers, "are for a layer"))
    for these, those, what in pairs:
        odd = [layer for layer in these if layer not in those]
        if odd:
            raise PassError(
                f"{source}: the densities {what} {odd[0]!r}"
                + (f" and {len(odd) - 1} more" if len(odd) > 1 else "")
                + (", which the network lacks" if these is free else ""),
                remedy="Take those of a run of the same network, or name those layers dense.",
            )
    sizes = [prod(shape) for shape in shapes]
    return [
        min(max(1, round(densities[layer] * size)), size)
        for layer, size in zip(layers, sizes, strict=True)
    ]


def shared_equally(total: int, weights: list[float], room: list[int]) -> list[int]:
    """Return integers whose sum is ``total``: each its proportion plus c, capped.

    With one c for all, min(total·w_l/Σw + c, cap_l) sums to the total, cap_l = 0.99·room_l: the
    limit of Dettmers & Zettlemoyer's code, which repeatedly distributes equally over all layers
    what the capped ones cannot take. If the caps do not suffice, rooms are filled.
    """
    mass = sum(weights)
    even = [total / len(room)] * len(room)
    wanted = [total * weight / mass for weight in weights] if mass else even
    for caps in ([FULL * limit for limit in room], [float(limit) for limit in room]):
        if sum(caps) >= total:
            return exact_total(_level(wanted, caps, total), room, least=0)
    return list(room)


FULL = (
    0.99  # largest share of a layer's room that grows at once, as in Dettmers & Zettlemoyer's code
)


def _level(wanted: Sequence[float], caps: Sequence[float], total: float) -> list[float]:
    """Return min(wanted_l + c, caps_l) for the c with which the sum is the total."""
    gaps = sorted((cap - want for cap, want in zip(caps, wanted, strict=True)), reverse=True)
    left, c = total - sum(caps), 0.0
    # Layers whose gap exceeds c are not full: try with one of them, then with one more each time.
    for number, following in enumerate([*gaps[1:], -math.inf], 1):
        c = (left + sum(gaps[:number])) / number
        if c >= following:
            break
    return [min(want + c, cap) for want, cap in zip(wanted, caps, strict=True)]


def shared_out(total: int, weights: list[float], room: list[int]) -> list[int]:
    """Return integers whose sum is ``total``, proportional to ``weights``, capped by ``room``."""
    left, free, shares = float(total), set(range(len(room))), [0.0] * len(room)
    while left > 1e-9 and free:
        mass = sum(weights[i] for i in free) or float(len(free))
        even = not any(weights[i] for i in free)
        wanted = {i: shares[i] + left * (1.0 if even else weights[i]) / mass for i in free}
        left = 0.0
        for i, value in wanted.items():
            shares[i] = min(value, float(room[i]))
            left += value - shares[i]
            if value >= room[i]:
                free.discard(i)
    return exact_total(shares, room, least=0)
