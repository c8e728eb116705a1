"""LiteRT on this machine's processor, through XNNPACK, in float32."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from prunec.deploy.runner import (
    Batch,
    Between,
    Identity,
    LoadedFile,
    Runner,
    Sizes,
    samples_of,
)
from prunec.errors import PrunecError
from prunec.wording import first_line

if find_spec("ai_edge_litert") is None:  # imported when a file is opened
    raise ImportError("No module named 'ai_edge_litert'")


@dataclass(frozen=True)
class Litert(Runner):
    """Runner of ``.tflite`` files, one sample at a time."""

    suffixes: ClassVar[frozenset[str]] = frozenset({".tflite"})

    modules: ClassVar[tuple[str, ...]] = ("ai_edge_litert.interpreter",)

    threads: int = 1

    @property
    def identity(self) -> Identity:
        """Version, threads and precision."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        device = f"{platform.machine()}, {threads}, XNNPACK, f32"
        return Identity("litert", version("ai-edge-litert"), device)

    def open(self, path: Path) -> LoadedFile:
        """Return an interpreter of the file."""
        return _Interpreted(path, self._interpreter(path, model_path=str(path)))

    def between(self, path: Path) -> Between | None:
        """Return the outputs of a copy that outputs every value: XNNPACK computes those too."""
        copy, layers = _with_all_outputs(path)

        def values(sample: Batch) -> list[np.ndarray]:
            interpreter = self._interpreter(path, model_content=copy)
            for entry, x in zip(in_order(interpreter.get_input_details()), sample, strict=True):
                interpreter.set_tensor(entry["index"], np.ascontiguousarray(x))
            interpreter.invoke()
            indices = [entry["index"] for entry in interpreter.get_output_details()]
            return [np.array(interpreter.get_tensor(index)) for index in indices]

        return Between(layers, copy, values)

    def _interpreter(self, path: Path, **model: object) -> Any:
        from ai_edge_litert.interpreter import Interpreter

        try:
            interpreter = Interpreter(num_threads=self.threads, **model)
            interpreter.allocate_tensors()
        except Exception as error:
            raise PrunecError(f"LiteRT cannot load {path}: {first_line(error)}") from error
        return interpreter


def _with_all_outputs(path: Path) -> tuple[bytes, list[dict[str, str]]]:
    """Return a copy of a file that outputs what its nodes make; name, operator and node of each."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    except Exception as error:
        raise PrunecError(f"{path} cannot be read: {first_line(error)}") from error
    graph, kinds = model.subgraphs[0], vars(schema.BuiltinOperator)
    names = {value: name for name, value in kinds.items() if isinstance(value, int)}
    layers, outputs = [], []
    for operation in graph.operators:
        code = model.operatorCodes[operation.opcodeIndex]
        # An old field of one byte ends at 127; TensorFlow reads the larger of both, too.
        kind = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for index in operation.outputs:
            outputs.append(int(index))
            name = graph.tensors[index].name.decode()
            layers.append({"name": f"tensor {index}", "operator": kind, "node": name})
    graph.outputs = outputs
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output()), layers


class _Interpreted(LoadedFile):
    def __init__(self, path: Path, interpreter: Any) -> None:
        self._path, self._interpreter = path, interpreter
        self._inputs = in_order(interpreter.get_input_details())
        (signature,) = interpreter.get_signature_list().values()
        runner = interpreter.get_signature_runner()
        made = runner.get_output_details()
        self._outputs = [made[name]["index"] for name in sorted(signature["outputs"], key=_place)]

    @property
    def input_shapes(self) -> list[Sizes]:
        """Sizes of the inputs."""
        return [tuple(map(int, entry["shape"])) for entry in self._inputs]

    def run(self, batches: Iterable[Batch]) -> Iterator[list[np.ndarray]]:
        """Yield the outputs of a batch when they are requested."""
        for inputs in batches:
            yield samples_of(inputs, self.input_shapes, self._run)

    def _run(self, inputs: Batch) -> list[np.ndarray]:
        try:
            for entry, x in zip(self._inputs, inputs, strict=True):
                self._interpreter.set_tensor(entry["index"], np.ascontiguousarray(x))
            self._interpreter.invoke()
            return [np.array(self._interpreter.get_tensor(index)) for index in self._outputs]
        except Exception as error:
            raise PrunecError(f"LiteRT cannot run {self._path}: {first_line(error)}") from error


def in_order(inputs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the inputs of an interpreter in the order of the network's.

    LiteRT lists them in an order of its own; their names end in their numbers.
    """
    return sorted(inputs, key=lambda entry: _place(str(entry["name"])))


def _place(name: str) -> int:
    """Return the number at the end of a name, so that ``output_10`` comes after ``output_9``."""
    digits = name.rpartition("_")[2].partition(":")[0]
    return int(digits) if digits.isdigit() else 0
