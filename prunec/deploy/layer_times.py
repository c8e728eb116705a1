"""What layers take under a runner, over channel counts: measured once, then read from a table.

A layer is timed as a file of its own: the layer, a 1×1 convolution from few channels before it and
one to few behind it, for a runtime that works on blocks of channels works on them within a network
and not at its ends. What those two take alone, at the same counts, is taken off. Layers that are
asked for together run in turns; a layer's time is the lower quartile over rounds of the fastest run
of a block, for what else a machine does only ever adds to it. The table of a runner, its versions
and this machine lies in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from prunec.deploy.runner import Runner
from prunec.deploy.timing import Block, quartiles
from prunec.errors import PrunecError, RunError
from prunec.files import cache_folder, write_text_atomic
from prunec.graph.channels.counted import LayerShape

ROUNDS = 7
FEW = 8
"""Channels at the ends of a file that is timed."""
_TOGETHER = 16
_SCHEMA = 1
_LEAST = 0.02
"""Of what a file takes, the least that its layer is said to."""


class LayerTimes:
    """Milliseconds of layers under a runner: those that the table lacks are measured.

    Attributes:
        measured: how many files were timed by this object.
    """

    def __init__(self, runner: Runner, folder: Path | None = None) -> None:
        """Read the table.

        Args:
            runner: what runs them.
            folder: where tables lie; the user's cache folder where none is given.

        Raises:
            PrunecError: the runner cannot be reached, or its times say nothing.
        """
        if runner.timeless:
            raise PrunecError(
                runner.timeless, remedy="Name onnxruntime, or a board: ssh://user@board."
            )
        self._runner = runner
        self._said = {"schema": _SCHEMA, "of": asdict(runner.identity), "processor": _processor()}
        text = json.dumps(self._said, sort_keys=True)
        name = f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        self._path = (folder or cache_folder() / "layer-times") / name
        self._known = self._read()
        self.measured = 0

    def __call__(self, layers: Sequence[LayerShape]) -> list[float]:
        """Return what each of some layers takes, in milliseconds.

        Raises:
            PrunecError: the runner cannot run one, or its times say nothing.
        """
        parts = [_parts(layer) for layer in layers]
        self._measure(shape for one in parts for shape, _ in one)
        return [self._of(one) for one in parts]

    @property
    def told(self) -> str:
        """Whose times these are, and how many were measured now, in words."""
        of = self._runner.identity
        return (
            f"the layers' times under {of.name} {of.version}, {of.device}: {len(self._known)} in "
            f"the table, {self.measured} measured now"
        )

    def _of(self, parts: Sequence[tuple[LayerShape, float]]) -> float:
        times = [self._known[_key(shape)] * factor for shape, factor in parts]
        return max(sum(times), _LEAST * times[0])

    def _measure(self, shapes: Iterable[LayerShape]) -> None:
        missing = {_key(shape): shape for shape in shapes}
        missing = {key: shape for key, shape in missing.items() if key not in self._known}
        for some in _chunks(list(missing.items())):
            with tempfile.TemporaryDirectory() as folder:
                files = [Path(folder) / f"{place}.onnx" for place in range(len(some))]
                blocks = [self._block(shape, f) for (_, shape), f in zip(some, files, strict=True)]
                rounds = [[block.fastest() for block in blocks] for _ in range(ROUNDS)]
            for (key, _), times in zip(some, zip(*rounds, strict=True), strict=True):
                self._known[key] = 1e3 * quartiles(times)[0]
            self.measured += len(some)
        if missing:
            self._write()

    def _block(self, shape: LayerShape, path: Path) -> Block:
        onnx.save(layer_file(shape), path)
        loaded = self._runner.open(path)
        return Block(loaded.timed(loaded.noise(1)), seconds=0.003, least=3)

    def _read(self) -> dict[str, float]:
        with suppress(OSError, ValueError, TypeError, KeyError):
            found = json.loads(self._path.read_text("utf-8"))
            times = {str(key): float(value) for key, value in found["times"].items()}
            if found["said"] == self._said and all(value > 0 for value in times.values()):
                return times
        return {}

    def _write(self) -> None:
        text = json.dumps({"said": self._said, "times": self._known}, indent=0)
        with suppress(RunError):  # it is measured again next time
            write_text_atomic(self._path, text)


def layer_file(shape: LayerShape) -> onnx.ModelProto:
    """Return a file of one layer, of one sample, with 1×1 convolutions around a convolution."""
    sizes = [shape.inner] if shape.kind == "linear" else [FEW, *shape.size]
    first = shape.size if shape.kind == "linear" else (1,)
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, [*first, *sizes])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes, weights = _linear(shape) if shape.kind == "linear" else _convolutions(shape)
    graph = helper.make_graph(nodes, "layer", [taken], [made], weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def _linear(shape: LayerShape) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    return [node], [_random("w", (shape.outer, shape.inner))]


def _convolutions(shape: LayerShape) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    ones = (1,) * len(shape.size)
    nodes = [helper.make_node("Conv", ["x", "a"], ["before"])]
    weights = [_random("a", (shape.inner, FEW, *ones))]
    last = "before"
    if shape.taps:
        options: dict[str, Any] = {
            "strides": shape.stride,
            "pads": shape.padding,
            "dilations": shape.dilation,
        }
        nodes.append(helper.make_node("Conv", [last, "w"], ["z"], group=shape.groups, **options))
        weights.append(_random("w", (shape.outer, shape.inner // shape.groups, *shape.taps)))
        last = "z"
    nodes.append(helper.make_node("Conv", [last, "b"], ["y"]))
    return nodes, [*weights, _random("b", (FEW, shape.outer, *ones))]


def _random(name: str, sizes: tuple[int, ...]) -> TensorProto:
    values = np.random.default_rng(0).standard_normal(sizes, np.float32) * 0.05
    return numpy_helper.from_array(values, name)


def _parts(layer: LayerShape) -> list[tuple[LayerShape, float]]:
    """The files whose times make up a layer's, each with its factor; the one with it first."""
    if layer.kind == "linear":
        return [(layer, 1.0)]
    ends = ((layer.inner, layer.size), (layer.outer, _after(layer)))
    return [(layer, 1.0), *((_end(count, size), -0.5) for count, size in ends)]


def _end(count: int, size: tuple[int, ...]) -> LayerShape:
    """The two 1×1 convolutions around nothing."""
    return LayerShape("conv", count, count, size=size)


def _after(layer: LayerShape) -> tuple[int, ...]:
    """Positions behind a convolution."""
    rank = len(layer.size)
    pads = [layer.padding[i] + layer.padding[rank + i] for i in range(rank)]
    each = zip(layer.size, pads, layer.taps, layer.dilation, layer.stride, strict=True)
    return tuple((n + pad - d * (k - 1) - 1) // step + 1 for n, pad, k, d, step in each)


def _key(shape: LayerShape) -> str:
    return json.dumps(list(asdict(shape).values()), separators=(",", ":"))


def _chunks(
    items: list[tuple[str, LayerShape]],
) -> Iterator[list[tuple[str, LayerShape]]]:
    for start in range(0, len(items), _TOGETHER):
        yield items[start : start + _TOGETHER]


def _processor() -> str:
    """This machine's processor, as Linux names it; of a device its identity says it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return ""
