"""ExecuTorch on one thread of this machine's processor, in float32."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from prunec.deploy.runner import Batch, Identity, LoadedFile, Runner, Sizes, samples_of
from prunec.errors import PrunecError
from prunec.wording import first_line

if find_spec("executorch") is None:  # the import takes seconds, so it waits until a file is opened
    raise ImportError("No module named 'executorch'")

_SIZES = re.compile(r"sizes=\[([\d, ]*)\]")


@dataclass(frozen=True)
class Executorch(Runner):
    """Runner of ``.pte`` programs, one sample at a time."""

    suffixes: ClassVar[frozenset[str]] = frozenset({".pte"})
    modules: ClassVar[tuple[str, ...]] = ("executorch.runtime",)

    @property
    def identity(self) -> Identity:
        """Version, thread and precision."""
        device = f"{platform.machine()}, 1 thread, XNNPACK, f32"
        return Identity("executorch", version("executorch"), device)

    def open(self, path: Path) -> LoadedFile:
        """Return the loaded program."""
        try:
            return _Method(path, loaded_program(path))
        except Exception as error:
            raise PrunecError(f"ExecuTorch cannot load {path}: {first_line(error)}") from error


def loaded_program(path: Path) -> Any:
    """Return the method of a program; ExecuTorch raises what it happens to raise."""
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    # Only before the first program: a loaded one holds the threads that it was loaded with. Small
    # networks are slower on several threads, and wait for each other where processors are busy.
    if portable_lib._threadpool_get_thread_count() != 1:
        portable_lib._unsafe_reset_threadpool(1)
    return Runtime.get().load_program(path).load_method("forward")


class _Method(LoadedFile):
    def __init__(self, path: Path, method: Any) -> None:
        self._path, self._method = path, method

    @property
    def input_shapes(self) -> list[Sizes]:
        """Sizes of the inputs."""
        metadata = self._method.metadata
        infos = [str(metadata.input_tensor_meta(place)) for place in range(metadata.num_inputs())]
        matches = [_SIZES.search(info) for info in infos]
        return [tuple(map(int, sizes[1].split(", "))) for sizes in matches if sizes]

    def run(self, batches: Iterable[Batch]) -> Iterator[list[np.ndarray]]:
        """Yield the outputs of a batch when they are requested."""
        for inputs in batches:
            yield samples_of(inputs, self.input_shapes, self._run)

    def _run(self, inputs: Batch) -> list[np.ndarray]:
        given = [torch.from_numpy(np.ascontiguousarray(x)) for x in inputs]
        try:
            # The next run overwrites the memory of these outputs.
            return [y.detach().numpy().copy() for y in self._method.execute(given)]
        except Exception as error:
            raise PrunecError(f"ExecuTorch cannot run {self._path}: {first_line(error)}") from error
