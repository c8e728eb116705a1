"""Int8 convolutions as graphs, and their outputs by arithmetic on whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from prunec.deploy.native.integer_convolutions import lower_integers
from prunec.deploy.native.quantised import read_quantised
from prunec.deploy.native.source import program, write_program

F32 = np.float32


@dataclass(frozen=True)
class Rounding:
    """Scale and zero point of a tensor."""

    scale: float
    zero: int

    def of(self, values: np.ndarray) -> np.ndarray:
        """Bytes of float values, as ONNX defines QuantizeLinear."""
        return np.clip(np.rint(values / F32(self.scale)) + self.zero, 0, 255).astype(np.int64)

    def undone(self, codes: np.ndarray) -> np.ndarray:
        return (codes - self.zero).astype(F32) * F32(self.scale)


@dataclass(frozen=True)
class Layer:
    """A convolution between two roundings, perhaps with another summand and an activation."""

    x: np.ndarray  # [1, C, H, W] or [1, C, W], float32
    weight: np.ndarray  # int8
    scales: np.ndarray  # of each filter
    bias: np.ndarray  # int32
    given: Rounding
    made: Rounding
    options: dict[str, Any]
    act: str = ""  # Relu, Relu6 or none
    added: Rounding | None = None
    between: Rounding | None = None

    def outputs(self) -> np.ndarray:
        """Return the outputs that a program must make, bit for bit."""
        sums = self.sums()
        shape = [-1 if axis == 1 else 1 for axis in range(sums.ndim)]
        steps = self.scales.astype(np.float64) * self.given.scale
        scale = (steps / self.made.scale).astype(F32).reshape(shape)
        real = sums.astype(F32) * scale
        if self.added:
            other = self.added.of(self.summand(sums.shape)) - self.added.zero
            if self.between:
                ends = [(end - self.between.zero) * F32(self.between.scale) for end in (0, 255)]
                real = np.clip(real, *(F32(float(end) / self.made.scale) for end in ends))
            real = real + other.astype(F32) * F32(self.added.scale / self.made.scale)
        codes = np.clip(np.rint(real) + self.made.zero, 0, 255).astype(np.int64)
        if self.act:
            codes = np.maximum(codes, self.made.zero)
        if self.act == "Relu6":
            most = np.rint(F32(6.0 / self.made.scale)) + self.made.zero
            codes = np.minimum(codes, int(min(most, 255)))
        return self.made.undone(codes)

    def sums(self) -> np.ndarray:
        """Sums of products, by loops over the taps of the kernel, in int64."""
        options, count = self.options, self.x.ndim - 2
        pads = options["pads"]
        around = [(0, 0), (0, 0), *((pads[i], pads[i + count]) for i in range(count))]
        x = np.pad(self.given.of(self.x) - self.given.zero, around)
        kernel, group = self.weight.shape[2:], options["group"]
        steps, gaps = options["strides"], options["dilations"]
        sizes = [
            (x.shape[2 + i] - (kernel[i] - 1) * gaps[i] - 1) // steps[i] + 1 for i in range(count)
        ]
        of_group, inner = len(self.weight) // group, self.weight.shape[1]
        made = np.zeros((1, len(self.weight), *sizes), np.int64)
        for tap in np.ndindex(*kernel):
            windows = tuple(
                slice(tap[i] * gaps[i], tap[i] * gaps[i] + (sizes[i] - 1) * steps[i] + 1, steps[i])
                for i in range(count)
            )
            part = x[(slice(None), slice(None), *windows)]
            for g in range(group):
                own = slice(g * of_group, (g + 1) * of_group)
                weights = self.weight[(own, slice(None), *tap)].astype(np.int64)
                given = part[0, g * inner : (g + 1) * inner]
                made[0, own] += np.tensordot(weights, given, 1)
        return made + self.bias.reshape([-1 if a == 1 else 1 for a in range(made.ndim)])

    @staticmethod
    def summand(shape: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng(7).standard_normal(shape).astype(F32)


class Graph:
    """Layers beside each other, each with its own input and output."""

    def __init__(self, layers: list[Layer]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.held: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.arrays: list[np.ndarray] = []
        for number, layer in enumerate(layers):
            self._append(f"l{number}", layer)

    def save(self, path: Path) -> Path:
        graph = helper.make_graph(self.nodes, "layers", self.inputs, self.outputs, self.held)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path

    def constant(self, name: str, values: np.ndarray) -> str:
        self.held.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, operator: str, operands: list[str], result: str, **options: Any) -> str:
        self.nodes.append(
            helper.make_node(operator, operands, [result], f"{result}_node", **options)
        )
        return result

    def rounded(self, name: str, how: Rounding) -> str:
        numbers = [self.constant(f"{name}_scale", F32(how.scale)),
                   self.constant(f"{name}_zero", np.uint8(how.zero))]  # fmt: skip
        made = self.node("QuantizeLinear", [name, *numbers], f"{name}_q")
        return self.node("DequantizeLinear", [made, *numbers], f"{name}_dq")

    def stored(self, name: str, values: np.ndarray, scales: np.ndarray, axis: int = 0) -> str:
        zero = self.constant(f"{name}_zero", np.zeros(len(scales), values.dtype))
        operands = [self.constant(name, values), self.constant(f"{name}_scale", scales), zero]
        return self.node("DequantizeLinear", operands, f"{name}_dq", axis=axis)

    def given(self, name: str, values: np.ndarray) -> str:
        sizes = ["batch", *values.shape[1:]]
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes))
        self.arrays.append(values)
        return name

    def pooled(self, name: str, x: np.ndarray, how: Rounding, options: dict[str, Any]) -> None:
        """Append a pooling between two roundings."""
        made = self.node(
            "MaxPool", [self.rounded(self.given(name, x), how)], f"{name}_max", **options
        )
        self.result(self.rounded(made, how), x.ndim)

    def signed(self, name: str, x: np.ndarray) -> None:
        """Append a rounding to signed bytes."""
        numbers = [
            self.constant(f"{name}_scale", F32(0.1)),
            self.constant(f"{name}_zero", np.int8(0)),
        ]
        made = self.node("QuantizeLinear", [self.given(name, x), *numbers], f"{name}_q")
        self.result(self.node("DequantizeLinear", [made, *numbers], f"{name}_dq"), x.ndim)

    def result(self, name: str, axes: int) -> None:
        sizes = ["batch", *(f"{name}_{axis}" for axis in range(1, axes))]
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes))

    def _append(self, name: str, layer: Layer) -> None:
        x = self.rounded(self.given(f"{name}_x", layer.x), layer.given)
        scales = layer.scales.astype(F32)
        weight = self.stored(f"{name}_weight", layer.weight, scales)
        steps = (scales.astype(np.float64) * layer.given.scale).astype(F32)
        bias = self.stored(f"{name}_bias", layer.bias.astype(np.int32), steps)
        kernel = list(layer.weight.shape[2:])
        made = self.node(
            "Conv", [x, weight, bias], f"{name}_conv", kernel_shape=kernel, **layer.options
        )
        if layer.added:
            shape = layer.sums().shape
            other = self.rounded(self.given(f"{name}_r", layer.summand(shape)), layer.added)
            made = self.rounded(made, layer.between) if layer.between else made
            made = self.node("Add", [made, other], f"{name}_sum")
        if layer.act == "Relu":
            made = self.node("Relu", [made], f"{name}_act")
        elif layer.act:
            ends = [self.constant(f"{name}_{end}", F32(end)) for end in (0, 6)]
            made = self.node("Clip", [made, *ends], f"{name}_act")
        self.result(self.rounded(made, layer.made), layer.x.ndim)


def compiled(onnx_file: Path, folder: Path) -> Path:
    """Write an int8 file as C."""
    folder.mkdir(parents=True, exist_ok=True)
    made = lower_integers(read_quantised(onnx_file))
    write_program(program(made, {}), folder / "model.c")
    return folder / "model.c"
