"""The batch axis of a network for pnnx: its inputs are marked, and the marks are removed again.

ncnn has no batch axis. pnnx drops that of a value if it can follow the value to a layer that it
knows to take a batch, such as a convolution. A network without such a layer would keep the axis as
one of the sample: outputs would have an axis too many, and a mean would be over other axes. Max
pooling is such a layer, and pooling over single values changes none. Vectors are padded by nothing
instead: pnnx takes a pooling of theirs for one of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

_POOLED = {3: nn.MaxPool1d, 4: nn.MaxPool2d, 5: nn.MaxPool3d}
"""Number of axes of an input, with the batch → pooling that takes it."""
_PADDING = "Padding"
POOLINGS = frozenset({"Pooling", "Pooling1D", "Pooling3D"})
_KERNELS_AND_STRIDES = ("1", "11", "21", "2", "12", "22")
_WHOLE = ("4", "7")  # global and adaptive pooling


class BatchFirst(nn.Module):
    """A network whose inputs of numbers each pass through a layer that changes none."""

    def __init__(self, module: nn.Module, example: Sequence[Tensor]) -> None:
        super().__init__()
        self.module = module
        self.marks = nn.ModuleList(map(_mark, example))

    def forward(self, *inputs: Tensor) -> object:
        """Return what the network returns."""
        return self.module(*(mark(x) for mark, x in zip(self.marks, inputs, strict=True)))


def _mark(x: Tensor) -> nn.Module:
    # Integers are indices, which pnnx follows to a layer that looks them up.
    if not x.is_floating_point():
        return nn.Identity()
    if x.dim() == 2:
        return nn.ConstantPad1d(0, 0.0)
    return _POOLED[x.dim()](1) if x.dim() in _POOLED else nn.Identity()


def without_marks(text: str) -> str:
    """Return a ``.param`` file without the layers that read an input and change no value.

    One whose value no other layer reads stays: its value is an output of the network.
    """
    magic, _, *lines = text.splitlines()
    rows = [line.split() for line in lines if line.strip()]
    inputs = {row[-1] for row in rows if row[0] == "Input"}
    read = {value for row in rows for value in row[4 : 4 + int(row[2])]}
    marks = [row for row in rows if _is_mark(row) and row[4] in inputs and row[5] in read]
    renamed = {row[5]: row[4] for row in marks}
    kept = [row for row in rows if row not in marks]
    for row in kept:
        ends = 4 + int(row[2])
        row[4:ends] = [renamed.get(value, value) for value in row[4:ends]]
    made = sum(int(row[3]) for row in kept)
    text_of = [f"{row[0]:<24} {row[1]:<24} {' '.join(row[2:])}" for row in kept]
    return "\n".join([magic, f"{len(kept)} {made}", *text_of]) + "\n"


def _is_mark(row: Sequence[str]) -> bool:
    """Return whether a layer pads by nothing, or takes the maximum over single values."""
    known = dict(pair.split("=", 1) for pair in row[6:] if "=" in pair)
    if row[0] == _PADDING:
        return all(float(value) == 0 for value in known.values())
    if row[0] not in POOLINGS:
        return False
    sizes = {known.get(key, "1") for key in _KERNELS_AND_STRIDES}
    whole = any(known.get(key, "0") != "0" for key in _WHOLE)
    return known.get("0", "0") == "0" and sizes == {"1"} and not whole
