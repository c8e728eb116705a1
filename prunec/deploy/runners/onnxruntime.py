"""onnxruntime on this machine's processor or another execution provider, with fixed precision."""

from __future__ import annotations

import json
import platform
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import onnx
import onnxruntime

from prunec.deploy.all_outputs import with_all_outputs
from prunec.deploy.runner import Batch, Between, Identity, LayerTime, LoadedFile, Runner, Sizes
from prunec.deploy.sessions import layer_times, numpy_type
from prunec.deploy.timing import FIRST, Latency
from prunec.errors import PrunecError, RecipeError
from prunec.wording import first_line, shortened

_KINDS = {
    "integer": "QLinearConv ConvInteger MatMulInteger QLinearMatMul QGemm MatMulIntegerToFloat "
    "DynamicQuantizeMatMul QAttention",
    "float": "Conv FusedConv ConvTranspose Gemm FusedGemm MatMul FusedMatMul",
}


_END = "ExecutionProvider"
_PRECISION = {
    # TF32 keeps 10 bits of a product's mantissa; it is the default on NVIDIA GPUs since Ampere.
    "CUDA": {"use_tf32": "0"},
    "OpenVINO": {"precision": "FP32"},
}
"""Provider → options that keep it to float32; the others compute in the file's precision."""


@dataclass(frozen=True)
class Onnxruntime(Runner):
    """Runner of ONNX files on the CPU; one thread per operator gives the same bits every time.

    Attributes:
        threads: threads per operator.
        provider: execution provider, such as ``CUDA``; the CPU computes the nodes that it does not
            take.
    """

    suffixes: ClassVar[frozenset[str]] = frozenset({".onnx", ".ort"})

    threads: int = 1
    provider: str = "CPU"

    @classmethod
    def at(cls, place: str) -> Self:
        """Return the runner of an execution provider: ``cuda`` of ``onnxruntime://cuda``."""
        listed = [name.removesuffix(_END) for name in onnxruntime.get_available_providers()]
        provider = next((name for name in listed if name.lower() == place.lower()), None)
        if provider is None:
            named = (
                f"has no execution provider {shortened(place)!r}"
                if place
                else ("needs the name of an execution provider after ://")
            )
            raise RecipeError(
                f"onnxruntime {onnxruntime.__version__} {named}",
                remedy=f"It has {', '.join(name.lower() for name in listed)}; others come with "
                "other packages: onnxruntime-gpu, onnxruntime-openvino, onnxruntime-directml.",
            )
        return cls(provider=provider)

    @property
    def identity(self) -> Identity:
        """Version, threads, and the execution provider unless it is the CPU."""
        name, device = "onnxruntime", f"{platform.machine()}, {self.threads} thread"
        device += "s" if self.threads > 1 else ""
        if self.provider != "CPU":
            name += f"://{self.provider.lower()}"
            device += f", {self.provider}{', f32' if self.provider in _PRECISION else ''}"
        return Identity(name, onnxruntime.__version__, device)

    def open(self, path: Path) -> LoadedFile:
        """Return a session of the file."""
        return _Session(path, self)

    def between(self, path: Path) -> Between | None:
        """Return the outputs of a copy that outputs every value; None for an ``.ort`` file."""
        if path.suffix != ".onnx":
            return None
        copy, layers = with_all_outputs(path)

        def values(sample: Batch) -> list[np.ndarray]:
            session = _session(copy, self)
            names = [entry.name for entry in session.get_inputs()]
            return list(session.run(None, dict(zip(names, sample, strict=True))))

        return Between(layers, copy, values)


def _session(
    path: Path | bytes,
    settings: Onnxruntime,
    saved: Path | None = None,
    profile: Path | None = None,
    *,
    portable: bool = False,
) -> onnxruntime.InferenceSession:
    """Return a session of a file.

    Args:
        path: path of the file, or its contents.
        settings: threads and execution provider.
        saved: path to save the optimised graph to.
        profile: prefix of the profile's file name.
        portable: whether to leave out layouts specific to this processor, as ``.ort`` files do.
    """
    options = onnxruntime.SessionOptions()
    if portable:
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.graph_optimization_level = level
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # fatal errors only; others are raised
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if saved:
        options.optimized_model_filepath = str(saved)
    # Waiting threads that spin occupy the core that the next step needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    name = settings.provider + _END
    pinned = dict(_PRECISION.get(settings.provider, {}))
    if settings.provider == "OpenVINO":
        pinned["num_of_threads"] = str(settings.threads)  # it has threads of its own
    try:
        file = path if isinstance(path, bytes) else str(path)
        session = onnxruntime.InferenceSession(file, options, providers=[(name, pinned)])
    except Exception as error:
        named = "a copy of the file" if isinstance(path, bytes) else path
        raise _cannot("load", named, error) from error
    if name not in session.get_providers():  # it is left out with a warning if it cannot start
        raise PrunecError(
            f"onnxruntime cannot start {name} here: its libraries or its device are missing",
            remedy="Install them, or leave the runner out.",
        )
    return session


class _Session(LoadedFile):
    """A loaded file."""

    def __init__(self, path: Path, settings: Onnxruntime, *, portable: bool = False) -> None:
        self._path, self._settings = path, settings
        self._session = _session(path, settings, portable=portable)
        self._inputs = self._session.get_inputs()
        self._names = [entry.name for entry in self._inputs]

    @property
    def layers(self) -> Mapping[str, int] | None:
        """Number of layers of each kind in the graph as it runs on this processor; None for other
        providers, which compile parts of the graph.
        """
        if self._settings.provider != "CPU":
            return None
        with tempfile.TemporaryDirectory() as folder:
            saved = Path(folder) / "as_run.onnx"
            _session(self._path, self._settings, saved)
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
        return [numpy_type(entry.type) for entry in self._inputs]

    def profile(self, inputs: Batch, runs: int = 20) -> list[LayerTime]:
        """Return the layers of onnxruntime's own profile: see :meth:`LoadedFile.profile`."""
        with tempfile.TemporaryDirectory() as folder:
            session = _session(self._path, self._settings, profile=Path(folder) / "profile")
            feed = dict(zip(self._names, inputs, strict=True))
            try:
                for _ in range(runs + 1):
                    session.run(None, feed)
            except Exception as error:
                raise _cannot("run", self._path, error) from error
            events = json.loads(Path(session.end_profiling()).read_text())
        return layer_times(events)

    def time(self, dense: LoadedFile, *, batch: int = 1, rounds: int = FIRST) -> Latency:
        """Measure against a dense file: see :meth:`LoadedFile.time`.

        Against an ``.ort`` file, a dense ONNX file also runs without layouts specific to the
        processor.
        """
        if isinstance(dense, _Session) and self._path.suffix == ".ort" != dense._path.suffix:
            dense = _Session(dense._path, self._settings, portable=True)
        return super().time(dense, batch=batch, rounds=rounds)

    def run(self, batches: Iterable[Batch]) -> Iterator[list[np.ndarray]]:
        """Yield the outputs of a batch when they are requested."""
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


def _cannot(what: str, path: Path | str, error: Exception) -> PrunecError:
    return PrunecError(
        f"onnxruntime cannot {what} {path}: {first_line(error)}", remedy="Export the file again."
    )
