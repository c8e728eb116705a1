"""What a runner promises: it opens a file, runs batches, times it, says what it is.

A runner is a runtime on a device: this machine, an emulated one, a board. It is one file in
``prunec/deploy/runners``; nothing registers it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from prunec.deploy.timing import Latency, Timer, in_turns, timer
from prunec.errors import PrunecError, RecipeError
from prunec.wording import shortened

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


@dataclass(frozen=True)
class LayerWork:
    """What a layer computes in one run.

    Attributes:
        density: the share of its weights that is not zero.
        products: multiply-adds with weights that are not zero.
        bytes: of weights as they are stored, of input and output.
        dense_bytes: the same with all weights, four bytes each.
    """

    density: float
    products: int
    bytes: int
    dense_bytes: int


@dataclass(frozen=True)
class LayerTime:
    """What a layer of a loaded file takes, as the runtime itself measured it.

    Attributes:
        name: of the node of the file that it stems from.
        operator: what runs.
        milliseconds: of one run: the median over runs.
        work: what it computes, where the runner tells.
    """

    name: str
    operator: str
    milliseconds: float
    work: LayerWork | None = None


class LoadedFile(ABC):
    """A file that a runner has opened."""

    @property
    @abstractmethod
    def input_shapes(self) -> Sequence[Sizes]:
        """Sizes of the inputs."""

    @property
    def input_names(self) -> Sequence[str]:
        """Names of the inputs, where the file has any."""
        return [f"input {place}" for place in range(len(self.input_shapes))]

    @property
    def input_types(self) -> Sequence[np.dtype[Any]]:
        """Types of the inputs; floats where the file does not say."""
        return [np.dtype(np.float32)] * len(self.input_shapes)

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

    def profile(self, inputs: Batch, runs: int = 20) -> Sequence[LayerTime]:
        """Return what each layer takes, in the order of computation.

        Raises:
            PrunecError: the runner does not tell, or the file does not run.
        """
        raise PrunecError(
            f"{type(self).__module__.rpartition('.')[2]} tells no times of layers",
            remedy="Leave --layers out, or name .onnx files.",
        )

    def noise(self, batch: int, sizes: Mapping[str, Sequence[int]] | None = None) -> Batch:
        """Return inputs of one run: normal numbers, and zeros where they are whole.

        Args:
            batch: samples, where the first size is dynamic.
            sizes: name of an input → all its sizes, where the file does not fix them; of one that
                is a number, the number.

        Raises:
            PrunecError: an input has a dynamic size besides its batch, and none is given.
        """
        generator = np.random.default_rng(0)
        found = []
        entries = zip(self.input_names, self.input_shapes, self.input_types, strict=True)
        for name, shape, kind in entries:
            given = (sizes or {}).get(name)
            if given and not shape:
                found.append(np.asarray(given[0], kind))
                continue
            wanted = tuple(given) if given else _sizes(shape, batch)
            values = generator.standard_normal(wanted, dtype=np.float32)
            found.append(values.astype(kind) if kind.kind == "f" else np.zeros(wanted, kind))
        return found

    def time(self, dense: LoadedFile, *, batch: int = 1, rounds: int = 31) -> Latency:
        """Measure this file against another one of the same runner, in turns, where they run.

        Args:
            dense: the file of the dense network.
            batch: samples a run.
            rounds: how many pairs of blocks, at most.

        Raises:
            PrunecError: an input has a dynamic size besides its batch, or a file does not run.
        """
        ours, theirs = self.timed(self.noise(batch)), dense.timed(dense.noise(batch))
        return in_turns(ours, theirs, rounds=rounds)

    def timed(self, inputs: Batch) -> Timer:
        """Return what times runs on these inputs; a runner that reaches a device measures there.

        Raises:
            PrunecError: the file does not run, or its times would say nothing of a device.
        """
        return timer(partial(once, self, inputs))


@dataclass(frozen=True)
class Runner(ABC):
    """A runtime on a device, a frozen value; its fields are how it runs.

    ``suffixes`` are those of the files that it opens, ``modules`` those of its runtime that it
    imports when it opens the first one; ``unasked`` says whether it runs what it
    opens without being named, ``samples`` how many test images it answers at most, ``timeless``
    why its times say nothing of a device (empty: they do).
    """

    suffixes: ClassVar[frozenset[str]]
    modules: ClassVar[tuple[str, ...]] = ()
    unasked: ClassVar[bool] = True
    samples: ClassVar[int | None] = None
    timeless: ClassVar[str] = ""

    @classmethod
    def runner_name(cls) -> str:
        """The name of the runner: ``QemuAarch64`` is ``qemu-aarch64``, as its file."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()

    @classmethod
    def at(cls, place: str) -> Self:
        """Return the runner at a place: of ``ssh://pi@board`` what stands behind the colon.

        Raises:
            RecipeError: it has no places, or this is none.
        """
        raise RecipeError(
            f"{cls.runner_name()} runs here alone, not at {shortened(place)}",
            remedy=f"Write {cls.runner_name()}.",
        )

    @classmethod
    def set_up(cls, tell: Callable[[str], None]) -> None:
        """Install what it needs besides the packages of Python.

        Raises:
            PrunecError: nothing can be, or it failed.
        """
        raise PrunecError(f"{cls.runner_name()} needs no setting up")

    @property
    @abstractmethod
    def identity(self) -> Identity:
        """What it is.

        Raises:
            PrunecError: a device cannot be reached, or lacks something.
        """

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


def once(loaded: LoadedFile, inputs: Batch) -> list[np.ndarray]:
    """Run one batch."""
    return next(iter(loaded.run([inputs])))


def _sizes(shape: Sizes, batch: int) -> tuple[int, ...]:
    if not shape:
        return ()
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    if len(sizes) != len(shape) - 1:
        raise PrunecError(
            f"the file has an input of dynamic size {shape}: its latency is not one number",
            remedy="Export with fixed sizes but for the batch; `prunec bench A B` takes sizes: "
            "--input NAME=1x3x224x224.",
        )
    first = shape[0] if isinstance(shape[0], int) else batch
    return (first, *sizes)
