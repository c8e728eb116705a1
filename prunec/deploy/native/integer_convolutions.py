"""Integer convolutions: bytes by signed bytes, four weights of a filter at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from prunec.deploy.native.builder import Fields, Place
from prunec.deploy.native.byte_layout import byte_layout, in_floats, whole_lines
from prunec.deploy.native.convolutions import offset_table
from prunec.deploy.native.filters import Read
from prunec.deploy.native.fours import fours
from prunec.deploy.native.geometry import Geometry, geometry
from prunec.deploy.native.integer_moves import concatenated_bytes, summed_bytes
from prunec.deploy.native.integer_rows import linear, mean
from prunec.deploy.native.integer_sums import integer_sums
from prunec.deploy.native.integers import (
    IntegerBuilder,
    Stored,
    Sums,
    added,
    bounded_sums,
    integer_builder,
    pooled_bytes,
    work_of,
)
from prunec.deploy.native.lowering import OPERATORS, lowered
from prunec.deploy.native.positions import limits
from prunec.deploy.native.quads import in_blocks, is_dense, quads
from prunec.deploy.native.quantised import Kernel, Quantised
from prunec.deploy.native.reading import Call
from prunec.wording import percent


def lower_integers(quantised: Quantised) -> IntegerBuilder:
    """Return the program of an int8 file.

    Raises:
        PassError: an operator, an attribute or one of its forms has no kernel.
    """
    builder = integer_builder(quantised)
    lowered(builder, _OPERATORS)  # type: ignore[arg-type]
    builder.close_all()
    return builder


def _convolution(builder: IntegerBuilder, call: Call) -> None:
    """Append a convolution: of bytes where the file has it so."""
    kernel = builder.quantised.kernels.get(call.operands[1])
    if linear(builder, call):
        return
    tensors = (call.operands[0], call.results[0])
    planes = all(byte_layout(builder.layout(name)) is not None for name in tensors)
    if kernel is None or kernel.values.ndim > 4 or not planes:
        OPERATORS[call.operator](builder, call)
        return
    read = builder.bytes_of(call.operands[0])
    sums = None if read is None else integer_sums(builder, call, kernel, read)
    if read is None or sums is None:
        OPERATORS[call.operator](builder, call)
        return
    _append(builder, call, kernel, read, sums)


def _append(
    builder: IntegerBuilder,
    call: Call,
    kernel: Kernel,
    given: Stored,
    sums: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Append the kernel call of an integer convolution, which has no place for its results yet."""
    name, groups, data = call.results[0], call.whole("group", 1), builder.data
    values = kernel.values.reshape(*kernel.values.shape[:2], -1)
    group_in = given.layout.channels // groups
    layout = builder.layout(name)
    read, shift, lead = _read(builder, call, given, layout.stride)
    dense = is_dense(values)
    if dense:
        read = quads(builder, call, read, lead, (groups, group_in, given.codes.zero))
        shift, channels = 4 * shift, -(-group_in // 4)
    else:
        channels = group_in
    offsets = read.offsets(channels)
    table = offset_table(builder, call, offsets, channels)
    (starts, steps, totals) = sums
    fields: Fields = {
        "in": read.place, "shift": shift, "positions": layout.positions,
        "group_out": len(values) // groups, "group_step": channels * read.channel,
        "offsets": Place(table), "taps": len(offsets),
        "bias": data.add(starts), "totals": data.add(totals), "has_residual": 0,
    }  # fmt: skip
    if dense:
        blocks = in_blocks(values, groups)
        fields["values"], stored = data.add(blocks), blocks.nbytes
    else:
        packed = fours(values.reshape(len(values), -1))
        stored = packed.bytes
        fields["far"] = int(packed.places.dtype == np.uint16)
        fields |= {
            key: data.add(getattr(packed, key)) for key in ("starts", "counts", "places", "values")
        }
    live = percent(np.count_nonzero(values) / max(values.size, 1))
    layer = f"{call.name}: {len(values)} filters, {live} of their weights, as bytes"
    reads = [table, read.place.buffer]
    kind = "quads" if dense else "fours"
    step = builder.add(f"q->{kind}(&S, w, d);", "pn_fours", fields, reads, "", layer)
    step.work = work_of(builder, call, values, kind, stored)
    builder.open[name] = Sums(step, steps)


def _read(builder: IntegerBuilder, call: Call, given: Stored, stride: int) -> tuple[Read, int, int]:
    """Return the bytes that a convolution reads, those before the first one it reads, and those
    before the first plane.
    """
    how = geometry(call, builder.network)
    rows, columns, own = how.rows, how.columns, given.layout
    if how.direct:
        taps = [dy * stride + dx for dy in rows.taps for dx in columns.taps]
        return _from_least(given.buffer, own.plane, taps), own.lead + min(taps), own.lead
    used = sorted({(y % rows.step, x % columns.step) for y in rows.taps for x in columns.taps})
    height = rows.out + rows.high - rows.low
    plane = whole_lines(height * stride + columns.high - columns.low + 64)
    taps = [
        used.index((y % rows.step, x % columns.step)) * plane
        + (y // rows.step) * stride + x // columns.step
        for y in rows.taps for x in columns.taps
    ]  # fmt: skip
    buffer = builder.scratch(in_floats(own.channels * plane * len(used)))
    _split(builder, call, given, buffer, (plane, stride, used, how))
    shift = -rows.low * stride - columns.low + min(taps)
    return _from_least(buffer, plane * len(used), taps), shift, 0


def _from_least(buffer: str, channel: int, taps: list[int]) -> Read:
    least = min(taps)
    return Read(Place(buffer), channel, tuple(tap - least for tap in taps))


def _split(
    builder: IntegerBuilder,
    call: Call,
    given: Stored,
    buffer: str,
    form: tuple[int, int, list[tuple[int, int]], Geometry],
) -> None:
    """Append the step that splits bytes into phases.

    Args:
        builder: the program.
        call: the convolution that reads the phases.
        given: what it splits.
        buffer: buffer of the phases.
        form: bytes of a plane and of a row of a phase, row and column where each phase begins, and
            the geometry.
    """
    (plane, stride, used, how) = form
    rows, columns = how.rows, how.columns
    firsts = [(rows.low * rows.step + y, columns.low * columns.step + x) for y, x in used]
    fields = given.layout.fields("in", given.buffer, given.codes.zero)
    fields |= {
        "out": Place(buffer), "out_plane": plane, "out_stride": stride, "step_y": rows.step,
        "step_x": columns.step, "count": len(used), "rows": rows.out + rows.high - rows.low,
        "columns": min(columns.out + columns.high - columns.low, stride),
        "at": builder.data.add(np.array(firsts, np.int32)),
    }  # fmt: skip
    code = "pn_byte_split(&S, w, d);"
    builder.add(code, "pn_byte_phases", fields, [given.buffer], buffer, call.name)


def _clip(builder: IntegerBuilder, call: Call) -> None:
    if call.results[0] in builder.quantised.codes:
        builder.pair(call)
    else:
        _bounds(builder, call)


def _bounds(builder: IntegerBuilder, call: Call) -> None:
    if not bounded_sums(builder, call, *limits(builder, call)):
        OPERATORS[call.operator](builder, call)


def _add(builder: IntegerBuilder, call: Call) -> bool:
    return added(builder, call) or summed_bytes(builder, call)


def _reshape(builder: IntegerBuilder, call: Call) -> bool:
    return builder.rename(call.operands[0], call.results[0])


def _tried(
    append: Callable[[IntegerBuilder, Call], bool],
) -> Callable[[IntegerBuilder, Call], None]:
    """Return the function that computes in float what ``append`` could not as bytes."""

    def tried(builder: IntegerBuilder, call: Call) -> None:
        if not append(builder, call):
            OPERATORS[call.operator](builder, call)

    return tried


_OPERATORS: Mapping[str, Callable[[IntegerBuilder, Call], None]] = {
    **OPERATORS, "Conv": _convolution, "Clip": _clip, "Relu": _bounds, "Add": _tried(_add),
    "MaxPool": _tried(pooled_bytes), "Concat": _tried(concatenated_bytes),
    **dict.fromkeys(("Gemm", "MatMul"), _tried(linear)),
    **dict.fromkeys(("ReduceMean", "GlobalAveragePool"), _tried(mean)),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"), _tried(_reshape)),
}  # fmt: skip
