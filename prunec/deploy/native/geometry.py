"""Where the weights of convolutions read, and the zeros that they ask for around planes."""

from __future__ import annotations

from dataclasses import dataclass

from prunec.deploy.native.layout import Border, plane_sizes
from prunec.deploy.native.reading import Call, Network


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution, read as one of step 1 over the phases of its input.

    Attributes:
        size: of the input as it is read: with zeros between its values where it is transposed.
        out: of the output.
        step: between positions that neighbours of the output read.
        taps: for each number of the kernel, its offset in the input.
    """

    size: int
    out: int
    step: int
    taps: tuple[int, ...]

    @property
    def direct(self) -> bool:
        """Whether the input is read where it lies."""
        return self.step == 1 and self.size == self.out

    @property
    def low(self) -> int:
        """The least offset within a phase, not above 0."""
        return min(0, *(tap // self.step for tap in self.taps))

    @property
    def high(self) -> int:
        """The largest offset within a phase, not below 0."""
        return max(0, *(tap // self.step for tap in self.taps))

    @property
    def extent(self) -> int:
        """Positions beside the output's that its rows must have room for."""
        real = max(-(-(self.size - phase) // self.step) for phase in range(self.step))
        return max(self.high, min(real, self.out + self.high) - self.low - self.out, -self.low)


@dataclass(frozen=True)
class Geometry:
    """A convolution of planes; of one axis it has one row.

    Attributes:
        rows, columns: its axes.
        spread: floats between values of the input, where it is transposed.
    """

    rows: Axis
    columns: Axis
    spread: tuple[int, int] = (1, 1)

    @property
    def direct(self) -> bool:
        """Whether the input is read where it lies."""
        return self.rows.direct and self.columns.direct and self.spread == (1, 1)


def geometry(call: Call, network: Network) -> Geometry:
    """Return how a convolution reads.

    Raises:
        PassError: it is one of volumes, of several samples, or of computed weights.
    """
    source, made = network.shapes.get(call.operands[0]), network.shapes[call.results[0]]
    weight = network.constants.get(call.operands[1])
    if source is None or weight is None:
        raise call.refuse("of a constant, or whose weights are computed")
    before, after = plane_sizes(source), plane_sizes(made)
    if before is None or after is None:
        raise call.refuse(f"of a tensor {list(source)}: images and sequences of one sample alone")
    kernel = (1,) * (2 - len(weight.shape[2:])) + weight.shape[2:]
    count = len(weight.shape[2:])
    axes = [
        axis_of(call, (number - (2 - count), count), kernel[number], size, out)
        for number, (size, out) in enumerate(zip(before[1:], after[1:], strict=True))
    ]
    spread = (1, 1)
    if call.operator == "ConvTranspose":
        steps = call.numbers("strides", (1,) * (weight.ndim - 2))
        spread = ((1,) * (2 - len(steps)) + steps)[0], steps[-1]
    return Geometry(axes[0], axes[1], spread)


def axis_of(call: Call, place: tuple[int, int], kernel: int, size: int, out: int) -> Axis:
    """Return an axis of a convolution.

    Args:
        call: the convolution.
        place: the number of the axis, and how many it has.
        kernel: its size on the axis.
        size: of the input.
        out: of the output.
    """
    number, count = place
    if number < 0:
        return Axis(1, 1, 1, (0,))
    step = call.numbers("strides", (1,) * count)[number]
    gap = call.numbers("dilations", (1,) * count)[number]
    reach = (kernel - 1) * gap
    if call.operator == "ConvTranspose":
        total = (size - 1) * step + reach + 1 - out
        before = _before(call, number, count, total, late=False)
        taps = tuple(before - i * gap for i in range(kernel))
        return Axis((size - 1) * step + 1, out, 1, taps)
    before = _before(call, number, count, (out - 1) * step + reach + 1 - size, late=True)
    return Axis(size, out, step, tuple(i * gap - before for i in range(kernel)))


def _before(call: Call, number: int, count: int, total: int, *, late: bool) -> int:
    """Return the padding before an axis: stated, or of ``total`` as ``auto_pad`` divides it."""
    auto = call.text("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        return call.numbers("pads", (0,) * 2 * count)[number]
    if auto == "VALID":
        return 0
    total = max(total, 0)
    return total // 2 if (auto == "SAME_UPPER") == late else total - total // 2


def borders(network: Network) -> dict[tuple[int, int], Border]:
    """Return height and width → the zeros around planes that all convolutions there ask for."""
    found: dict[tuple[int, int], Border] = {}
    for call in network.calls:
        volume = len(network.shapes.get(call.operands[0], ())) == 5
        if call.operator not in ("Conv", "ConvTranspose") or volume:
            continue
        how = geometry(call, network)
        key = (how.rows.out, how.columns.out)
        rows = max(how.rows.high, -how.rows.low) if how.direct else 0
        found[key] = found.get(key, Border()).with_(how.columns.extent, rows)
    return found
