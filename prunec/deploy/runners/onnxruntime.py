"""onnxruntime on this machine's processor, as a device would run it."""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime

from prunec.deploy.runner import Batch, Identity, LayerTime, LoadedFile, Runner, Sizes
from prunec.errors import PrunecError
from prunec.wording import first_line

_KINDS = {
    "integer": "QLinearConv ConvInteger MatMulInteger QLinearMatMul QGemm MatMulIntegerToFloat "
    "DynamicQuantizeMatMul QAttention",
    "float": "Conv FusedConv ConvTranspose Gemm FusedGemm MatMul FusedMatMul",
}

_KERNEL = "_kernel_time"
_TYPES = {"float": "float32", "double": "float64"}
"""onnxruntime's names of types that are not numpy's."""


@dataclass(frozen=True)
class Onnxruntime(Runner):
    """Run ONNX files on the CPU; with one thread within an operator, the same bits every time."""

    suffixes: ClassVar[frozenset[str]] = frozenset({".onnx", ".ort"})

    threads: int = 1

    @property
    def identity(self) -> Identity:
        """The version, and on how many threads."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return Identity("onnxruntime", onnxruntime.__version__, f"{platform.machine()}, {threads}")

    def open(self, path: Path) -> LoadedFile:
        """Return a session of the file."""
        return _Session(path, self.threads)


def _session(
    path: Path, threads: int, saved: Path | None = None, profile: Path | None = None
) -> onnxruntime.InferenceSession:
    """Return a session of a file.

    Args:
        path: the file.
        threads: within an operator.
        saved: where to save the graph that it runs.
        profile: how the names of files with its times begin.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if saved:
        options.optimized_model_filepath = str(saved)
    # Threads that spin while they wait take the core that the next step needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _cannot("load", path, error) from error


class _Session(LoadedFile):
    """A loaded file."""

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._threads = path, threads
        self._session = _session(path, threads)
        self._inputs = self._session.get_inputs()
        self._names = [entry.name for entry in self._inputs]

    @property
    def layers(self) -> Mapping[str, int]:
        """Layers of each kind, of the graph as it runs on this processor."""
        with tempfile.TemporaryDirectory() as folder:
            saved = Path(folder) / "as_run.onnx"
            _session(self._path, self._threads, saved)
            nodes = onnx.load(saved).graph.node
        kinds = {kind: kind_of for kind_of, names in _KINDS.items() for kind in names.split()}
        return Counter(kinds[node.op_type] for node in nodes if node.op_type in kinds)

    @property
    def input_shapes(self) -> list[Sizes]:
        """Sizes of the inputs."""
        return [tuple(entry.shape) for entry in self._session.get_inputs()]

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs."""
        return self._names

    @property
    def input_types(self) -> list[np.dtype[Any]]:
        """Types of the inputs: ``tensor(int64)`` is int64."""
        found = [entry.type.removeprefix("tensor(").rstrip(")") for entry in self._inputs]
        return [np.dtype(_TYPES.get(name, name)) for name in found]

    def profile(self, inputs: Batch, runs: int = 20) -> list[LayerTime]:
        """See :meth:`LoadedFile.profile`: onnxruntime's own profile, read from its JSON."""
        with tempfile.TemporaryDirectory() as folder:
            session = _session(self._path, self._threads, profile=Path(folder) / "profile")
            feed = dict(zip(self._names, inputs, strict=True))
            try:
                for _ in range(runs + 1):
                    session.run(None, feed)
            except Exception as error:
                raise _cannot("run", self._path, error) from error
            events = json.loads(Path(session.end_profiling()).read_text())
        return layer_times(events)

    def run(self, batches: Iterable[Batch]) -> Iterator[list[np.ndarray]]:
        """Yield the outputs of a batch when they are asked for."""
        for inputs in batches:
            yield self._run(inputs)

    def _run(self, inputs: Batch) -> list[np.ndarray]:
        if len(inputs) != len(self._names):
            raise PrunecError(f"{self._path} has {len(self._names)} inputs, {len(inputs)} given")
        try:
            outputs = self._session.run(None, dict(zip(self._names, inputs, strict=True)))
            return [np.asarray(output) for output in outputs]
        except Exception as error:
            raise _cannot("run", self._path, error) from error


def layer_times(events: Iterable[Mapping[str, Any]]) -> list[LayerTime]:
    """Return a layer for each node of onnxruntime's profile, the first run of each left out.

    Args:
        events: of the profile; those of kernels have the category ``Node``, a duration in
            microseconds and a name that ends in ``_kernel_time``.
    """
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            key = (str(event["args"].get("node_index", "")), name, event["args"]["op_name"])
            found[key].append(event["dur"] / 1e3)
    return [
        LayerTime(name.removesuffix(_KERNEL), operator, statistics.median(times[1:] or times))
        for (_, name, operator), times in found.items()
    ]


def _cannot(what: str, path: Path, error: Exception) -> PrunecError:
    return PrunecError(
        f"onnxruntime cannot {what} {path}: {first_line(error)}", remedy="Export the file again."
    )
