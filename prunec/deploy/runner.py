"""Contract of runners: opening files, running batches, timing, identity.

A runner is a runtime on a device: this machine, an emulated one, a board. It is one file in
``prunec/deploy/runners``; there is no registry.

See docs/glossary.md: runner.
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

from prunec.deploy.timing import FIRST, Latency, Timer, in_turns, timer
from prunec.errors import PrunecError, RecipeError
from prunec.wording import shortened

Batch = Sequence[np.ndarray]
"""Inputs of one run in order, batch first."""
Sizes = tuple[int | str | None, ...]
"""Sizes of an input; a name or None stands for a dynamic one."""


@dataclass(frozen=True)
class Identity:
    """Runtime and device that ran a file.

    Attributes:
        name: name of the runtime.
        version: version of the runtime.
        device: device, with threads and precision.
    """

    name: str
    version: str
    device: str


@dataclass(frozen=True)
class LayerWork:
    """Work of a layer in one run.

    Attributes:
        density: share of nonzero weights.
        products: multiply-adds with nonzero weights.
        bytes: bytes of the weights as stored, of input and of output.
        dense_bytes: the same with all weights, four bytes each.
    """

    density: float
    products: int
    bytes: int
    dense_bytes: int


@dataclass(frozen=True)
class LayerTime:
    """Time of a layer of a loaded file, as the runtime measured it.

    Attributes:
        name: name of the file's node.
        operator: executed operator.
        milliseconds: median over runs.
        work: its work, where the runner reports it.
    """

    name: str
    operator: str
    milliseconds: float
    work: LayerWork | None = None


@dataclass(frozen=True)
class Between:
    """Values between the layers of a file, in the order of computation.

    Attributes:
        layers: name, operator and node of each value.
        copy: copy of the file that outputs them; empty if the runtime reads those of the file
            itself.
        values: function that computes them from the inputs of one sample, batch first.
    """

    layers: Sequence[Mapping[str, str]]
    copy: bytes
    values: Callable[[Batch], list[np.ndarray]]


class LoadedFile(ABC):
    """A file opened by a runner."""

    @property
    @abstractmethod
    def input_shapes(self) -> Sequence[Sizes]:
        """Sizes of the inputs."""

    @property
    def input_names(self) -> Sequence[str]:
        """Names of the inputs, if the file has any."""
        return [f"input {place}" for place in range(len(self.input_shapes))]

    @property
    def input_types(self) -> Sequence[np.dtype[Any]]:
        """Types of the inputs; floats if the file does not give them."""
        return [np.dtype(np.float32)] * len(self.input_shapes)

    @abstractmethod
    def run(self, batches: Iterable[Batch]) -> Iterator[list[np.ndarray]]:
        """Yield all outputs of each batch, in order.

        Local runners take a batch when its outputs are requested; runners on a device may take all
        batches first, to connect once.

        Raises:
            PrunecError: the file does not accept these inputs.
        """

    @property
    def layers(self) -> Mapping[str, int] | None:
        """Number of layers that run as ``integer`` and as ``float``; None if unknown."""
        return None

    def profile(self, inputs: Batch, runs: int = 20) -> Sequence[LayerTime]:
        """Return the time of each layer, in the order of computation.

        Raises:
            PrunecError: the runner does not measure layers, or the file does not run.
        """
        raise PrunecError(
            f"{type(self).__module__.rpartition('.')[2]} does not measure layers",
            remedy="Leave --layers out, or name .onnx files.",
        )

    def noise(self, batch: int, sizes: Mapping[str, Sequence[int]] | None = None) -> Batch:
        """Return random inputs of one run: normal floats, and zeros for integers.

        Args:
            batch: batch size, if the first size is dynamic.
            sizes: name of an input → all its sizes, if the file leaves any open; for an input that
                is a single number, the number.

        Raises:
            PrunecError: an input has another dynamic size than its batch, and none is given.
        """
        generator = np.random.default_rng(0)
        inputs = []
        entries = zip(self.input_names, self.input_shapes, self.input_types, strict=True)
        for name, shape, kind in entries:
            given = (sizes or {}).get(name)
            if given and not shape:
                inputs.append(np.asarray(given[0], kind))
                continue
            wanted = tuple(given) if given else _sizes(shape, batch)
            values = generator.standard_normal(wanted, dtype=np.float32)
            inputs.append(values.astype(kind) if kind.kind == "f" else np.zeros(wanted, kind))
        return inputs

    def time(self, dense: LoadedFile, *, batch: int = 1, rounds: int = FIRST) -> Latency:
        """Measure this file against another one of the same runner, in turns, on the device.

        Args:
            dense: file of the dense network.
            batch: batch size.
            rounds: number of pairs of blocks before the first look at the interval.

        Raises:
            PrunecError: an input has another dynamic size than its batch, or a file does not run.
        """
        ours, theirs = self.timed(self.noise(batch)), dense.timed(dense.noise(batch))
        return in_turns(ours, theirs, rounds=rounds)

    def timed(self, inputs: Batch) -> Timer:
        """Return a timer of runs on these inputs; runners on a device measure there.

        Raises:
            PrunecError: the file does not run, or its times would be meaningless.
        """
        # Includes the call from Python, for shipped and dense file alike.
        return timer(partial(once, self, inputs))


@dataclass(frozen=True)
class Runner(ABC):
    """A runtime on a device; a frozen value whose fields are its settings.

    ``suffixes`` are the suffixes of files that it opens, ``modules`` the modules of its runtime
    that it imports when it opens the first file. ``unasked`` says whether it runs files without
    being named, ``samples`` the most test images it answers, ``timeless`` why its times are
    meaningless (empty: they are not).
    """

    suffixes: ClassVar[frozenset[str]]
    modules: ClassVar[tuple[str, ...]] = ()
    unasked: ClassVar[bool] = True
    samples: ClassVar[int | None] = None
    timeless: ClassVar[str] = ""

    @classmethod
    def runner_name(cls) -> str:
        """Name of the runner: ``QemuAarch64`` is ``qemu-aarch64``, like its file."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()

    @classmethod
    def at(cls, place: str) -> Self:
        """Return the runner at a place, the part of ``ssh://pi@board`` after the colon.

        Raises:
            RecipeError: the runner has no places, or the place is invalid.
        """
        raise RecipeError(
            f"{cls.runner_name()} runs only here, not at {shortened(place)}",
            remedy=f"Write {cls.runner_name()}.",
        )

    @classmethod
    def set_up(cls, tell: Callable[[str], None]) -> None:
        """Install what the runner needs besides Python packages.

        Raises:
            PrunecError: there is nothing to install, or the installation failed.
        """
        raise PrunecError(f"{cls.runner_name()} needs no setup")

    @property
    @abstractmethod
    def identity(self) -> Identity:
        """Runtime and device.

        Raises:
            PrunecError: the device cannot be reached, or lacks a package.
        """

    @abstractmethod
    def open(self, path: Path) -> LoadedFile:
        """Return a loaded file.

        Raises:
            PrunecError: the file cannot be loaded.
        """

    def between(self, path: Path) -> Between | None:
        """Return the values between the layers of a file; None if the runtime gives none.

        Raises:
            PrunecError: the file cannot be loaded.
        """
        return None


def samples_of(
    inputs: Batch, shapes: Sequence[Sizes], run: Callable[[Batch], list[np.ndarray]]
) -> list[np.ndarray]:
    """Return the outputs of a batch by a file of one sample, run sample by sample.

    Args:
        inputs: inputs, batch first, except those with exactly the sizes of the file.
        shapes: input shapes of the file.
        run: function of the inputs of one sample.
    """
    count = max((len(x) for x in inputs if x.ndim), default=1)
    whole = [count > 1 and x.shape == tuple(s) for x, s in zip(inputs, shapes, strict=True)]
    by_sample = [
        run([x if all_of else x[i : i + 1] for x, all_of in zip(inputs, whole, strict=True)])
        for i in range(count)
    ]
    return [np.concatenate(outputs) for outputs in zip(*by_sample, strict=True)]


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
            remedy="Export with all sizes fixed except the batch; `prunec bench A B` takes sizes: "
            "--input NAME=1x3x224x224.",
        )
    first = shape[0] if isinstance(shape[0], int) else batch
    return (first, *sizes)
