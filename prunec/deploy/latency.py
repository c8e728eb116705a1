"""Measures a shipped file against the dense one under onnxruntime, and says why it is slower."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from prunec.deploy.runtime import Session
from prunec.errors import PrunecError

_SECONDS = 6.0
_BLOCK = 0.010
_LARGEST_BLOCK = 50


@dataclass(frozen=True)
class Latency:
    """Time of one batch.

    Attributes:
        shipped_ms: of the shipped file, in milliseconds.
        dense_ms: of the dense file.
        ratio: the first by the second, rounds compared one with one; below 1 is faster.
    """

    shipped_ms: float
    dense_ms: float
    ratio: float


@dataclass(frozen=True)
class Alignment:
    """How the channels of the convolutions fit blocks of 8 and 16.

    Attributes:
        layers: convolutions with regular channels (the input's own and depthwise are left out).
        odd: block → how many of them have a channel count that is no multiple of it.
    """

    layers: int
    odd: dict[int, int]


def compare_latency(
    shipped: Path, dense: Path, *, batch: int = 1, threads: int = 1, rounds: int = 31
) -> Latency:
    """Measure both files in turns.

    A round runs each file in a block of some ten milliseconds and keeps the block's fastest run;
    the file that goes first changes every round. Results are medians over rounds, so neither a
    single interruption nor a slow drift of the machine counts. Takes six seconds at most, plus one
    round.

    Args:
        shipped: the file that ships.
        dense: the export of the dense network.
        batch: samples a run.
        threads: threads within an operator.
        rounds: how many pairs of blocks, at most.

    Raises:
        PrunecError: a file cannot be loaded or run.
    """
    ours, theirs = _Timed(shipped, batch, threads), _Timed(dense, batch, threads)
    deadline = time.perf_counter() + _SECONDS
    pairs: list[tuple[float, float]] = []
    for index in range(rounds):
        if index % 2:
            second = theirs.fastest()
            pairs.append((ours.fastest(), second))
        else:
            pairs.append((ours.fastest(), theirs.fastest()))
        if time.perf_counter() > deadline:
            break
    return Latency(
        shipped_ms=1e3 * statistics.median(a for a, _ in pairs),
        dense_ms=1e3 * statistics.median(b for _, b in pairs),
        ratio=statistics.median(a / b for a, b in pairs),
    )


class _Timed:
    """A file, its input, and how many runs make a block."""

    def __init__(self, path: Path, batch: int, threads: int) -> None:
        self._session = Session(path, threads=threads)
        generator = np.random.default_rng(0)
        self._inputs = [
            generator.standard_normal(_sizes(shape, batch, path), dtype=np.float32)
            for shape in self._session.input_shapes
        ]
        for _ in range(3):
            once = self._run()
        self._runs = max(1, min(_LARGEST_BLOCK, round(_BLOCK / once)))

    def fastest(self) -> float:
        """Return the seconds of the fastest run of a block."""
        return min(self._run() for _ in range(self._runs))

    def _run(self) -> float:
        start = time.perf_counter()
        self._session.run(self._inputs)
        return time.perf_counter() - start


def _sizes(shape: tuple[int | str | None, ...], batch: int, path: Path) -> tuple[int, ...]:
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    if len(sizes) != len(shape) - 1:
        raise PrunecError(
            f"{path} has an input of dynamic size {shape}: its latency is not one number",
            remedy="Export with fixed sizes but for the batch.",
        )
    first = shape[0] if isinstance(shape[0], int) else batch
    return (first, *sizes)


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
    found = alignment(path)
    for block in (8, 16):
        if found.odd[block]:
            return (
                f"{found.odd[block]} of {found.layers} convolutions have channels that are no "
                f"multiple of {block}, which kernels work on in blocks: set round_to = 16."
            )
    return "All channels fill blocks of 16: cut more, or measure again on an idle machine."
