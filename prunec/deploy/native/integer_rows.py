"""Integer linear layers, and means of planes: sums of bytes that end in one row."""

from __future__ import annotations

import math

import numpy as np

from prunec.deploy.native.builder import Fields, Place, Work
from prunec.deploy.native.byte_layout import byte_layout, row_layout, whole_lines
from prunec.deploy.native.fours import fours
from prunec.deploy.native.integer_sums import integer_sums
from prunec.deploy.native.integers import IntegerBuilder, Stored, Sums
from prunec.deploy.native.packing import MOST_COLUMNS
from prunec.deploy.native.quantised import Kernel
from prunec.deploy.native.reading import Call
from prunec.wording import percent

_SPARSE_BELOW = 0.25
"""Share of nonzero weights below which a linear layer leaves out its zeros: two bytes for each
weight that stays instead of one for each, and a weight at a time instead of a vector."""
_MOST_POSITIONS = 1 << 22
"""Bytes of a plane whose sum fits 31 bits."""


def linear(builder: IntegerBuilder, call: Call) -> bool:
    """Append ``Gemm`` or ``MatMul`` of bytes; return whether the file has it so."""
    kernel = builder.quantised.kernels.get(call.operands[1])
    own = None if kernel is None else _matrix(builder, call, kernel)
    read = None if own is None else _row(builder, call, *own.values.shape)
    sums = None if own is None or read is None else integer_sums(builder, call, own, read)
    if own is None or read is None or sums is None:
        return False
    _append(builder, call, own, read, sums)
    return True


def _matrix(builder: IntegerBuilder, call: Call, kernel: Kernel) -> Kernel | None:
    """Return weights as [outputs, inputs]; None if their products are not simply added."""
    weight = builder.constant(call, 1)
    assert weight is not None
    turned = call.operator == "MatMul" or (call.operator == "Gemm" and not call.whole("transB", 0))
    if call.operator == "Conv":
        if call.whole("group", 1) != 1 or kernel.values[0, 0].size != 1:
            return None
    elif kernel.values.ndim != 2 or not _plain(builder, call):
        return None
    values, weight = (x.reshape(x.shape[:2]) for x in (kernel.values, weight))
    values, weight = (x.T if turned else x for x in (values, weight))
    # A file may have a scale for each input, which no sum of products can.
    if len(kernel.scales) not in (1, len(values)):
        return None
    steps = np.broadcast_to(kernel.scales, len(values))
    own = Kernel(np.ascontiguousarray(values), steps)
    return own if np.allclose(values * steps[:, None], weight) else None


def _plain(builder: IntegerBuilder, call: Call) -> bool:
    """Whether a call is a product of rows, with one bias for each output."""
    scaled = call.real("alpha", 1.0) != 1.0 or call.real("beta", 1.0) != 1.0
    one = len(call.operands) < 3 or _one_bias(builder, call)
    return one and not scaled and not call.whole("transA", 0)


def _one_bias(builder: IntegerBuilder, call: Call) -> bool:
    bias = builder.constant(call, 2)
    return bias is not None and bias.size == builder.shape(call.results[0])[-1]


def _row(builder: IntegerBuilder, call: Call, outputs: int, inputs: int) -> Stored | None:
    """Return the bytes that a linear layer reads, if it is one row that becomes another."""
    rows = [row_layout(builder.layout(name)) for name in (call.operands[0], call.results[0])]
    sizes = [None if row is None else row.width for row in rows]
    return builder.bytes_of(call.operands[0]) if sizes == [inputs, outputs] else None


def _append(
    builder: IntegerBuilder,
    call: Call,
    kernel: Kernel,
    given: Stored,
    sums: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    name, values, data = call.results[0], kernel.values, builder.data
    (starts, steps, totals), (outputs, inputs) = sums, values.shape
    live = np.count_nonzero(values) / max(values.size, 1)
    sparse = live < _SPARSE_BELOW and inputs <= MOST_COLUMNS
    fields: Fields = {
        "in": Place(given.buffer), "taps": inputs, "group_out": outputs,
        "bias": data.add(starts), "totals": data.add(totals), "has_residual": 0,
    }  # fmt: skip
    if sparse:
        packed = fours(values)
        stored = packed.bytes
        fields["far"] = int(packed.places.dtype == np.uint16)
        fields |= {key: data.add(getattr(packed, key)) for key in ("counts", "places", "values")}
    else:
        full = np.zeros((outputs, whole_lines(inputs)), np.int8)
        full[:, :inputs] = values
        fields["values"], stored = data.add(full), full.nbytes
    code = "pn_sparse_rows(&S, w, d);" if sparse else "q->rows(&S, w, d);"
    layer = f"{call.name}: {outputs} outputs, {percent(live)} of their weights, as bytes"
    step = builder.add(code, "pn_fours", fields, [given.buffer], "", layer)
    count = int(np.count_nonzero(values))
    kind = "sparse rows" if sparse else "rows"
    step.work = Work(kind, values.size, count, count, stored, inputs + outputs)
    builder.open[name] = Sums(step, steps)


def mean(builder: IntegerBuilder, call: Call) -> bool:
    """Append the mean of every plane of bytes; return whether the file has it so."""
    name, source = call.results[0], call.operands[0]
    planes = byte_layout(builder.layout(source))
    of_row = row_layout(builder.layout(name)) is not None
    if not _over_planes(builder, call) or planes is None or not of_row:
        return False
    read = builder.bytes_of(source) if planes.positions <= _MOST_POSITIONS else None
    if read is None:
        return False
    data, count = builder.data, planes.positions
    none = np.array([-read.codes.zero * count], np.int32)
    fields: Fields = {
        "in": Place(read.buffer), "shift": planes.lead, "group_step": planes.plane, "taps": count,
        "group_out": planes.channels, "bias": data.add(none), "has_residual": 0,
    }  # fmt: skip
    code = "pn_means(&S, w, d);"
    step = builder.add(code, "pn_fours", fields, [read.buffer], "", call.name)
    builder.open[name] = Sums(step, np.array([read.codes.scale / (planes.height * planes.width)]))
    return True


def _over_planes(builder: IntegerBuilder, call: Call) -> bool:
    """Whether a call is the mean over all positions of each channel."""
    rank = len(builder.shape(call.operands[0]))
    if call.operator == "GlobalAveragePool":
        return True
    given = builder.constant(call, 1)
    listed = call.numbers("axes", () if given is None else given.tolist())
    axes = {int(axis) % rank for axis in listed}
    return axes == set(range(2, rank)) and math.prod(builder.shape(call.operands[0])[:1]) == 1
