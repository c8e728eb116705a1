"""Says why a shipped file is slower than it must be: channels that do not fill blocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx


@dataclass(frozen=True)
class Alignment:
    """How the channels of the convolutions fit blocks of 8 and 16.

    Attributes:
        layers: convolutions with regular channels (the input's own and depthwise are left out).
        odd: block → how many of them have a channel count that is no multiple of it.
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
    """Return the counts that a cut decides: not those of depthwise kernels or of images."""
    if len(kernel) < 3 or kernel[1] == 1:
        return ()
    return kernel[:1] if kernel[1] <= 4 else kernel[:2]


def remedy(path: Path) -> str:
    """Return what makes a file faster that is slower than its dense network."""
    if path.suffix != ".onnx":
        return "Of the ONNX form it is told whether channels fill blocks: compare with that."
    found = alignment(path)
    for block in (8, 16):
        if found.odd[block]:
            return (
                f"{found.odd[block]} of {found.layers} convolutions have channels that are no "
                f"multiple of {block}, which kernels work on in blocks: set round_to = 16."
            )
    return "All channels fill blocks of 16: cut more, or measure again on an idle machine."
