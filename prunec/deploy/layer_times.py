"""Times of layers under a runner over channel counts: measured once, then read from a table.

A layer is timed in a file of its own: the layer with a 1×1 convolution from few channels before it
and one to few channels after it, because runtimes that compute in blocks of channels use them
inside a network but not at its ends. The time of those two alone, at the same counts, is
subtracted. Layers that are requested together run in turns. A layer's time is the lower quartile
over rounds of the fastest run of a block, because other work on the machine only adds time. The
table of a runner, its versions and this machine is in the user's cache folder.
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

ROUNDS = 7  # blocks of each file
FEW = 8
"""Channels at the ends of a timed file."""
_TOGETHER = 16  # files that run in turns with each other
_SCHEMA = 1
_LEAST = 0.02
"""Least share of a file's time for its layer: noise of the difference must not make it negative."""


class LayerTimes:
    """Milliseconds of layers under a runner; times that the table lacks are measured.

    Attributes:
        measured: number of files timed by this object.
    """

    def __init__(self, runner: Runner, folder: Path | None = None) -> None:
        """Read the table.

        Args:
            runner: runner of the layers.
            folder: folder of the tables; by default in the user's cache folder.

        Raises:
            PrunecError: the runner cannot be reached, or its times are meaningless.
        """
        if runner.timeless:
            raise PrunecError(
                runner.timeless, remedy="Name onnxruntime, or a board: ssh://user@board."
            )
        self._runner = runner
        self._conditions = {
            "schema": _SCHEMA,
            "of": asdict(runner.identity),
            "processor": _processor(),
        }
        text = json.dumps(self._conditions, sort_keys=True)
        name = f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        self._path = (folder or cache_folder() / "layer-times") / name
        self._known = self._read()
        self.measured = 0

    def __call__(self, layers: Sequence[LayerShape]) -> list[float]:
        """Return the time of each layer, in milliseconds.

        Raises:
            PrunecError: the runner cannot run a layer, or its times are meaningless.
        """
        parts = [_parts(layer) for layer in layers]
        self._measure(shape for one in parts for shape, _ in one)
        return [self._of(one) for one in parts]

    @property
    def description(self) -> str:
        """Runner of the times, and how many were measured now, in words."""
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
            record = json.loads(self._path.read_text("utf-8"))
            times = {str(key): float(value) for key, value in record["times"].items()}
            if record["said"] == self._conditions and all(value > 0 for value in times.values()):
                return times
        return {}

    def _write(self) -> None:
        text = json.dumps({"said": self._conditions, "times": self._known}, indent=0)
        with suppress(RunError):  # times that cannot be stored are measured again next time
            write_text_atomic(self._path, text)


def layer_file(shape: LayerShape) -> onnx.ModelProto:
    """Return a file of one layer for one sample, with 1×1 convolutions around a convolution."""
    sizes = [shape.inner] if shape.kind == "linear" else [FEW, *shape.size]
    first = shape.size if shape.kind == "linear" else (1,)
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, [*first, *sizes])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes, weights = _linear(shape) if shape.kind == "linear" else _convolutions(shape)
    graph = helper.make_graph(nodes, "layer", [taken], [made], weights)
    # IR version 8 belongs to opset 17.
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
    """Return the files that make up a layer's time, with factors; the first contains the layer."""
    if layer.kind == "linear":
        return [(layer, 1.0)]
    # A file of two equal ends is twice the end on that side: half of each is subtracted.
    ends = ((layer.inner, layer.size), (layer.outer, _after(layer)))
    return [(layer, 1.0), *((_end(count, size), -0.5) for count, size in ends)]


def _end(count: int, size: tuple[int, ...]) -> LayerShape:
    """Return the shape of the two 1×1 convolutions without a layer between."""
    return LayerShape("conv", count, count, size=size)


def _after(layer: LayerShape) -> tuple[int, ...]:
    """Return the output size of a convolution per axis."""
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
    """Return the name of this machine's processor on Linux; empty elsewhere."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return ""
