"""Libraries of compiled networks, loaded into this process."""

from __future__ import annotations

import ctypes
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from prunec.deploy.native.compiler import HERE, build
from prunec.deploy.runner import Batch, LayerTime, LayerWork, LoadedFile, Sizes
from prunec.errors import PrunecError


def load(path: Path, flags: Sequence[str] = ()) -> Compiled:
    """Build and load a compiled network, with further compiler flags.

    Raises:
        PrunecError: it cannot be built, or its weights file is missing.
    """
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / f"{path.stem}.so"
        build(path, library, (*HERE, *flags))
        return Compiled(path, ctypes.CDLL(str(library)), flags)


def load_with_threads(path: Path, threads: int, flags: Sequence[str] = ()) -> Compiled:
    """Build and load a compiled network whose layers are shared by exactly so many threads.

    Args:
        path: C source of the network.
        threads: number of threads.
        flags: further compiler flags.

    Raises:
        PrunecError: it cannot be built, or its weights file is missing.
    """
    team = ("-fopenmp", f"-DPRUNEC_TEAM={threads}") if threads > 1 else ()
    return load(path, (*team, *flags))


def loaded_library(library: Path) -> Compiled:
    """Load a library that was built elsewhere: ``model-….so`` of ``model.c``.

    Raises:
        PrunecError: it cannot be loaded here, or its weights are missing.
    """
    source = library.with_name(f"{library.stem.partition('-')[0]}.c")
    try:
        return Compiled(source, ctypes.CDLL(str(library.resolve())))
    except (OSError, AttributeError) as error:
        raise PrunecError(
            f"{library} cannot be loaded: {error}",
            remedy="Build it here from its source; this file is for another system or processor.",
        ) from error


# These structures repeat those of model.h.in, field by field.
class _Tensor(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("axes", ctypes.c_int),
        ("sizes", ctypes.c_size_t * 8),
        ("holds_samples", ctypes.c_int),
    )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.sizes[: self.axes])


class _Description(ctypes.Structure):
    _fields_ = (
        ("made_by", ctypes.c_char_p),
        ("inputs", ctypes.c_int),
        ("outputs", ctypes.c_int),
        ("input", ctypes.POINTER(_Tensor)),
        ("output", ctypes.POINTER(_Tensor)),
        ("weights_bytes", ctypes.c_size_t),
        ("workspace_bytes", ctypes.c_size_t),
        ("buffers_bytes", ctypes.c_size_t),
        ("weights_sha256", ctypes.c_char_p),
        ("metadata", ctypes.c_char_p),
    )


_NUMBERS = ("weights", "live", "products", "stored", "tensors", "seconds")


class _About(ctypes.Structure):
    _fields_ = (
        ("layer", ctypes.c_char_p),
        ("kernel", ctypes.c_char_p),
        *((name, ctypes.c_double) for name in _NUMBERS),
    )

    def timed(self, milliseconds: float, batch: int) -> LayerTime:
        """Return the time and the work of the layer for all samples."""
        work = None
        if self.weights:
            tensors = int(self.tensors) * batch
            work = LayerWork(
                self.live / self.weights, int(self.products) * batch,
                int(self.stored) + tensors, 4 * int(self.weights) + tensors,
            )  # fmt: skip
        return LayerTime(self.layer.decode(), self.kernel.decode(), milliseconds * batch, work)


class Compiled(LoadedFile):
    """A loaded library of a compiled network, with a workspace of its own."""

    def __init__(self, path: Path, library: ctypes.CDLL, flags: Sequence[str] = ()) -> None:
        """Take a loaded library, and the flags that it was built with.

        Raises:
            PrunecError: the weights beside the source are missing or cut off.
        """
        self._path, self._library, self.flags = path, library, tuple(flags)
        stem = path.stem
        describe = library[f"{stem}_describe"]
        # ctypes takes every result for an int unless told otherwise.
        describe.restype = ctypes.POINTER(_Description)
        size, self._run = library[f"{stem}_workspace_size"], library[f"{stem}_run"]
        size.restype = ctypes.c_size_t
        self.description = describe().contents
        named = library[f"{stem}_processor"]
        named.restype = ctypes.c_char_p
        self.processor: str = named().decode()
        self._inputs = [self.description.input[i] for i in range(self.description.inputs)]
        self._outputs = [self.description.output[i] for i in range(self.description.outputs)]
        self._weights = self._read(path.with_suffix(".bin"))
        self._workspace = np.empty(size(), np.uint8)

    def _read(self, path: Path) -> np.ndarray | None:
        if not path.is_file():
            return None
        size = self.description.weights_bytes
        if path.stat().st_size != size:
            raise PrunecError(f"{path} is cut off", remedy="Export it again.")
        # Processes that run the same network share these pages.
        return np.memmap(path, np.uint8, "r") if size else None

    @property
    def input_shapes(self) -> list[Sizes]:
        """Shapes of the inputs; the batch axis by name."""
        return [("batch", *x.shape[1:]) if x.holds_samples else x.shape for x in self._inputs]

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs."""
        return [tensor.name.decode() for tensor in self._inputs]

    def profile(self, inputs: Batch, runs: int = 20) -> list[LayerTime]:
        """Return the time of every kernel call, by a library built to measure it."""
        timed = load(self._path, (*self.flags, "-DPRUNEC_PROFILE"))
        return timed.steps(inputs, runs)

    def _profile(self) -> list[_About]:
        profile, count = self._library[f"{self._path.stem}_profile"], ctypes.c_size_t()
        profile.restype = ctypes.POINTER(_About)
        about = profile(ctypes.byref(count))
        return [about[i] for i in range(count.value)]

    def seconds(self, inputs: Batch) -> list[float]:
        """Run once and return the seconds of every kernel call, with ``PRUNEC_PROFILE``."""
        self._of_batch(inputs)
        return [each.seconds for each in self._profile()]

    def steps(self, inputs: Batch, runs: int) -> list[LayerTime]:
        """Return the median time of every kernel call, of a library with ``PRUNEC_PROFILE``."""
        about, seconds = self._profile(), [self.seconds(inputs) for _ in range(runs + 1)]
        batch = self._batch(inputs)
        # Without the first run, which warms up.
        medians = (1e3 * statistics.median(own[1:]) for own in zip(*seconds, strict=True))
        return [about[i].timed(time, batch) for i, time in enumerate(medians)]

    def run(self, batches: Iterable[Batch]) -> Iterator[list[np.ndarray]]:
        """Yield the outputs of each batch, computed on demand."""
        for inputs in batches:
            yield self._of_batch(inputs)

    def _of_batch(self, inputs: Batch) -> list[np.ndarray]:
        given = [np.ascontiguousarray(x, np.float32) for x in inputs]
        batch = self._batch(given)
        made = [
            np.empty((batch, *x.shape[1:]) if x.holds_samples else x.shape, np.float32)
            for x in self._outputs
        ]
        pointers = [(ctypes.c_void_p * len(a))(*(x.ctypes.data for x in a)) for a in (given, made)]
        weights = None if self._weights is None else ctypes.c_void_p(self._weights.ctypes.data)
        workspace = ctypes.c_void_p(self._workspace.ctypes.data)
        if self._run(weights, workspace, pointers[0], pointers[1], ctypes.c_size_t(batch)):
            raise PrunecError(f"{self._path}: no weights beside it", remedy="Export it again.")
        return made

    def _batch(self, inputs: Sequence[np.ndarray]) -> int:
        """Return the number of samples.

        Raises:
            PrunecError: the inputs do not fit the network.
        """
        if len(inputs) != len(self._inputs):
            raise PrunecError(f"{self._path} takes {len(self._inputs)} inputs, not {len(inputs)}")
        batches = set()
        for x, tensor in zip(inputs, self._inputs, strict=True):
            wanted = tensor.shape
            skipped = 1 if tensor.holds_samples else 0
            if x.ndim != len(wanted) or x.shape[skipped:] != wanted[skipped:]:
                raise PrunecError(f"{self._path} takes inputs of shape {wanted}, not {x.shape}")
            if skipped:
                batches.add(len(x))
        if len(batches) > 1:
            raise PrunecError(f"{self._path} takes one batch size, not {sorted(batches)}")
        return batches.pop() if batches else 1
