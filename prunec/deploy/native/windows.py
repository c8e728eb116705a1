"""Pooling, reductions, softmax and normalisations."""

from __future__ import annotations

import numpy as np

from prunec.deploy.native.builder import Builder, Fields, Place
from prunec.deploy.native.layout import OVERRUN, Layout, joined, padded, plane_sizes, rounded
from prunec.deploy.native.reading import Call

REDUCTIONS = {
    "ReduceSum": "PN_SUM", "ReduceMean": "PN_MEAN", "ReduceMax": "PN_LARGEST",
    "ReduceMin": "PN_LEAST", "ReduceProd": "PN_PRODUCT", "ReduceSumSquare": "PN_SQUARES",
    "ReduceL2": "PN_LENGTH", "ReduceL1": "PN_SIZES", "GlobalAveragePool": "PN_MEAN",
    "GlobalMaxPool": "PN_LARGEST",
}  # fmt: skip


def pooled(builder: Builder, call: Call) -> None:
    """Append ``MaxPool`` or ``AveragePool``."""
    if len(call.results) > 1 and call.results[1]:
        raise call.refuse("with indices as a second result")
    name, source = call.results[0], call.operands[0]
    if plane_sizes(builder.shape(source)) is None or call.text("auto_pad", "NOTSET") != "NOTSET":
        raise call.refuse(f"of a tensor {list(builder.shape(source))}, or with auto_pad")
    kernel = call.numbers("kernel_shape", ())
    count = len(kernel)
    steps, gaps = (call.numbers(key, (1,) * count) for key in ("strides", "dilations"))
    pads = call.numbers("pads", (0,) * 2 * count)
    planes, given = builder.layout(source).planes, builder.buffer(source)
    buffer = builder.new(name)
    out = builder.layout(name)
    fields: Fields = {
        "out": out, "in": Place(given, planes.at), "plane": planes.plane,
        "stride": planes.stride, "height": planes.height, "width": planes.width,
        "largest": int(call.operator == "MaxPool"),
        "counts_padding": call.whole("count_include_pad", 0),
    }  # fmt: skip
    for axis, numbers in zip("yx", _by_axis(kernel, steps, gaps, pads), strict=True):
        for key, number in zip(("kernel", "step", "gap"), numbers[:3], strict=True):
            fields[f"{key}_{axis}"] = number
    rows, columns = _by_axis(kernel, steps, gaps, pads)
    fields |= {"top": rows[3], "left": columns[3], "padded_bottom": planes.height + rows[4]}
    fields |= {"padded_right": planes.width + columns[4]}
    add_pool(builder, call, fields, given, buffer)


def add_pool(builder: Builder, call: Call, fields: Fields, given: str, buffer: str) -> None:
    """Append the kernel call of a pooling, with scratch memory for two lines.

    A line is as long as what the windows of a row span, or the padded input if that is longer.
    """
    out = fields["out"]
    assert isinstance(out, Layout)
    step, kernel, gap, left, width = (
        whole(fields, key) for key in ("step_x", "kernel_x", "gap_x", "left", "width")
    )
    spanned = (out.width - 1) * step + (kernel - 1) * gap + 1
    size = 2 * rounded(max(spanned, left + width) + 2 * OVERRUN)
    scratch = builder.scratch(size)
    fields |= {"scratch": Place(scratch), "scratch_size": size}
    builder.add("k->pool(&S, w);", "pn_pool", fields, [given, scratch], buffer, call.name)


def whole(fields: Fields, key: str) -> int:
    """Return a field that is a whole number."""
    value = fields[key]
    assert isinstance(value, int)
    return value


def _by_axis(
    kernel: tuple[int, ...], steps: tuple[int, ...], gaps: tuple[int, ...], pads: tuple[int, ...]
) -> list[tuple[int, int, int, int, int]]:
    count = len(kernel)
    axes = [(kernel[i], steps[i], gaps[i], pads[i], pads[i + count]) for i in range(count)]
    return [(1, 1, 1, 0, 0)] * (2 - count) + axes


def reduced(builder: Builder, call: Call) -> None:
    """Append a reduction: sum, mean, product, norm or extreme over axes."""
    name, source = call.results[0], call.operands[0]
    rank = len(builder.shape(source))
    if call.operator.startswith("Global"):
        axes = set(range(2, rank))
    else:
        given = builder.constant(call, 1)
        listed = call.numbers("axes", range(rank) if given is None else given.tolist())
        axes = {int(axis) % rank for axis in listed}
    buffer, view = builder.values(source)
    made = builder.new(name)
    out = builder.layout(name).view
    kept = [axis for axis in range(rank) if axis not in axes]
    full = out.steps
    if len(full) != rank:
        # The output lacks the reduced axes: they get a stride of 0.
        steps = dict(zip(kept, full, strict=True))
        full = tuple(steps.get(axis, 0) for axis in range(rank))
    fields = rows_of(call, view.sizes, (view.steps, full), axes)
    fields |= {"in": Place(buffer, view.at), "out": Place(made, out.at)}
    fields |= {"operation": REDUCTIONS[call.operator]}
    builder.add("pn_reduce(&S, w);", "pn_rows", fields, [buffer], made, call.name)
    builder.clean(name)


def rows_of(
    call: Call,
    sizes: tuple[int, ...],
    steps: tuple[tuple[int, ...], tuple[int, ...]],
    axes: set[int],
) -> Fields:
    """Return sizes and strides of a kernel that reduces ``axes`` at each position of the others.

    Raises:
        PassError: more than RANK axes remain on either side.
    """
    fields: Fields = {}
    for key, numbers in (
        ("outer", [axis for axis in range(len(sizes)) if axis not in axes]),
        ("inner", sorted(axes)),
    ):
        own, (before, after) = joined(
            [sizes[i] for i in numbers], [[each[i] for i in numbers] for each in steps]
        )
        if len(own) > 6:
            raise call.refuse(f"of {len(own)} axes that cannot be merged")
        fields[key] = padded(own, before)[0]
        fields[f"in_{key}"], fields[f"out_{key}"] = padded(own, before)[1], padded(own, after)[1]
    return fields


def along(builder: Builder, call: Call) -> None:
    """Append softmax over one axis, or a layer norm over the last axes."""
    name = call.results[0]
    if len(call.results) > 1 and any(call.results[1:]):
        raise call.refuse("with mean and deviation as further results")
    buffer, view = builder.values(call.operands[0])
    rank = len(view.sizes)
    first = call.whole("axis", -1) % rank
    layer_norm = call.operator == "LayerNormalization"
    axes = set(range(first, rank)) if layer_norm else {first}
    operations = {"Softmax": "PN_SOFTMAX", "LogSoftmax": "PN_LOGSOFTMAX"}
    operation = operations.get(call.operator, "PN_LAYERNORM")
    made = builder.new(name)
    out = builder.layout(name).view
    fields = rows_of(call, view.sizes, (view.steps, out.steps), axes)
    fields |= {"in": Place(buffer, view.at), "out": Place(made, out.at), "operation": operation}
    if layer_norm:
        count = int(np.prod(view.sizes[first:]))
        fields |= _scales(builder, call, count, count)
    builder.add("pn_along(&S, w, d);", "pn_rows", fields, [buffer], made, call.name)
    builder.clean(name)


def _scales(builder: Builder, call: Call, count: int, rows: int) -> Fields:
    fields: Fields = {"epsilon": call.real("epsilon", 1e-5)}
    for place, key, default in ((1, "scale", 1.0), (2, "shift", 0.0)):
        given = builder.constant(call, place)
        values = np.full(count, default) if given is None else given.reshape(-1)
        repeated = np.broadcast_to(values, count) if values.size == 1 else values
        if repeated.size != rows:
            raise call.refuse(f"with {repeated.size} values of {key}, not {rows}")
        fields[key] = builder.data.add(repeated.astype(np.float32))
    return fields


def instance_norm(builder: Builder, call: Call) -> None:
    """Append a normalisation of every channel of one sample."""
    name, (buffer, view) = call.results[0], builder.values(call.operands[0])
    made = builder.new(name)
    out = builder.layout(name).view
    fields = rows_of(call, view.sizes, (view.steps, out.steps), set(range(2, len(view.sizes))))
    fields |= {"in": Place(buffer, view.at), "out": Place(made, out.at), "operation": "PN_ROWNORM"}
    channels = view.sizes[1]
    fields |= _scales(builder, call, channels, channels)
    if view.sizes[0] != 1:
        raise call.refuse("of several samples in one")
    builder.add("pn_along(&S, w, d);", "pn_rows", fields, [buffer], made, call.name)
    builder.clean(name)
