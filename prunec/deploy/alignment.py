"""Alignment of channel counts with the blocks that kernels compute in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx


@dataclass(frozen=True)
class Alignment:
    """Numbers of convolutions whose channels fill blocks of 8 and 16.

    Attributes:
        layers: number of convolutions, without depthwise ones.
        odd: block → number of convolutions with a channel count that is not a multiple of it.
    """

    layers: int
    odd: dict[int, int]


def alignment(path: Path) -> Alignment:
    """Count the convolutions of a file whose channels do not fill blocks of 8 or 16."""
    graph = onnx.load(path, load_external_data=False).graph
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    counts = [
        channels
        for node in graph.node
        if node.op_type == "Conv" and (channels := _channels(sizes.get(node.input[1], ())))
    ]
    odd = {block: sum(any(c % block for c in pair) for pair in counts) for block in (8, 16)}
    return Alignment(len(counts), odd)


def _channels(kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Return the channel counts that a cut decides: none of depthwise kernels, no image
    channels.
    """
    if len(kernel) < 3 or kernel[1] == 1:
        return ()
    return kernel[:1] if kernel[1] <= 4 else kernel[:2]  # up to 4 inputs: an image


def remedy(path: Path) -> str:
    """Return advice for a file that is slower than its budget allows."""
    if path.suffix != ".onnx":
        return "The ONNX form's check reports whether channels fill blocks: compare with it."
    counts = alignment(path)
    for block in (8, 16):
        if counts.odd[block]:
            return (
                f"{counts.odd[block]} of {counts.layers} convolutions have channels that are not a "
                f"multiple of {block}, the block size of kernels: set round_to = 16."
            )
    return "All channels fill blocks of 16: cut more, or measure again on an idle machine."
