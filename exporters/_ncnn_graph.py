"""Graph in an ncnn ``.param`` file: its inputs' sizes, and the activations of one sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ncnn
import numpy as np

from prunec.cost.lifetimes import Flow, Operation
from prunec.errors import PrunecError

_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "ExpandDims", "Noop", "Split", "Dropout"})
_KEYS = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (2, 11, 1, 0)}
"""Number of axes → keys of an Input layer that hold them, outermost first: w 0, h 1, c 2, d 11."""


def with_sizes(text: str, shapes: Sequence[Sequence[int]]) -> str:
    """Write the sizes of the inputs, without the batch, into their layers, as ncnn's own tools do.

    Args:
        text: content of a ``.param`` file.
        shapes: shapes of the inputs in order, batch first.
    """
    left = list(shapes)
    lines = []
    for line in text.splitlines():
        if line.startswith("Input ") and left:
            sizes = left.pop(0)[1:]
            keys = _KEYS.get(len(sizes), ())
            pairs = sorted(zip(keys, sizes, strict=False))
            line = " ".join([line.rstrip(), *(f"{key}={size}" for key, size in pairs)])
        lines.append(line)
    return "\n".join(lines) + "\n"


def ncnn_flow(path: Path, shapes: Sequence[Sequence[int | str | None]]) -> Flow:
    """Return the activations of one sample: a run on zeros shows the size of every value.

    Args:
        path: the ``.param`` file, its weights beside it.
        shapes: shapes of the inputs, batch first.

    Raises:
        PrunecError: the file does not store the sizes of its inputs, or does not run.
    """
    # The first two lines: ncnn's magic number, and the numbers of layers and values.
    rows = [line.split() for line in path.read_text("utf-8").splitlines()[2:]]
    sizes = [[size for size in shape[1:] if isinstance(size, int)] for shape in shapes]
    if not all(sizes):
        raise PrunecError(
            f"{path} does not store the sizes of its inputs", remedy="Export the form again."
        )
    operations: list[Operation] = []
    inputs: list[str] = []
    for kind, name, made, taken, *rest in filter(None, rows):
        values = tuple(rest[: int(made) + int(taken)])
        reads, writes = values[: int(made)], values[int(made) :]
        if kind == "Input":
            inputs += writes
        else:
            operations.append(Operation(name, kind, reads, writes))
    read = {value for operation in operations for value in operation.reads}
    outputs = [v for o in operations for v in o.writes if v not in read]
    every = [*inputs, *(value for operation in operations for value in operation.writes)]
    held = _sizes_of(path, every, inputs, sizes)
    views = {
        view: op.reads[0]
        for op in operations
        if op.operator in _VIEWS
        for view in op.writes
        if op.reads
    }
    return Flow(tuple(inputs), tuple(outputs), tuple(operations), held, views)


def ncnn_operators(path: Path) -> list[tuple[str, str]]:
    """Return (name, operator) of every layer but the inputs."""
    rows = [line.split() for line in path.read_text("utf-8").splitlines()[2:]]
    return [(row[1], row[0]) for row in rows if len(row) > 1 and row[0] != "Input"]


def _sizes_of(
    path: Path, values: Sequence[str], inputs: Sequence[str], sizes: Sequence[Sequence[int]]
) -> dict[str, int]:
    net = ncnn.Net()
    # Light mode, ncnn's default, frees intermediate values as it runs; here each is read.
    net.opt.num_threads, net.opt.lightmode, net.opt.use_vulkan_compute = 1, False, False
    # Packed layouts and halves would give the sizes of this processor's choice, not float32's.
    net.opt.use_packing_layout = False
    for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{name}", False)
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise PrunecError(f"ncnn cannot load {path}")
    extractor = net.create_extractor()
    for name, shape in zip(inputs, sizes, strict=True):
        # Mat refers to the array's memory, which ends here; clone has its own.
        extractor.input(name, ncnn.Mat(np.zeros(shape, np.float32)).clone())
    held = {}
    for value in values:
        wrong, made = extractor.extract(value)
        if wrong:
            raise PrunecError(f"ncnn cannot run {path} on inputs of its size")
        held[value] = int(np.array(made).nbytes)
    return held
