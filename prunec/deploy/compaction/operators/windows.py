"""Windows over positions, reductions of positions, and operators that mix values along an axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prunec.deploy.compaction.reading import Call
from prunec.graph.capture.node import Node

_NORMS = {"ReduceL1": 1, "ReduceL2": 2}
_REDUCTIONS = {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "amax", "ReduceMin": "amin"}
_ALL = {"GlobalAveragePool": "mean", "GlobalMaxPool": "amax"}


def pool(call: Call) -> Node | None:
    """Translate MaxPool and AveragePool over the axes after the channels."""
    rank = len(call.made.shape) - 2 if call.proto.output[0] else 0
    if rank not in (1, 2, 3) or len([name for name in call.proto.output if name]) != 1:
        return None
    pads = list(call.attribute("pads") or [0] * 2 * rank)
    same = call.attribute("auto_pad", "NOTSET").startswith("SAME")
    padding = [max(a, b, int(same)) for a, b in zip(pads[:rank], pads[rank:], strict=True)]
    ceil = bool(call.attribute("ceil_mode", 0))
    named = {
        "self": call.node(0),
        "kernel_size": list(call.attribute("kernel_shape")),
        "stride": list(call.attribute("strides") or [1] * rank),
        "padding": padding,
        "ceil_mode": ceil or same,
    }
    if call.proto.op_type == "MaxPool":
        dilation = list(call.attribute("dilations") or [1] * rank)
        return call.call(f"max_pool{rank}d", {**named, "dilation": dilation})
    counted = bool(call.attribute("count_include_pad", 0))
    if ceil and counted:  # some versions also count positions beyond the padding
        named["padding"] = [max(p, 1) for p in padding]
    named |= {"count_include_pad": counted, "divisor_override": None}
    return call.call(f"avg_pool{rank}d", named)


def pool_all(call: Call) -> Node | None:
    """Translate a pooling over all positions."""
    axes = list(range(2, len(call.made.shape)))
    named = {"self": call.node(0), "dim": axes, "keepdim": True}
    return call.call(_ALL[call.proto.op_type], named) if axes else None


def reduction(call: Call) -> Node | None:
    """Translate a reduction over stored axes."""
    axes = call.numbers(1, "axes")
    if axes is None:
        return None
    keep = bool(call.attribute("keepdims", 1))
    named = {"self": call.node(0), "dim": [int(a) for a in axes], "keepdim": keep}
    kind = call.proto.op_type
    if kind in _NORMS:
        named["ord"] = _NORMS[kind]
    return call.call(_REDUCTIONS.get(kind, "linalg_vector_norm"), named) if axes else None


def resize(call: Call) -> Node | None:
    """Translate Resize and Upsample of the axes after the channels."""
    source, made = call.value(0).shape, call.made.shape
    rank = len(made) - 2
    usual = call.attribute("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize"
    if rank not in (1, 2, 3) or source[:2] != made[:2] or not usual:
        return None
    nearest = call.attribute("mode", "nearest") == "nearest"
    names = {1: "linear1d", 2: "bilinear2d", 3: "trilinear3d"}
    operator = f"upsample_nearest{rank}d" if nearest else f"upsample_{names[rank]}"
    return call.call(operator, {"self": call.node(0), "size": list(made[2:])})


def softmax(call: Call) -> Node | None:
    """Translate a softmax along an axis; before opset 13 it includes all axes after it."""
    rank = len(call.made.shape)
    axis = int(call.attribute("axis", -1 if call.opset >= 13 else 1)) % rank
    axes = [axis] if call.opset >= 13 else list(range(axis, rank))
    operator = "softmax" if call.proto.op_type == "Softmax" else "log_softmax"
    return call.call(operator, {"self": call.node(0), "dim": axes[0] if axes[1:] == [] else axes})


def depth_to_space(call: Call) -> Node | None:
    """Translate a pixel shuffle (mode CRD: the channels of one pixel block are adjacent)."""
    if call.attribute("mode", "DCR") != "CRD":
        return None
    named = {"self": call.node(0), "upscale_factor": int(call.attribute("blocksize"))}
    return call.call("pixel_shuffle", named)


TRANSLATIONS: Mapping[str, Callable[[Call], Node | None]] = {
    "MaxPool": pool, "AveragePool": pool, "Resize": resize, "Upsample": resize,
    "DepthToSpace": depth_to_space,
    "Softmax": softmax, "LogSoftmax": softmax,
    **dict.fromkeys(_ALL, pool_all),
    **dict.fromkeys((*_REDUCTIONS, *_NORMS), reduction),
}  # fmt: skip
