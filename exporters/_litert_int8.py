"""Integer version of a LiteRT file, with the ranges of real images.

LiteRT's quantiser decides which operations are integer, and rounds activations. Kernels and biases
are rounded here: its scale of a filter of zeros is one at which the bias overflows 32 bits.
"""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe
from ai_edge_quantizer.qtyping import TFLOperationName
from torch import nn

from prunec.deploy.losses import Stored
from prunec.deploy.runners.litert import in_order
from prunec.exporters._int8_calibration import Inputs, Range, samples_at_once
from prunec.exporters._int8_search import with_idle_producers
from prunec.exporters._litert_file import is_stored, kinds_of, unpack
from prunec.exporters._litert_kernels import (
    Layer,
    drop_unread,
    packed,
    store_values,
    stored_kernels,
    write_integers,
)

_FLOAT = "no_quantize"
_OUTPUT = "the output"
# Operator → places of input, kernel and bias among its operands, and axis of the filters.
_LAYERS = {
    "CONV_2D": (0, 1, 2, 0),
    "DEPTHWISE_CONV_2D": (0, 1, 2, 3),
    "FULLY_CONNECTED": (0, 1, 2, 0),
    "TRANSPOSE_CONV": (2, 1, 3, 0),
}


@dataclass(frozen=True)
class Quantised:
    """Integer file.

    Attributes:
        content: bytes of the file.
        integer: number of integer layers.
        floats: names of the kernels of other layers.
        stored: kernel of the network → its values as integers represent them.
    """

    content: bytes
    integer: int
    floats: Sequence[str]
    stored: Mapping[str, Stored]


class Network:
    """Float file of a network.

    Args:
        model: content of the file; its tensors get names of their own.
        module: the network.
    """

    def __init__(self, model: Any, module: nn.Module) -> None:
        self._model, self._graph = model, model.subgraphs[0]
        _name_apart(self._graph)
        self._kinds = kinds_of(model)
        kernels = stored_kernels(module)
        self._layers: dict[str, Layer] = {}  # first output of a layer → layer
        for op, kind in zip(self._graph.operators, self._kinds, strict=True):
            if kind in _LAYERS and is_stored(model, self._operand(op, _LAYERS[kind][1])):
                self._layers[self._made(op)] = self._layer(op, kind, kernels)

    def values(self, batches: Sequence[Inputs]) -> Iterator[dict[str, np.ndarray]]:
        """Yield tensor → value, for a few images at a time."""
        interpreter = Interpreter(
            model_content=packed(self._model),
            num_threads=1,
            experimental_preserve_all_tensors=True,
        )
        interpreter.allocate_tensors()
        entries, names = in_order(interpreter.get_input_details()), self._ranks

        def values_of(inputs: Inputs) -> dict[str, np.ndarray]:
            for entry, x in zip(entries, inputs, strict=True):
                interpreter.set_tensor(entry["index"], np.ascontiguousarray(x))
            interpreter.invoke()
            return {
                tensor.name.decode(): np.array(interpreter.get_tensor(index))
                for index, tensor in enumerate(self._graph.tensors)
                if tensor.name.decode() in names
            }

        values: Iterator[dict[str, np.ndarray]] = samples_at_once(batches, values_of)
        return values

    def quantised(self, ranges: Mapping[str, Range], left: Collection[str]) -> Quantised:
        """Return the file in which as many layers as possible are integer.

        Args:
            ranges: tensor → range of its values.
            left: names of the kernels whose layers stay float.
        """
        made = quantizer.Quantizer(self._without_biases)
        made.load_quantization_recipe(recipe.static_wi8_ai8())
        for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
            made.update_quantization_recipe(".*", end, algorithm_key=_FLOAT)
        for scope in self._float_scopes(left):
            made.update_quantization_recipe(
                f"^{re.escape(scope)}$", TFLOperationName.ALL_SUPPORTED, algorithm_key=_FLOAT
            )
        ends = {
            name: {
                key: np.full([1] * self._ranks[name], end, np.float32)
                for key, end in zip(("min", "max"), pair, strict=True)
            }
            for name, pair in ranges.items()
        }
        content = made.quantize(
            ends, enable_progress_bar=False, enable_progress_report=False
        ).quantized_model
        return self._with_kernels(unpack(bytes(content)))

    @cached_property
    def _ranks(self) -> dict[str, int]:
        """Float activation → number of its axes."""
        return {
            tensor.name.decode(): 0 if tensor.shape is None else len(tensor.shape)
            for tensor in self._graph.tensors
            if tensor.type == schema.TensorType.FLOAT32 and not is_stored(self._model, tensor)
        }

    @cached_property
    def _without_biases(self) -> bytes:
        """The file with biases of 0, which no scale makes too large for the quantiser."""
        model = copy.deepcopy(self._model)
        graph = model.subgraphs[0]
        for op, kind in zip(graph.operators, self._kinds, strict=True):
            place = _LAYERS[kind][2] if kind in _LAYERS else len(op.inputs)
            if place < len(op.inputs) and op.inputs[place] >= 0:
                tensor = graph.tensors[op.inputs[place]]
                if is_stored(model, tensor):
                    store_values(model, tensor, np.zeros(tensor.shape, np.float32))
        content: bytes = packed(model)
        return content

    def _layer(self, op: Any, kind: str, kernels: Mapping[bytes, tuple[Any, ...]]) -> Layer:
        _, at, beside, axis = _LAYERS[kind]
        tensor = self._operand(op, at)
        kernel = self._stored(tensor)
        name, shape, order = kernels.get(kernel.tobytes(), (tensor.name.decode(), (), ()))
        bias = self._operand(op, beside)
        values = self._stored(bias) if bias and is_stored(self._model, bias) else None
        return Layer(name, kernel, values, axis, shape, order)

    def _operand(self, op: Any, place: int) -> Any:
        index = op.inputs[place] if place < len(op.inputs) else -1
        return self._graph.tensors[index] if index >= 0 else None

    def _made(self, op: Any) -> str:
        name: str = self._graph.tensors[op.outputs[0]].name.decode()
        return name

    def _stored(self, tensor: Any) -> np.ndarray:
        data = np.asarray(self._model.buffers[tensor.buffer].data, np.uint8)
        return data.view(np.float32).reshape(tensor.shape)

    def _float_scopes(self, left: Collection[str]) -> list[str]:
        """Return the scopes, in the quantiser's words, of the operations that stay float."""
        graph = self._graph
        scopes = ["".join(f"{graph.tensors[i].name.decode()};" for i in op.outputs)
                  for op in graph.operators]  # fmt: skip
        readers: dict[str, set[str]] = defaultdict(set)
        source = {i: scope for op, scope in zip(graph.operators, scopes, strict=True)
                  for i in op.outputs}  # fmt: skip
        for op, scope in zip(graph.operators, scopes, strict=True):
            for i in op.inputs:
                readers[source.get(i, "")].add(scope)
        for i in graph.outputs:
            readers[source.get(i, "")].add(_OUTPUT)
        layers = {
            scope: self._layers.get(self._made(op))
            for op, scope in zip(graph.operators, scopes, strict=True)
        }
        floats = {scope for scope, layer in layers.items() if layer and layer.name in left}
        others = [scope for scope in scopes if layers[scope] is None]
        return sorted(with_idle_producers(others, lambda scope: readers[scope], floats))

    def _with_kernels(self, model: Any) -> Quantised:
        """Return the quantiser's file with kernels and biases rounded anew."""
        graph, kinds = model.subgraphs[0], kinds_of(model)
        integer, floats, stored, seen = 0, [], {}, set()
        for op, kind in zip(graph.operators, kinds, strict=True):
            layer = self._layers.get(graph.tensors[op.outputs[0]].name.decode())
            if kind not in _LAYERS or layer is None:
                continue
            given, at, beside, _ = _LAYERS[kind]
            if graph.tensors[op.inputs[at]].type != schema.TensorType.INT8:
                floats.append(layer.name)
                if layer.bias is not None:
                    store_values(model, graph.tensors[op.inputs[beside]], layer.bias)
                continue
            integer += 1
            op.inputs = list(op.inputs)
            for place in (at, beside):
                if place < len(op.inputs) and op.inputs[place] in seen:  # another layer's, too
                    graph.tensors.append(copy.deepcopy(graph.tensors[op.inputs[place]]))
                    op.inputs[place] = len(graph.tensors) - 1
                seen.update(op.inputs[place : place + 1])
            step = float(graph.tensors[op.inputs[given]].quantization.scale[0])
            bias = graph.tensors[op.inputs[beside]] if layer.bias is not None else None
            values = write_integers(model, graph.tensors[op.inputs[at]], bias, layer, step)
            if layer.shape:
                stored[layer.name] = values
        drop_unread(model)
        return Quantised(packed(model), integer, floats, stored)


def _name_apart(graph: Any) -> None:
    """Give tensors that share a name a name of their own: the quantiser knows them by name."""
    seen: set[bytes] = set()
    for index, tensor in enumerate(graph.tensors):
        if tensor.name in seen:
            tensor.name += f";tensor {index}".encode()
        seen.add(tensor.name)
