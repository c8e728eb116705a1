"""Operators that move values: reshape, slice, concat, split, transpose, pad, gather."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from prunec.deploy.native.builder import Builder, Fields, Place
from prunec.deploy.native.layout import RANK, View, contiguous, joined, padded, rounded
from prunec.deploy.native.reading import Call


def reshaped(builder: Builder, call: Call) -> None:
    """Append a new shape: the same buffer where values are contiguous, else a copy."""
    name, source = call.results[0], call.operands[0]
    before, after = builder.layout(source), builder.layout(name)
    if (before.bordered, after.bordered) == (False, False) or _same_planes(builder, call):
        builder.buffer(source)
        builder.share(name, source)
        return
    sizes = builder.shape(name)
    given = _refined(builder.layout(source).view, sizes)
    made = _refined(after.view, builder.shape(source))
    if given is None or made is None or given.sizes != made.sizes:
        _by_way_of_a_row(builder, call)
        return
    builder.move(call, (builder.buffer(source), given), (builder.new(name), made))
    builder.clean(name)


def _same_planes(builder: Builder, call: Call) -> bool:
    before, after = builder.layout(call.operands[0]), builder.layout(call.results[0])
    return before.planes == after.planes and before.total == after.total


def _refined(view: View, sizes: tuple[int, ...]) -> View | None:
    """Return a view with its axes split at the boundaries of another shape; None if impossible."""
    # Products of the inner sizes: where an axis of either shape ends.
    ends = {1}
    for each in (view.sizes, sizes):
        count = 1
        for size in reversed(each):
            count *= size
            ends.add(count)
    cuts, count = sorted(ends), 1
    made: list[tuple[int, int]] = []
    for size, step in reversed(list(zip(view.sizes, view.steps, strict=True))):
        inside = [cut for cut in cuts if count <= cut <= count * size]
        if any(b % a for a, b in pairwise(inside)):
            return None
        made += [(b // a, a // count * step) for a, b in pairwise(inside)]
        count *= size
    made.reverse()
    return View(tuple(s for s, _ in made), tuple(t for _, t in made), view.at)


def _by_way_of_a_row(builder: Builder, call: Call) -> None:
    source, name = call.operands[0], call.results[0]
    sizes = builder.shape(source)
    count = int(np.prod(sizes))
    row = builder.scratch(rounded(count))
    builder.move(call, builder.values(source), (row, View(sizes, contiguous(sizes))))
    made = builder.shape(name)
    out = builder.new(name), builder.layout(name).view
    builder.move(call, (row, View(made, contiguous(made))), out)
    builder.clean(name)


def transposed(builder: Builder, call: Call) -> None:
    """Append ``Transpose``: axes in another order."""
    name = call.results[0]
    buffer, view = builder.values(call.operands[0])
    order = call.numbers("perm", tuple(reversed(range(len(view.sizes)))))
    given = View(tuple(view.sizes[i] for i in order), tuple(view.steps[i] for i in order), view.at)
    builder.move(call, (buffer, given), (builder.new(name), builder.layout(name).view))
    builder.clean(name)


def _part(view: View, axis: int, first: int, size: int, step: int = 1) -> View:
    sizes, steps = list(view.sizes), list(view.steps)
    at = view.at + first * steps[axis]
    sizes[axis], steps[axis] = size, steps[axis] * step
    return View(tuple(sizes), tuple(steps), at)


def concatenated(builder: Builder, call: Call) -> None:
    """Append ``Concat``: tensors one after the other along an axis."""
    name = call.results[0]
    axis = call.whole("axis", 0) % len(builder.shape(name))
    given = [builder.values(operand) for operand in call.operands]
    buffer, out, first = builder.new(name), builder.layout(name).view, 0
    for source, view in given:
        size = view.sizes[axis]
        builder.move(call, (source, view), (buffer, _part(out, axis, first, size)))
        first += size
    builder.clean(name)


def split(builder: Builder, call: Call) -> None:
    """Append ``Split``: the parts of a tensor along an axis."""
    buffer, view = builder.values(call.operands[0])
    axis, first = call.whole("axis", 0) % len(view.sizes), 0
    for name in call.results:
        size = builder.shape(name)[axis]
        part = _part(view, axis, first, size)
        builder.move(call, (buffer, part), (builder.new(name), builder.layout(name).view))
        builder.clean(name)
        first += size


def sliced(builder: Builder, call: Call) -> None:
    """Append ``Slice``: a part of a tensor; steps may be negative."""
    name = call.results[0]
    buffer, view = builder.values(call.operands[0])
    starts, ends = builder.constant(call, 1), builder.constant(call, 2)
    axes, steps = builder.constant(call, 3), builder.constant(call, 4)
    assert starts is not None
    assert ends is not None
    axes = np.arange(len(starts)) if axes is None else axes
    steps = np.ones(len(starts), int) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = int(axis) % len(view.sizes)
        # Python clips a slice's bounds as ONNX does.
        first = slice(int(start), int(end), int(step)).indices(view.sizes[place])[0]
        view = _part(view, place, first, builder.shape(name)[place], int(step))
    builder.move(call, (buffer, view), (builder.new(name), builder.layout(name).view))
    builder.clean(name)


def expanded(builder: Builder, call: Call) -> None:
    """Append ``Expand``: a tensor repeated along axes of size 1."""
    name = call.results[0]
    buffer, view = builder.values(call.operands[0])
    sizes = builder.shape(name)
    missing = len(sizes) - len(view.sizes)
    steps = (0,) * missing + tuple(
        0 if size == 1 else step for size, step in zip(view.sizes, view.steps, strict=True)
    )
    out = builder.new(name), builder.layout(name).view
    builder.move(call, (buffer, View(sizes, steps, view.at)), out)
    builder.clean(name)


def padding(builder: Builder, call: Call) -> None:
    """Append ``Pad``: a constant border, or reflected, repeated or wrapped values."""
    mode = call.text("mode", "constant")
    pads, sizes = builder.constant(call, 1), builder.shape(call.operands[0])
    axes = builder.constant(call, 3)
    assert pads is not None
    numbers = range(len(sizes)) if axes is None else [int(a) % len(sizes) for a in axes]
    around = {axis: (int(pads[i]), int(pads[i + len(pads) // 2])) for i, axis in enumerate(numbers)}
    if mode == "constant":
        _constant_border(builder, call, around)
        return
    modes = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
    rows = {
        axis: np.pad(np.arange(sizes[axis]), pair, modes[mode])  # type: ignore[call-overload]
        for axis, pair in around.items()
        if any(pair)
    }
    take(builder, call, rows)


def _constant_border(builder: Builder, call: Call, around: dict[int, tuple[int, int]]) -> None:
    name = call.results[0]
    given = builder.constant(call, 2)
    value = 0.0 if given is None else float(given.reshape(()))
    source, view = builder.values(call.operands[0])
    buffer, out = builder.new(name), builder.layout(name).view
    still = View(out.sizes, (0,) * len(out.sizes), out.at)
    builder.walk(call, "PN_FILL", [(buffer, still)], (buffer, out), (value, 0.0))
    for axis, (before, after) in around.items():
        # Negative widths cut values off.
        first, least = max(before, 0), max(-before, 0)
        size = view.sizes[axis] - least - max(-after, 0)
        view, out = _part(view, axis, least, size), _part(out, axis, first, size)
    builder.move(call, (source, view), (buffer, out))
    builder.clean(name)


def gathered(builder: Builder, call: Call) -> None:
    """Append ``Gather`` with constant indices, a list or a scalar."""
    numbers = builder.constant(call, 1)
    assert numbers is not None
    sizes = builder.shape(call.operands[0])
    axis = call.whole("axis", 0) % len(sizes)
    # ONNX counts negative indices from the end.
    own = np.where(numbers < 0, numbers + sizes[axis], numbers)
    if own.ndim == 1:
        take(builder, call, {axis: own})
        return
    if own.ndim:
        raise call.refuse(f"by numbers of {own.ndim} axes")
    buffer, view = builder.values(call.operands[0])
    part = _part(view, axis, int(own), 1)
    rest = [i for i in range(len(sizes)) if i != axis]
    chosen = View(tuple(sizes[i] for i in rest), tuple(view.steps[i] for i in rest), part.at)
    name = call.results[0]
    builder.move(call, (buffer, chosen), (builder.new(name), builder.layout(name).view))
    builder.clean(name)


def take(builder: Builder, call: Call, rows: dict[int, np.ndarray]) -> None:
    """Append slices at given indices along several axes, one axis after the other."""
    name, (buffer, view) = call.results[0], builder.values(call.operands[0])
    if not rows:
        builder.move(call, (buffer, view), (builder.new(name), builder.layout(name).view))
        builder.clean(name)
        return
    for number, (axis, chosen) in enumerate(rows.items()):
        sizes = (*view.sizes[:axis], len(chosen), *view.sizes[axis + 1 :])
        last = number == len(rows) - 1
        made = builder.new(name) if last else builder.scratch(rounded(int(np.prod(sizes))))
        out = builder.layout(name).view if last else View(sizes, contiguous(sizes))
        _take_one(builder, call, (buffer, view), (made, out), (axis, chosen))
        buffer, view = made, out
    builder.clean(name)


def _take_one(
    builder: Builder,
    call: Call,
    source: tuple[str, View],
    out: tuple[str, View],
    along: tuple[int, np.ndarray],
) -> None:
    (buffer, given), (made, wanted), (axis, chosen) = source, out, along
    fields = moved_along(call, (given, wanted), axis)
    fields |= {"in": Place(buffer, given.at), "out": Place(made, wanted.at)}
    fields["numbers"] = builder.data.add(chosen.astype(np.uint32))
    builder.add("pn_taken(&S, w, d);", "pn_take", fields, [buffer], made, call.name)


def moved_along(call: Call, views: tuple[View, View], axis: int) -> Fields:
    """Return sizes and strides of a gather along an axis; other axes are merged where possible.

    Args:
        call: the node.
        views: the tensors read and written; their sizes differ on ``axis`` only.
        axis: the axis of the gather.

    Raises:
        PassError: more than RANK axes remain.
    """
    given, wanted = views
    before, own_before = joined(wanted.sizes[:axis], [given.steps[:axis], wanted.steps[:axis]])
    after, own_after = joined(
        wanted.sizes[axis + 1 :], [given.steps[axis + 1 :], wanted.steps[axis + 1 :]]
    )
    sizes = (*before, wanted.sizes[axis], *after)
    if len(sizes) > RANK:
        raise call.refuse(f"of {len(sizes)} axes that cannot be merged")
    steps = [(*own_before[i], view.steps[axis], *own_after[i]) for i, view in enumerate(views)]
    return {
        "sizes": padded(sizes, steps[0])[0], "in_steps": padded(sizes, steps[0])[1],
        "out_steps": padded(sizes, steps[1])[1], "axis": RANK - len(sizes) + len(before),
    }  # fmt: skip


def depth_to_space(builder: Builder, call: Call) -> None:
    """Append ``DepthToSpace`` or ``SpaceToDepth``: channels to blocks of positions, or back."""
    side = call.whole("blocksize", 1)
    (buffer, view), name = builder.values(call.operands[0]), call.results[0]
    made = builder.new(name)
    out = builder.layout(name).view
    deep, flat = (view, out) if call.operator == "DepthToSpace" else (out, view)
    first = call.operator == "SpaceToDepth" or call.text("mode", "DCR") == "DCR"
    channels, (height, width) = flat.sizes[1], deep.sizes[2:]
    sizes = (channels, side, side, height, width)
    c, y, x = deep.steps[1:]
    # DCR: channel (i·b + j)·C + c of the deep tensor; CRD: channel c·b² + i·b + j.
    blocks = (channels * side * c, channels * c) if first else (side * c, c)
    deep_view = View(sizes, (c if first else side * side * c, *blocks, y, x), deep.at)
    c, y, x = flat.steps[1:]
    flat_view = View(sizes, (c, y, x, side * y, side * x), flat.at)
    views = (deep_view, flat_view) if deep is view else (flat_view, deep_view)
    builder.move(call, (buffer, views[0]), (made, views[1]))
    builder.clean(name)
