"""Compiled networks in C, built with this machine's compiler and run in this process."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from prunec.deploy.runner import Batch, Identity, LoadedFile, Runner, Sizes
from prunec.errors import PrunecError

FLAGS = ("-O2", "-std=c11", "-march=native", "-DPRUNEC_HERE", "-shared", "-fPIC")
_INSTALL = "Install one (Debian and Ubuntu: apt install gcc), or name it in CC."


def compiler() -> str:
    """Return the C compiler: ``CC``, or ``cc``.

    Raises:
        PrunecError: there is none.
    """
    named = os.environ.get("CC") or "cc"
    path = shutil.which(named)
    if path is None:
        raise PrunecError(f"no C compiler: {named} is not installed", remedy=_INSTALL)
    return path


@dataclass(frozen=True)
class Native(Runner):
    """Runner that builds a compiled network and runs it, by default on one thread."""

    suffixes: ClassVar[frozenset[str]] = frozenset({".c"})

    threads: int = 1

    @property
    def identity(self) -> Identity:
        """Compiler and threads."""
        output = subprocess.run(
            [compiler(), "-dumpfullversion"], capture_output=True, text=True, check=False
        )
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        name = Path(compiler()).resolve().name
        return Identity(f"C, {name}", output.stdout.strip(), f"{platform.machine()}, {threads}")

    def open(self, path: Path) -> LoadedFile:
        """Return a built network."""
        return load(path, ("-fopenmp",) if self.threads > 1 else ())


def load(path: Path, flags: Sequence[str] = ()) -> Compiled:
    """Return a compiled network, built with further compiler flags.

    Raises:
        PrunecError: it cannot be built, or its weights are missing.
    """
    with tempfile.TemporaryDirectory() as folder:
        return Compiled(path, ctypes.CDLL(str(build(path, Path(folder), flags))))


def build(path: Path, folder: Path, flags: Sequence[str] = ()) -> Path:
    """Return a shared library of a compiled network, built in a folder.

    Raises:
        PrunecError: there is no compiler, or it rejects the source.
    """
    library = folder / f"{path.stem}.so"
    command = [compiler(), *FLAGS, *flags, "-o", str(library), str(path), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr)
        raise PrunecError(f"{path} cannot be built: {first.strip()}", remedy="Export it again.")
    return library


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("axes", ctypes.c_int),
        ("sizes", ctypes.c_size_t * 8),
        ("holds_samples", ctypes.c_int),
    )

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of one sample."""
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


class Compiled(LoadedFile):
    """Library of a compiled network, with its own workspace."""

    def __init__(self, path: Path, library: ctypes.CDLL) -> None:
        """Take a loaded library.

        Raises:
            PrunecError: the weights beside the source are missing or cut off.
        """
        self._path, stem = path, path.stem
        describe = library[f"{stem}_describe"]
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
        weights = np.fromfile(path, np.uint8)
        if weights.size != self.description.weights_bytes:
            raise PrunecError(f"{path} is cut off", remedy="Export it again.")
        return weights

    @property
    def input_shapes(self) -> list[Sizes]:
        """Sizes of the inputs; the batch by name."""
        return [("batch", *x.shape[1:]) if x.holds_samples else x.shape for x in self._inputs]

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs."""
        return [tensor.name.decode() for tensor in self._inputs]

    def run(self, batches: Iterable[Batch]) -> Iterator[list[np.ndarray]]:
        """Yield the outputs of a batch when they are requested."""
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
            raise PrunecError(f"{self._path} has no weights beside it", remedy="Export it again.")
        return made

    def _batch(self, inputs: Sequence[np.ndarray]) -> int:
        """Return the number of given samples.

        Raises:
            PrunecError: the inputs do not fit the network.
        """
        if len(inputs) != len(self._inputs):
            raise PrunecError(f"{self._path} has {len(self._inputs)} inputs, {len(inputs)} given")
        batches = set()
        for x, tensor in zip(inputs, self._inputs, strict=True):
            wanted = tensor.shape
            skipped = 1 if tensor.holds_samples else 0
            if x.ndim != len(wanted) or x.shape[skipped:] != wanted[skipped:]:
                raise PrunecError(f"{self._path} takes {wanted}, but got {x.shape}")
            if skipped:
                batches.add(len(x))
        if len(batches) > 1:
            raise PrunecError(f"{self._path} got batches of {sorted(batches)} samples")
        return batches.pop() if batches else 1
