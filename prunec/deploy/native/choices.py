"""Selection, gather and scatter: by conditions, by constant indices, by magnitude."""

from __future__ import annotations

import numpy as np

from prunec.deploy.native.builder import Builder, Fields, Place
from prunec.deploy.native.layout import RANK, View, joined, padded
from prunec.deploy.native.reading import Call
from prunec.deploy.native.windows import rows_of


def where(builder: Builder, call: Call) -> None:
    """Append ``Where``: an element-wise choice between two tensors."""
    _chosen(builder, call, [builder.repeated(each, call.results[0]) for each in call.operands])


def triangle(builder: Builder, call: Call) -> None:
    """Append ``Trilu``: a matrix with zeros above or below one of its diagonals."""
    given, name = builder.constant(call, 1), call.results[0]
    number = 0 if given is None else int(given.reshape(()))
    source = builder.values(call.operands[0])
    sizes = builder.shape(name)
    cut = np.triu if call.whole("upper", 1) else np.tril
    kept = builder.stored(cut(np.ones(sizes[-2:], np.float32), number))
    outer = (0,) * (len(sizes) - 2)
    zero = builder.stored(np.zeros(1))
    mask, none = View(sizes, (*outer, sizes[-1], 1)), View(sizes, (0,) * len(sizes))
    _chosen(builder, call, [(kept, mask), source, (zero, none)])


def _chosen(builder: Builder, call: Call, given: list[tuple[str, View]]) -> None:
    """Append ``c ? a : b`` element by element, for ``given`` = (c, a, b)."""
    name = call.results[0]
    made, out = builder.new(name), builder.layout(name).view
    sizes, steps = joined(out.sizes, [view.steps for view in (*(v for _, v in given), out)])
    if len(sizes) > RANK:
        raise call.refuse(f"of {len(sizes)} axes that cannot be merged")
    fields: Fields = {"sizes": padded(sizes, steps[0])[0]}
    views = [*given, (made, out)]
    for key, (buffer, view), own in zip(("c", "a", "b", "out"), views, steps, strict=True):
        fields[key], fields[f"{key}_steps"] = Place(buffer, view.at), padded(sizes, own)[1]
    reads = [buffer for buffer, _ in given]
    builder.add("pn_where(&S, w);", "pn_choice", fields, reads, made, call.name)
    builder.clean(name)


def tiled(builder: Builder, call: Call) -> None:
    """Append ``Tile``: a tensor repeated as a whole along its axes."""
    times = builder.constant(call, 1)
    assert times is not None
    name, (buffer, view) = call.results[0], builder.values(call.operands[0])
    made, out = builder.new(name), builder.layout(name).view
    repeated = [int(count) for count in times]
    # Each axis becomes two, repetitions and values; a stride of 0 repeats.
    pairs = list(zip(repeated, view.sizes, strict=True))
    sizes = tuple(number for pair in pairs for number in pair)
    given = tuple(number for step in view.steps for number in (0, step))
    wanted = tuple(
        number
        for size, step in zip(view.sizes, out.steps, strict=True)
        for number in (size * step, step)
    )
    builder.move(call, (buffer, View(sizes, given, view.at)), (made, View(sizes, wanted, out.at)))
    builder.clean(name)


def positions(view: View) -> np.ndarray:
    """Return the offset of every value in its buffer, in floats; the shape is the view's."""
    offsets = np.full((1,) * len(view.sizes), view.at, np.int64)
    for axis, (size, step) in enumerate(zip(view.sizes, view.steps, strict=True)):
        along = np.arange(size).reshape([-1 if i == axis else 1 for i in range(len(view.sizes))])
        offsets = offsets + along * step
    return offsets


def picked(builder: Builder, call: Call) -> None:
    """Append a gather with constant indices of several axes."""
    name, numbers = call.results[0], builder.constant(call, 1)
    assert numbers is not None
    buffer, view = builder.values(call.operands[0])
    place = positions(view)
    if call.operator == "GatherND":
        if call.whole("batch_dims", 0):
            raise call.refuse("with batch_dims")
        # The last axis of the numbers holds an index for each axis of the data.
        chosen = place[tuple(np.moveaxis(numbers, -1, 0))]
    elif call.operator == "GatherElements":
        chosen = np.take_along_axis(place, _counted(call, numbers, view), call.whole("axis", 0))
    else:
        chosen = np.take(place, _counted(call, numbers, view), call.whole("axis", 0))
    made, out = builder.new(name), builder.layout(name).view
    _placed(builder, call, (buffer, chosen), (made, positions(out)))
    builder.clean(name)


def _counted(call: Call, numbers: np.ndarray, view: View) -> np.ndarray:
    size = view.sizes[call.whole("axis", 0) % len(view.sizes)]
    return np.where(numbers < 0, numbers + size, numbers)


def put(builder: Builder, call: Call) -> None:
    """Append ``ScatterND`` or ``ScatterElements`` with constant indices; values replace or add."""
    how = call.text("reduction", "none")
    if how not in ("none", "add"):
        raise call.refuse(f"by {how}")
    name, numbers = call.results[0], builder.constant(call, 1)
    assert numbers is not None
    given, updates = builder.values(call.operands[0]), builder.values(call.operands[2])
    made, out = builder.new(name), builder.layout(name).view
    builder.move(call, given, (made, out))
    place = positions(out)
    if call.operator == "ScatterND":
        target = place[tuple(np.moveaxis(numbers, -1, 0))]
    else:
        axis = call.whole("axis", 0)
        inside = tuple(slice(size) for size in numbers.shape)
        own = np.indices(numbers.shape)
        own[axis] = _counted(call, numbers, out)
        target = place[tuple(own)]
        updates = updates[0], View(place[inside].shape, updates[1].steps, updates[1].at)
    source = updates[0], positions(updates[1])
    _placed(builder, call, source, (made, target), adds=how == "add")
    builder.clean(name)


def folded(builder: Builder, call: Call) -> None:
    """Append ``Col2Im``: windows summed at their positions in an image."""
    name, (buffer, view) = call.results[0], builder.values(call.operands[0])
    image, block = builder.constant(call, 1), builder.constant(call, 2)
    assert image is not None
    assert block is not None
    if len(image) != 2:
        raise call.refuse(f"of {len(image)} axes")
    step, gap = (call.numbers(key, (1, 1)) for key in ("strides", "dilations"))
    pads = call.numbers("pads", (0,) * 4)
    made, out = builder.new(name), builder.layout(name).view
    counts = [
        (int(image[i]) + pads[i] + pads[i + 2] - gap[i] * (int(block[i]) - 1) - 1) // step[i] + 1
        for i in range(2)
    ]
    rows, columns = (
        np.add.outer(np.arange(int(block[i])) * gap[i], np.arange(counts[i]) * step[i]) - pads[i]
        for i in range(2)
    )
    target = _targets(positions(out)[0], rows, columns)
    # PN_FILL ignores what it reads: one value for all positions.
    still = View(out.sizes, (0,) * len(out.sizes), out.at)
    builder.walk(call, "PN_FILL", [(made, still)], (made, out))
    source = positions(view).reshape(-1)
    inside = target.reshape(-1) >= 0
    destination = (made, target.reshape(-1)[inside])
    _placed(builder, call, (buffer, source[inside]), destination, adds=True)
    builder.clean(name)


def _targets(place: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the offset that every value of the windows is added to; −1 in the padding.

    Args:
        place: offsets of the image, [C, H, W].
        rows: image rows, [kernel height, windows down].
        columns: image columns, [kernel width, windows across].

    Returns:
        [C, kernel height, kernel width, windows down, windows across].
    """
    y, x = rows[:, None, :, None], columns[None, :, None, :]
    inside = (y >= 0) & (y < place.shape[1]) & (x >= 0) & (x < place.shape[2])
    # Clipped so that the lookup succeeds; what lies in the padding becomes −1 below.
    own = place[:, np.clip(y, 0, place.shape[1] - 1), np.clip(x, 0, place.shape[2] - 1)]
    offsets: np.ndarray = np.where(inside, own, -1)
    return offsets


def _placed(
    builder: Builder,
    call: Call,
    source: tuple[str, np.ndarray],
    out: tuple[str, np.ndarray],
    *,
    adds: bool = False,
) -> None:
    (buffer, chosen), (made, target) = source, out
    fields: Fields = {
        "in": Place(buffer), "out": Place(made), "count": int(chosen.size), "adds": int(adds),
        "from": builder.data.add(chosen.reshape(-1).astype(np.uint32)),
        "to": builder.data.add(target.reshape(-1).astype(np.uint32)),
    }  # fmt: skip
    builder.add("pn_placed(&S, w, d);", "pn_places", fields, [buffer], made, call.name)


def summed(builder: Builder, call: Call) -> None:
    """Append ``CumSum``: the running sum along one axis."""
    axis = builder.constant(call, 1)
    assert axis is not None
    name, (buffer, view) = call.results[0], builder.values(call.operands[0])
    made, out = builder.new(name), builder.layout(name).view
    number = int(axis.reshape(())) % len(view.sizes)
    if call.whole("reverse", 0):
        # Strides below 0 from the last value on: the sum runs from the end.
        view, out = _backwards(view, number), _backwards(out, number)
    fields = rows_of(call, view.sizes, (view.steps, out.steps), {number})
    operation = "PN_RUNNING_BEFORE" if call.whole("exclusive", 0) else "PN_RUNNING"
    fields |= {"in": Place(buffer, view.at), "out": Place(made, out.at), "operation": operation}
    builder.add("pn_along(&S, w, d);", "pn_rows", fields, [buffer], made, call.name)
    builder.clean(name)


def _backwards(view: View, axis: int) -> View:
    steps = tuple(-step if i == axis else step for i, step in enumerate(view.steps))
    return View(view.sizes, steps, view.at + (view.sizes[axis] - 1) * view.steps[axis])


def largest(builder: Builder, call: Call) -> None:
    """Append the largest or smallest values along an axis, in order."""
    if len(call.results) > 1 and not builder.unread(call.results[1]):
        raise call.refuse("that tells positions")
    name, (buffer, view) = call.results[0], builder.values(call.operands[0])
    made, out = builder.new(name), builder.layout(name).view
    axis = call.whole("axis", -1) % len(view.sizes)
    fields = rows_of(call, view.sizes, (view.steps, out.steps), {axis})
    operation = "PN_MOST" if call.whole("largest", 1) else "PN_LEAST_FIRST"
    fields |= {"in": Place(buffer, view.at), "out": Place(made, out.at), "operation": operation}
    fields["kept"] = out.sizes[axis]
    fields["out_inner"] = (0,) * (RANK - 1) + (out.steps[axis],)
    fields["in_inner"] = (0,) * (RANK - 1) + (view.steps[axis],)
    fields["inner"] = (1,) * (RANK - 1) + (view.sizes[axis],)
    builder.add("pn_along(&S, w, d);", "pn_rows", fields, [buffer], made, call.name)
    builder.clean(name)
