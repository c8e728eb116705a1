"""What a runner promises: it opens a file, runs batches, times it, says what it is.

A runner is a runtime on a device: this machine, an emulated one, a board. It is one file in
``prunec/deploy/runners``; nothing registers it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from prunec.deploy.timing import Latency, interleaved
from prunec.errors import PrunecError

Batch = Sequence[np.ndarray]
"""The inputs of one run in order, batch first."""
Sizes = tuple[int | str | None, ...]
"""Sizes of an input; a name or None stands for a dynamic one."""


@dataclass(frozen=True)
class Identity:
    """What ran a file.

    Attributes:
        name: of the runtime.
        version: of the runtime.
        device: what it ran on, with what is said of threads and precision.
    """

    name: str
    version: str
    device: str


class LoadedFile(ABC):
    """A file that a runner has opened."""

    @property
    @abstractmethod
    def input_shapes(self) -> Sequence[Sizes]:
        """Sizes of the inputs."""

    @abstractmethod
    def run(self, batches: Iterable[Batch]) -> Iterator[list[np.ndarray]]:
        """Return all outputs of each batch, in order.

        A runner here takes a batch when its outputs are asked for; one that reaches a device may
        take all of them first, to reach it once.

        Raises:
            PrunecError: the file does not take these inputs.
        """

    @property
    def layers(self) -> Mapping[str, int] | None:
        """How many layers of the loaded file run as ``integer`` and as ``float``; None: untold."""
        return None

    def time(self, dense: LoadedFile, *, batch: int = 1, rounds: int = 31) -> Latency:
        """Measure this file against another one of the same runner, in turns, in this process.

        A runner that reaches a device overrides it, and measures there.

        Args:
            dense: the file of the dense network.
            batch: samples a run.
            rounds: how many pairs of blocks, at most.

        Raises:
            PrunecError: an input has a dynamic size besides its batch, or a file does not run.
        """
        return interleaved(_once(self, batch), _once(dense, batch), rounds=rounds)


@dataclass(frozen=True)
class Runner(ABC):
    """A runtime on a device, a frozen value; its fields are how it runs.

    ``suffixes`` are those of the files that it opens.
    """

    suffixes: ClassVar[frozenset[str]]

    @classmethod
    def runner_name(cls) -> str:
        """The name of the runner: ``QemuAarch64`` is ``qemu-aarch64``, as its file."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()

    @property
    @abstractmethod
    def identity(self) -> Identity:
        """What it is."""

    @abstractmethod
    def open(self, path: Path) -> LoadedFile:
        """Return a file, loaded.

        Raises:
            PrunecError: it cannot be loaded.
        """


def samples_of(
    inputs: Batch, shapes: Sequence[Sizes], run: Callable[[Batch], list[np.ndarray]]
) -> list[np.ndarray]:
    """Return the outputs of a batch that a file of one sample answers, sample by sample.

    Args:
        inputs: batch first, but for one that has the very sizes that the file says.
        shapes: the file's.
        run: takes inputs of one sample.
    """
    count = max((len(x) for x in inputs if x.ndim), default=1)
    whole = [count > 1 and x.shape == tuple(s) for x, s in zip(inputs, shapes, strict=True)]
    found = [
        run([x if all_of else x[i : i + 1] for x, all_of in zip(inputs, whole, strict=True)])
        for i in range(count)
    ]
    return [np.concatenate(outputs) for outputs in zip(*found, strict=True)]


def _once(loaded: LoadedFile, batch: int) -> Callable[[], object]:
    """Return the run of one batch of noise."""
    generator = np.random.default_rng(0)
    inputs = [
        generator.standard_normal(_sizes(shape, batch), dtype=np.float32)
        for shape in loaded.input_shapes
    ]
    return lambda: next(loaded.run([inputs]))


def _sizes(shape: Sizes, batch: int) -> tuple[int, ...]:
    if not shape:
        return ()
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    if len(sizes) != len(shape) - 1:
        raise PrunecError(
            f"the file has an input of dynamic size {shape}: its latency is not one number",
            remedy="Export with fixed sizes but for the batch.",
        )
    first = shape[0] if isinstance(shape[0], int) else batch
    return (first, *sizes)
