"""Geometry of convolutions: input offsets of every kernel tap, and the zeros around planes."""

from __future__ import annotations

from dataclasses import dataclass

from prunec.deploy.native.layout import Border, plane_sizes
from prunec.deploy.native.reading import Call, Network


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution, as a convolution of stride 1 over the phases of its input.

    Attributes:
        size: size of the input as it is read; with zeros between its values if transposed.
        out: size of the output.
        step: stride: input positions between neighbouring outputs.
        taps: input offset of each kernel index.
    """

    size: int
    out: int
    step: int
    taps: tuple[int, ...]

    @property
    def direct(self) -> bool:
        """Whether the convolution reads its input in place."""
        return self.step == 1 and self.size == self.out

    @property
    def low(self) -> int:
        """The smallest offset within a phase, at most 0."""
        return min(0, *(tap // self.step for tap in self.taps))

    @property
    def high(self) -> int:
        """The largest offset within a phase, at least 0."""
        return max(0, *(tap // self.step for tap in self.taps))

    @property
    def outside(self) -> int:
        """Positions that are read before the input or behind it, on the side with more of them."""
        return max(0, -min(self.taps), max(self.taps) + (self.out - 1) * self.step - self.size + 1)

    def consecutive(self, count: int) -> bool:
        """Whether there are ``count`` taps, one beside the other."""
        return self.taps == tuple(range(self.taps[0], self.taps[0] + count))

    @property
    def extent(self) -> int:
        """Positions beyond the output size that each row must have room for."""
        real = max(-(-(self.size - phase) // self.step) for phase in range(self.step))
        return max(self.high, min(real, self.out + self.high) - self.low - self.out, -self.low)


@dataclass(frozen=True)
class Geometry:
    """The geometry of a 2-D convolution; a 1-D convolution has one row.

    Attributes:
        rows, columns: the two axes.
        spread: distance between input values on each axis, in floats: the stride if transposed.
    """

    rows: Axis
    columns: Axis
    spread: tuple[int, int] = (1, 1)

    @property
    def direct(self) -> bool:
        """Whether the convolution reads its input in place."""
        return self.rows.direct and self.columns.direct and self.spread == (1, 1)


def geometry(call: Call, network: Network) -> Geometry:
    """Return the geometry of a convolution.

    Raises:
        PassError: the input is a constant, a volume or several samples, or the weights are
            computed.
    """
    source, made = network.shapes.get(call.operands[0]), network.shapes[call.results[0]]
    weight = network.constants.get(call.operands[1])
    if source is None or weight is None:
        raise call.refuse("of a constant, or with computed weights")
    before, after = plane_sizes(source), plane_sizes(made)
    if before is None or after is None:
        raise call.refuse(f"of a tensor {list(source)}: only images and sequences of one sample")
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


def is_halved(call: Call, network: Network, how: Geometry) -> bool:
    """Return whether a convolution is depthwise, 3×3 or 5×5, with stride 2 and dilation 1."""
    weight, side = network.constants[call.operands[1]], len(how.rows.taps)
    return (
        weight.shape[1] == 1
        and len(weight) == call.whole("group", 1)
        and how.spread == (1, 1)
        and side in (3, 5)
        and all(axis.step == 2 and axis.consecutive(side) for axis in (how.rows, how.columns))
        and (how.rows.out, how.columns.out) != (1, 1)
    )


def axis_of(call: Call, place: tuple[int, int], kernel: int, size: int, out: int) -> Axis:
    """Return one axis of a convolution.

    Args:
        call: the convolution.
        place: index of the axis, and number of axes.
        kernel: kernel size on the axis.
        size: input size.
        out: output size.
    """
    number, count = place
    # A 1-D convolution has a single row.
    if number < 0:
        return Axis(1, 1, 1, (0,))
    step = call.numbers("strides", (1,) * count)[number]
    gap = call.numbers("dilations", (1,) * count)[number]
    reach = (kernel - 1) * gap
    if call.operator == "ConvTranspose":
        # The whole output is longer than the wanted one by what the padding takes away.
        total = (size - 1) * step + reach + 1 - out
        before = _before(call, number, count, total, late=False)
        # A convolution over the input with zeros between its values, the kernel turned round.
        taps = tuple(before - i * gap for i in range(kernel))
        return Axis((size - 1) * step + 1, out, 1, taps)
    before = _before(call, number, count, (out - 1) * step + reach + 1 - size, late=True)
    return Axis(size, out, step, tuple(i * gap - before for i in range(kernel)))


def _before(call: Call, number: int, count: int, total: int, *, late: bool) -> int:
    """Return the padding before an axis: as stated, or the share of ``total`` by ``auto_pad``.

    Args:
        call: the convolution.
        number: index of the axis.
        count: number of axes.
        total: padding on both sides that the output size needs.
        late: whether SAME_UPPER puts an odd zero at the end (Conv) or at the start (ConvTranspose).
    """
    auto = call.text("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        return call.numbers("pads", (0,) * 2 * count)[number]
    if auto == "VALID":
        return 0
    total = max(total, 0)
    return total // 2 if (auto == "SAME_UPPER") == late else total - total // 2


def borders(network: Network) -> dict[tuple[int, int], Border]:
    """Return (height, width) → the zeros that the convolutions of that resolution need."""
    by_size: dict[tuple[int, int], Border] = {}
    for call in network.calls:
        volume = len(network.shapes.get(call.operands[0], ())) == 5
        if call.operator not in ("Conv", "ConvTranspose") or volume:
            continue
        how = geometry(call, network)
        if is_halved(call, network, how):
            key = (how.rows.size, how.columns.size)
            own = how.columns.outside, how.rows.outside
            by_size[key] = by_size.get(key, Border()).with_(*own)
        key = (how.rows.out, how.columns.out)
        # Others read a copy that has its border, or no border at all.
        rows = max(how.rows.high, -how.rows.low) if how.direct else 0
        by_size[key] = by_size.get(key, Border()).with_(how.columns.extent, rows)
    return by_size
