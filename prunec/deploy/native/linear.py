"""Linear layers, sparse or in panels of 32 outputs, and products of computed matrices."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from prunec.deploy.native.builder import Builder, Fields, Place, Work
from prunec.deploy.native.layout import RANK, Layout
from prunec.deploy.native.packing import MOST_COLUMNS, compressed, panels
from prunec.deploy.native.reading import Call
from prunec.wording import percent

SPARSE_BELOW = 0.5
"""Share of nonzero weights below which a linear layer of few rows uses the sparse kernel.

Both kernels wait for memory there: a nonzero weight alone takes five bytes, one of a panel four.
"""
SPARSE_ROWS_BELOW, _FEW_ROWS = 0.07, 2
"""The same for more rows, which share a panel's weights: `tests/bench/native_kernels.py`."""


def add_linear(
    builder: Builder, call: Call, place: Place, weight: np.ndarray, bias: np.ndarray
) -> None:
    """Append a linear layer of one row; ``weight`` is [outputs, inputs]."""
    inputs = weight.shape[1]
    rows = (1, inputs, weight.shape[0])
    add_rows(builder, call, (place, rows), weight, bias)


def add_rows(
    builder: Builder,
    call: Call,
    source: tuple[Place, tuple[int, int, int]],
    weight: np.ndarray,
    bias: np.ndarray,
) -> None:
    """Append a linear layer.

    Args:
        builder: the program.
        call: the node.
        source: first row, then (number of rows, input stride, output stride) in floats.
        weight: [outputs, inputs].
        bias: [outputs].
    """
    name, (place, (rows, in_step, out_step)) = call.results[0], source
    buffer, data = builder.new(name), builder.data
    live = float(np.count_nonzero(weight)) / max(weight.size, 1)
    bound = SPARSE_BELOW if rows <= _FEW_ROWS else SPARSE_ROWS_BELOW
    fits = ["linear", *(["sparse linear"] if weight.shape[1] <= MOST_COLUMNS else [])]
    kernel = builder.choose(name, fits[-1] if live < bound else "linear", fits)
    sparse = kernel == "sparse linear"
    fields: Fields = {
        "in": place, "out": Place(buffer, builder.layout(name).lead), "rows": rows,
        "in_step": in_step, "out_step": out_step, "inputs": weight.shape[1],
        "outputs": weight.shape[0], "bias": data.add(bias.astype(np.float32)),
        "sparse": int(sparse), "activation": 0, "low": 0.0, "high": 0.0,
    }  # fmt: skip
    if sparse:
        packed = compressed(weight)
        own, reads = builder.rows(packed, call.name)
        fields |= own
    else:
        fields["values"], reads = data.add(panels(weight)), []
    code = "pn_sparse_linear(&S, w, d);" if sparse else "k->linear(&S, w, d);"
    layer = f"{call.name}: {weight.shape[0]} outputs, {percent(live)} of their weights"
    step = builder.add(code, "pn_linear", fields, [place.buffer, *reads], buffer, layer)
    builder.makers[name] = step
    count = int(np.count_nonzero(weight))
    stored = packed.bytes if sparse else 4 * weight.size
    tensors = 4 * rows * sum(weight.shape)
    step.work = Work(kernel, weight.size, count, count * rows, stored, tensors)
    if rows > 1:
        builder.clean(name)


def gemm(builder: Builder, call: Call) -> None:
    """Append ``Gemm``: ``alpha · A · B + beta · C`` with constant B and C."""
    weight, bias = builder.constant(call, 1), builder.constant(call, 2)
    shape = builder.shape(call.operands[0])
    # A single row or column has the same order when it is transposed.
    if call.whole("transA", 0) and 1 not in shape:
        raise call.refuse("with a transposed input")
    assert weight is not None
    weight = (weight if call.whole("transB", 0) else weight.T) * np.float32(call.real("alpha", 1.0))
    added = np.zeros(1, np.float32) if bias is None else bias * np.float32(call.real("beta", 1.0))
    if added.size not in (1, len(weight)):
        raise call.refuse("with a different bias per row")
    layout = builder.layout(call.operands[0])
    rows = math.prod(shape) // weight.shape[1]
    source = Place(builder.buffer(call.operands[0]), layout.lead)
    bias = np.broadcast_to(added.reshape(-1), len(weight))
    add_rows(builder, call, (source, (rows, weight.shape[1], len(weight))), weight, bias)


def product(builder: Builder, call: Call) -> None:
    """Append ``MatMul``: by a constant matrix, or of two computed tensors."""
    weight = builder.network.constants.get(call.operands[1])
    shape, made = builder.shape(call.operands[0]), call.results[0]
    if weight is not None and weight.ndim == 2 and call.operands[0] in builder.network.shapes:
        before, after = builder.layout(call.operands[0]), builder.layout(made)
        rows = _rows(before), _rows(after)
        if None not in rows:
            source = Place(builder.buffer(call.operands[0]), before.lead)
            count = math.prod(shape[:-1])
            form = (count, rows[0] or 0, rows[1] or 0)
            bias = np.zeros(weight.shape[1], np.float32)
            add_rows(builder, call, (source, form), np.ascontiguousarray(weight.T), bias)
            return
    _computed(builder, call)


def _rows(layout: Layout) -> int | None:
    """Return the floats between rows along the last axis; None if they differ."""
    sizes, steps = layout.sizes, layout.steps
    if sizes[-1] > 1 and steps[-1] != 1:
        return None
    outer = [(s, t) for s, t in zip(sizes[:-1], steps[:-1], strict=True) if s != 1]
    for (_, step), (size, inner) in pairwise(outer):
        if step != size * inner:
            return None
    return outer[-1][1] if outer else sizes[-1]


def _computed(builder: Builder, call: Call) -> None:
    name = call.results[0]
    views = [builder.values(operand) for operand in call.operands]
    if any(len(view.sizes) < 2 for _, view in views):
        raise call.refuse("of a vector")
    buffer = builder.new(name)
    out = builder.layout(name).view
    batch = out.sizes[:-2]
    if len(batch) > RANK:
        raise call.refuse(f"of {len(out.sizes)} axes")
    missing = RANK - len(batch)
    steps = {}
    for key, (_, view) in zip("ab", views, strict=True):
        own = (0,) * (len(batch) - len(view.sizes) + 2) + tuple(
            0 if size == 1 else step
            for size, step in zip(view.sizes[:-2], view.steps[:-2], strict=True)
        )
        steps[key] = (0,) * missing + own
    (a_buffer, a), (b_buffer, b) = views
    fields: Fields = {
        "a": Place(a_buffer, a.at), "b": Place(b_buffer, b.at), "out": Place(buffer, out.at),
        "batch": (1,) * missing + batch, "a_batch": steps["a"], "b_batch": steps["b"],
        "out_batch": (0,) * missing + out.steps[:-2],
        "rows": out.sizes[-2], "columns": out.sizes[-1], "inner": a.sizes[-1],
        "a_row": a.steps[-2], "a_step": a.steps[-1], "b_step": b.steps[-2],
        "b_column": b.steps[-1], "out_row": out.steps[-2], "out_column": out.steps[-1],
    }  # fmt: skip
    reads = [a_buffer, b_buffer]
    builder.add("pn_product(&S, w);", "pn_product", fields, reads, buffer, call.name)
    builder.clean(name)
