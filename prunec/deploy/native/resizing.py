"""Resizing and grid sampling of images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from prunec.deploy.native.builder import Builder, Fields, Place
from prunec.deploy.native.layout import View, contiguous, plane_sizes, rounded
from prunec.deploy.native.reading import Call
from prunec.deploy.native.shapes import moved_along, take

Axes = dict[int, tuple[np.ndarray, np.ndarray]]
"""Axis → (input indices, weights) of every output position, [positions, taps] each."""


def resized(builder: Builder, call: Call) -> None:
    """Append ``Resize``: nearest, linear or cubic interpolation, with or without antialiasing."""
    before, after = (builder.shape(n) for n in (call.operands[0], call.results[0]))
    mode = call.text("mode", "nearest")
    how = call.text("coordinate_transformation_mode", "half_pixel")
    if before[:2] != after[:2] or mode not in ("nearest", "linear", "cubic"):
        raise call.refuse(f"{mode} of {list(before)} to {list(after)}")
    scales, smooth = builder.constant(call, 2), call.whole("antialias", 0)
    places, ratios = {}, {}
    for axis in range(2, len(before)):
        size, out = before[axis], after[axis]
        scale = float(scales[axis]) if scales is not None and scales.size else out / size
        places[axis], ratios[axis] = _places(call, how, (size, out, scale)), scale
    if mode == "nearest":
        rounding = call.text("nearest_mode", "round_prefer_floor")
        rows = {a: _nearest(call, x, rounding, before[a]) for a, x in places.items()}
        take(builder, call, rows)
    elif mode == "linear" and plane_sizes(before) is not None and not smooth:
        _mixed(builder, call, places)
    else:
        reach = 1 if mode == "linear" else 2
        share = _linear if mode == "linear" else _cubic(call.real("cubic_coeff_a", -0.75))
        kept = not call.whole("exclude_outside", 0) and not smooth
        axes = {
            axis: _shares(x, (before[axis], min(ratios[axis], 1.0) if smooth else 1.0, reach),
                          share, kept=kept)
            for axis, x in places.items()
            if before[axis] != after[axis]
        }  # fmt: skip
        _weighed(builder, call, axes)


def _linear(x: np.ndarray) -> np.ndarray:
    shares: np.ndarray = np.maximum(1.0 - np.abs(x), 0.0)
    return shares


def _cubic(a: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the cubic convolution kernel as a function of distance.

    Keys: Cubic convolution interpolation for digital image processing (IEEE Trans. ASSP 1981).

    Args:
        a: its parameter: −0.75 in ONNX by default, −0.5 in Keys.
    """

    def share(x: np.ndarray) -> np.ndarray:
        x = np.abs(x)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        shares: np.ndarray = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
        return shares

    return share


def _shares(
    x: np.ndarray,
    form: tuple[int, float, int],
    share: Callable[[np.ndarray], np.ndarray],
    *,
    kept: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return input indices and weights of the interpolation, [positions, taps] each.

    Args:
        x: positions in the input, [positions].
        form: input size; ratio of a reduction, else 1; taps on each side.
        share: weight as a function of distance.
        kept: whether taps outside count as the nearest inside; else their weight is 0.
    """
    size, scale, reach = form
    # Antialiasing stretches the kernel by 1/scale, over more taps.
    count = 2 * int(np.ceil(reach / scale)) + (scale < 1)
    first = np.floor(x - reach / scale).astype(int) + 1
    numbers = first[:, None] + np.arange(count)
    shares = share((numbers - x[:, None]) * scale)
    if not kept:
        shares = np.where((numbers < 0) | (numbers >= size), 0.0, shares)
    if scale < 1 or not kept:
        shares = shares / shares.sum(1, keepdims=True)
    return np.clip(numbers, 0, size - 1), shares


def _weighed(builder: Builder, call: Call, axes: Axes) -> None:
    """Append separable interpolation, one axis after the other."""
    name, (buffer, view) = call.results[0], builder.values(call.operands[0])
    for number, (axis, (numbers, shares)) in enumerate(axes.items()):
        sizes = (*view.sizes[:axis], len(numbers), *view.sizes[axis + 1 :])
        last = number == len(axes) - 1
        made = builder.new(name) if last else builder.scratch(rounded(int(np.prod(sizes))))
        out = builder.layout(name).view if last else View(sizes, contiguous(sizes))
        fields = moved_along(call, (view, out), axis)
        fields |= {"in": Place(buffer, view.at), "out": Place(made, out.at)}
        fields |= {"taps": numbers.shape[1], "shares": builder.data.add(shares.astype(np.float32))}
        fields["numbers"] = builder.data.add(numbers.astype(np.uint32))
        builder.add("pn_shared(&S, w, d);", "pn_shares", fields, [buffer], made, call.name)
        buffer, view = made, out
    if not axes:
        builder.move(call, (buffer, view), (builder.new(name), builder.layout(name).view))
    builder.clean(name)


def sampled(builder: Builder, call: Call) -> None:
    """Append ``GridSample``: an image read at the positions of a grid."""
    mode, outside = call.text("mode", "linear"), call.text("padding_mode", "zeros")
    known = mode in ("linear", "bilinear", "nearest") and outside in ("zeros", "border")
    if not known or len(builder.shape(call.operands[0])) != 4:
        raise call.refuse(f"{mode}, {outside} of {list(builder.shape(call.operands[0]))}")
    name, source = call.results[0], builder.layout(call.operands[0]).planes
    given, (grid, places) = builder.buffer(call.operands[0]), builder.values(call.operands[1])
    buffer = builder.new(name)
    fields: Fields = {
        "out": builder.layout(name), "in": Place(given, source.at), "plane": source.plane,
        "stride": source.stride, "height": source.height, "width": source.width,
        "grid": Place(grid, places.at), "grid_row": places.steps[1],
        "grid_column": places.steps[2], "grid_axis": places.steps[3],
        "nearest": int(mode == "nearest"), "border": int(outside == "border"),
        "corners": call.whole("align_corners", 0),
    }  # fmt: skip
    builder.add("pn_sampled(&S, w);", "pn_sample", fields, [given, grid], buffer, call.name)


def _places(call: Call, how: str, axis: tuple[int, int, float]) -> np.ndarray:
    size, out, scale = axis
    x = np.arange(out, dtype=np.float64)
    if how == "half_pixel" or (how == "pytorch_half_pixel" and out > 1):
        return (x + 0.5) / scale - 0.5
    if how == "pytorch_half_pixel":
        return x * 0
    if how == "align_corners":
        return x * (size - 1) / (out - 1) if out > 1 else x * 0
    if how == "asymmetric":
        return x / scale
    raise call.refuse(f"of coordinates {how}")


def _nearest(call: Call, x: np.ndarray, rounding: str, size: int) -> np.ndarray:
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "floor": np.floor, "ceil": np.ceil,
        "round_prefer_floor": lambda v: np.ceil(v - 0.5),
        "round_prefer_ceil": lambda v: np.floor(v + 0.5),
    }  # fmt: skip
    chosen: np.ndarray = np.clip(ways[rounding](x), 0, size - 1).astype(np.int64)
    return chosen


def _mixed(builder: Builder, call: Call, places: dict[int, np.ndarray]) -> None:
    name, source = call.results[0], builder.layout(call.operands[0]).planes
    given, buffer, data = builder.buffer(call.operands[0]), builder.new(name), builder.data
    fields: Fields = {
        "out": builder.layout(name), "in": Place(given, source.at), "plane": source.plane,
        "stride": source.stride,
    }  # fmt: skip
    for key, axis, size in (("row", -2, source.height), ("column", -1, source.width)):
        x = places.get(len(builder.shape(name)) + axis, np.zeros(1))
        x = np.clip(x, 0, size - 1)
        low = np.floor(x).astype(np.uint32)
        pairs = np.stack([low, np.minimum(low + 1, size - 1)], axis=1)
        fields[f"{key}s"] = data.add(pairs.astype(np.uint32))
        fields[f"{key}_shares"] = data.add((x - low).astype(np.float32))
    builder.add("pn_resized(&S, w, d);", "pn_resize", fields, [given], buffer, call.name)
