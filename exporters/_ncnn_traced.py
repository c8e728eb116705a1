"""Operators of a traced network that pnnx would write as others, without a warning."""

from __future__ import annotations

from typing import Any

_AVERAGES = ("aten::avg_pool1d", "aten::avg_pool2d", "aten::avg_pool3d")
_IMAGE, _KERNEL, _STRIDE, _PADDING, _CEILING = range(5)
"""Places of the inputs of average pooling."""


def require_expressible(graph: Any) -> None:
    """Refuse padding by the other side of the image, and averages over windows that leave it.

    Args:
        graph: the inlined graph of a traced module, whose values know their sizes.

    Raises:
        RuntimeError: there is such an operator.
    """
    for node in graph.findAllNodes("aten::pad"):
        # pnnx keeps the sizes alone, and pads with zeros.
        if any(value.toIValue() == "circular" for value in node.inputs()):
            raise RuntimeError("ncnn has no circular padding")
    for kind in _AVERAGES:
        for node in graph.findAllNodes(kind):
            if _leaves_the_image(list(node.inputs())):
                raise RuntimeError(
                    "ncnn's average pooling with ceil_mode divides by the whole window, also where "
                    "it leaves the image"
                )


def _leaves_the_image(inputs: list[Any]) -> bool:
    """Return whether an average pooling rounds its size up, so that a window is cut."""
    if not inputs[_CEILING].toIValue():
        return False
    kernel = _numbers(inputs[_KERNEL])
    strides, paddings = _numbers(inputs[_STRIDE]) or kernel, _numbers(inputs[_PADDING])
    sizes = inputs[_IMAGE].type().sizes()[-len(kernel) :]
    windows = zip(sizes, kernel, strides, paddings, strict=True)
    return any((size + 2 * pad - width) % stride for size, width, stride, pad in windows)


def _numbers(value: Any) -> list[int]:
    return [one.toIValue() for one in value.node().inputs()]
