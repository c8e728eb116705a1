"""ncnn on this machine's processor, in float32."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import ncnn
import numpy as np

from prunec.deploy.runner import Batch, Between, Identity, LoadedFile, Runner, Sizes
from prunec.errors import PrunecError
from prunec.wording import first_line


@dataclass(frozen=True)
class Ncnn(Runner):
    """Runner of ncnn files, one sample at a time; half precision, bfloat16 and integers are off."""

    suffixes: ClassVar[frozenset[str]] = frozenset({".param"})

    threads: int = 1

    @property
    def identity(self) -> Identity:
        """Version, threads and precision."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return Identity("ncnn", ncnn.__version__, f"{platform.machine()}, {threads}, f32")

    def open(self, path: Path) -> LoadedFile:
        """Return the network of a file and the weights beside it."""
        return _Net(path, self._loaded(path))

    def between(self, path: Path) -> Between | None:
        """Return the values that an extractor gives of every layer but copies and inputs."""
        # Without light mode, values stay when they have been read, and no layer overwrites them.
        net = self._loaded(path, light=False)
        layers = _layers(path)
        names = [entry["name"] for entry in layers]

        def values(sample: Batch) -> list[np.ndarray]:
            return _extracted(path, net, [x[0] for x in sample], names)

        return Between(layers, b"", values)

    def _loaded(self, path: Path, *, light: bool = True) -> Any:
        net = ncnn.Net()
        net.opt.num_threads, net.opt.lightmode = self.threads, light
        net.opt.use_vulkan_compute = False
        for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(net.opt, f"use_{name}", False)
        if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
            raise PrunecError(f"ncnn cannot load {path}", remedy="Export the file again.")
        return net


def _layers(path: Path) -> list[dict[str, str]]:
    """Return name, operator and node of every value that a layer computes."""
    # The first two lines: ncnn's magic number, and the numbers of layers and values.
    rows = [line.split() for line in path.read_text("utf-8").splitlines()[2:]]
    layers = []
    for kind, node, reads, writes, *rest in filter(None, rows):
        made = rest[int(reads) : int(reads) + int(writes)]
        if kind not in ("Input", "Split"):
            layers += [{"name": name, "operator": kind, "node": node} for name in made]
    return layers


def _extracted(path: Path, net: Any, sample: Batch, names: Sequence[str]) -> list[np.ndarray]:
    """Return values of a network by name, for one sample without a batch axis."""
    try:
        extractor = net.create_extractor()
        for name, x in zip(net.input_names(), sample, strict=True):
            # Mat refers to the array's memory; clone has its own.
            extractor.input(name, ncnn.Mat(np.ascontiguousarray(x)).clone())
        extracted = [extractor.extract(name) for name in names]
    except Exception as error:
        raise PrunecError(f"ncnn cannot run {path}: {first_line(error)}") from error
    if any(wrong for wrong, _ in extracted):
        raise PrunecError(f"ncnn cannot run {path} on inputs of this size")
    return [np.array(values) for _, values in extracted]


class _Net(LoadedFile):
    def __init__(self, path: Path, net: Any) -> None:
        self._path, self._net = path, net

    @property
    def input_shapes(self) -> list[Sizes]:
        """Sizes of the inputs, as their layers store them; a file need not."""
        lines = self._path.read_text("utf-8").splitlines()
        return [_sizes(line.split()[5:]) for line in lines if line.startswith("Input ")]

    def run(self, batches: Iterable[Batch]) -> Iterator[list[np.ndarray]]:
        """Yield the outputs of a batch when they are requested."""
        for inputs in batches:
            by_sample = [self._run([x[i] for x in inputs]) for i in range(len(inputs[0]))]
            yield [np.stack(outputs) for outputs in zip(*by_sample, strict=True)]

    def _run(self, sample: Batch) -> list[np.ndarray]:
        return _extracted(self._path, self._net, sample, self._net.output_names())


def _sizes(parameters: list[str]) -> Sizes:
    """Return the sizes in an Input layer: c (key 2), d (11), h (1), w (0), the batch before."""
    known = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
    return (None, *(int(known[key]) for key in ("2", "11", "1", "0") if key in known))
