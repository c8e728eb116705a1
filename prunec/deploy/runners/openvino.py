"""OpenVINO on this machine's processor, in float32."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import openvino

from prunec.deploy.runner import Batch, Between, Identity, LoadedFile, Runner, Sizes, once
from prunec.errors import PrunecError
from prunec.wording import first_line


@dataclass(frozen=True)
class Openvino(Runner):
    """Runner of OpenVINO and ONNX files on the CPU.

    The precision is pinned: on processors with bfloat16, OpenVINO would use it by default.
    """

    suffixes: ClassVar[frozenset[str]] = frozenset({".xml", ".onnx"})

    threads: int = 1

    @property
    def identity(self) -> Identity:
        """Version, threads and precision."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        version = openvino.__version__.split("-")[0]
        return Identity("openvino", version, f"{platform.machine()}, {threads}, f32")

    def open(self, path: Path) -> LoadedFile:
        """Return a compiled model."""
        return self._compiled(path, path)

    def between(self, path: Path) -> Between | None:
        """Return the results of the model after one is added to every value of a layer."""
        try:
            model = openvino.Core().read_model(path)
            outputs = _made(model)
            model.add_outputs([_port(output) for output in outputs])
            # A value that was an output before is not added again.
            results = [_port(x.input_value(0)) for x in model.get_results()]
            places = [results.index(_port(output)) for output in outputs]
        except Exception as error:
            raise PrunecError(f"OpenVINO cannot load {path}: {first_line(error)}") from error

        def values(sample: Batch) -> list[np.ndarray]:
            made = once(self._compiled(path, model), sample)
            return [made[place] for place in places]

        return Between([_named(output) for output in outputs], b"", values)

    def _compiled(self, path: Path, model: Path | openvino.Model) -> LoadedFile:
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": str(self.threads),
            # A single stream: several would share the threads among requests.
            "NUM_STREAMS": "1",
        }
        try:
            return _Compiled(path, openvino.Core().compile_model(model, "CPU", options))
        except Exception as error:
            raise PrunecError(f"OpenVINO cannot load {path}: {first_line(error)}") from error


def _made(model: openvino.Model) -> list[openvino.Output]:
    """Return the values of all layers that read an input, in the order of computation."""
    reached = {node.get_friendly_name() for node in model.get_parameters()}
    outputs: list[openvino.Output] = []
    for node in model.get_ordered_ops():
        read = {_port(value)[0] for value in node.input_values()}
        # What follows from weights alone is no layer's value, and is folded away.
        if read & reached and node.get_type_name() != "Result":
            reached.add(node.get_friendly_name())
            outputs += node.outputs()
    return outputs


def _port(output: openvino.Output) -> tuple[str, int]:
    return output.get_node().get_friendly_name(), output.get_index()


def _named(output: openvino.Output) -> dict[str, str]:
    name, port = _port(output)
    kind = output.get_node().get_type_name()
    return {"name": f"{name}:{port}", "operator": kind, "node": name}


class _Compiled(LoadedFile):
    def __init__(self, path: Path, model: Any) -> None:
        self._path, self._model = path, model

    @property
    def input_shapes(self) -> list[Sizes]:
        """Sizes of the inputs."""
        shapes = [x.get_partial_shape() for x in self._model.inputs]
        return [tuple(None if s.is_dynamic else s.get_length() for s in sizes) for sizes in shapes]

    def run(self, batches: Iterable[Batch]) -> Iterator[list[np.ndarray]]:
        """Yield the outputs of a batch when they are requested."""
        request = self._model.create_infer_request()
        for inputs in batches:
            try:
                outputs = request.infer([np.ascontiguousarray(x) for x in inputs])
            except Exception as error:
                raise PrunecError(
                    f"OpenVINO cannot run {self._path}: {first_line(error)}"
                ) from error
            yield [np.array(outputs[output]) for output in self._model.outputs]
