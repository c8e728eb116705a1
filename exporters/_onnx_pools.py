"""Pooling that rounds its output up, as torch does: a window that starts in the right padding is
left out.

ONNX has such a window, or has not, depending on the opset and on the reader. So where torch leaves
one out, the file states pads with which the windows fit exactly, and rounds down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir

from prunec.errors import PassError

_POOLS = frozenset({"MaxPool", "AveragePool"})


def leave_out_windows(model: onnx_ir.Model) -> None:
    """Rewrite each pooling of which torch has fewer windows than ONNX.

    Raises:
        PassError: no pads of ONNX express the pooling.
    """
    for node in model.graph.all_nodes():
        if node.op_type in _POOLS and _integer(node, "ceil_mode", 0):
            axes = _axes(node)
            if axes is not None and any(axis.leaves_out for axis in axes):
                _rewrite(node, axes)


@dataclass(frozen=True)
class _Axis:
    """Pooling along one spatial axis; ``made`` is torch's number of windows."""

    size: int
    made: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def reach(self) -> int:
        """Positions from the first to the last tap of a window."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def leaves_out(self) -> bool:
        """Whether ONNX's formula, rounded up, counts more windows."""
        return self.rounded_up(self.after) > self.made

    def rounded_up(self, after: int) -> int:
        """Return ONNX's number of windows with padding ``after`` the last position."""
        room = self.size + self.before + after - self.reach
        return -(-room // self.stride) + 1

    @property
    def needed(self) -> int:
        """Padding after the last position that the last window reaches; none where it ends
        before.
        """
        end = (self.made - 1) * self.stride + self.reach
        return max(0, end - self.size - self.before)


def _rewrite(node: onnx_ir.Node, axes: Sequence[_Axis]) -> None:
    # A mean that counts its padding counts it as far as the operator states it, no further.
    counted = node.op_type == "AveragePool" and _integer(node, "count_include_pad", 0)
    if all(axis.needed <= (axis.after if counted else axis.kernel - 1) for axis in axes):
        after, ceil = [axis.needed for axis in axes], 0
    else:
        after = [axis.needed if axis.leaves_out else axis.after for axis in axes]
        ceil = 1
        if any(axis.rounded_up(pad) != axis.made for axis, pad in zip(axes, after, strict=True)):
            raise PassError(
                f"ONNX cannot express the windows of {node.op_type} at {node.name}: along one "
                "axis the last one is left out, along another one it reaches beyond the padding",
                remedy="Leave ceil_mode out, and pad the input (torch.nn.functional.pad).",
            )
    pads = [*(axis.before for axis in axes), *after]
    node.attributes["pads"] = onnx_ir.AttrInt64s("pads", pads)
    node.attributes["ceil_mode"] = onnx_ir.AttrInt64("ceil_mode", ceil)


def _axes(node: onnx_ir.Node) -> list[_Axis] | None:
    """Return the spatial axes of a pooling; None where a size is unknown."""
    given, made = node.inputs[0], node.outputs[0]
    if given is None or given.shape is None or made.shape is None:
        return None
    sizes, windows = list(given.shape)[2:], list(made.shape)[2:]
    if not all(isinstance(size, int) for size in (*sizes, *windows)):
        return None
    count = len(sizes)
    kernel = _integers(node, "kernel_shape", [1] * count)
    strides, dilations = (_integers(node, k, [1] * count) for k in ("strides", "dilations"))
    pads = _integers(node, "pads", [0] * 2 * count)
    columns = zip(
        sizes, windows, kernel, strides, dilations, pads[:count], pads[count:], strict=True
    )
    return [_Axis(*map(int, column)) for column in columns]


def _integer(node: onnx_ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.as_int())


def _integers(node: onnx_ir.Node, name: str, default: Sequence[int]) -> list[int]:
    attribute = node.attributes.get(name)
    return list(default) if attribute is None else list(attribute.as_ints())
