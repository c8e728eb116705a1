"""Native code beside onnxruntime: the same masked network by both, in turns, one image.

    python tests/bench/native_speed.py [--threads N] [--flags=FLAGS] [--beside] [--int8] [--sweep]
                                       [NETWORK ...]

Networks: `resnet50@90.23` (the layers of STR's published run of that sparsity: 79.55, 87.7, 90.23,
95.15, 96.11, 98.05, 98.98), or any of torchvision's with one share of zeros everywhere:
`resnet18@90`; `mobilenet_v1@90`, its stem and depthwise layers dense (Zhu and Gupta's layout:
89.03 % of all weights), and `resnet34_cifar@99.9` at 32×32. With `--sweep` networks without a share
(`resnet18`): from 0 to 100 % zeros in steps of ten.

`--threads`: of both (1). `--flags`: further compiler flags for the C code, such as
`--flags=-DPRUNEC_MOST=2`; onnxruntime stays as it is. `--beside`: the network under OpenVINO in
float32, ExecuTorch and LiteRT with XNNPACK too, where they are installed, on one thread, and the
ratio to the fastest of them. `--int8`: the network with integer kernels too, as C and in
onnxruntime, each in turns with onnxruntime's float32 (calibrated on the one image: the time does
not depend on the ranges). onnxruntime gains nothing by zeros: its time is the dense network's. On a
machine that does other work only the ratio holds. Bytes are those of all files: kernels, source,
weights, example.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent / "cost"))
from published_resnet50 import STR, str_density

from prunec import catalogue
from prunec.artifact import Artifact, Step
from prunec.deploy.exporter import Source
from prunec.deploy.native.library import load_with_threads
from prunec.deploy.runner import LoadedFile, once
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.deploy.timing import interleaved
from prunec.errors import PrunecError
from prunec.exporters.to_c import ToC
from prunec.exporters.to_c_int8 import ToCInt8
from prunec.exporters.to_int8 import ToInt8
from prunec.exporters.to_onnx import ToOnnx
from prunec.graph.rewriting.fold_batch_norms import fold_batch_norms
from prunec.models.mobilenet_v1 import mobilenet_v1

NETWORKS = (
    *(f"resnet50@{sparsity}" for sparsity in ("0", *STR)),
    *(f"{name}@{zeros}" for name in ("resnet18", "mobilenet_v2") for zeros in (0, 90, 95)),
    "mobilenet_v1@90",
    "resnet34_cifar@99.9",
)
ENGINES = {"openvino": ".xml", "executorch": ".pte", "litert": ".tflite"}
"""Exporter of another engine → suffix of its file."""


def _resnet34_cifar() -> nn.Module:
    """ResNet-34 for 32×32: a 3×3 stem of step 1, no pooling behind it."""
    module = torchvision.models.resnet34(weights=None, num_classes=10)
    module.conv1, module.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return module


OWN: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v1": mobilenet_v1,
    "resnet34_cifar": _resnet34_cifar,
}


def masked(name: str, zeros: str) -> nn.Module:
    """A network, weights random, as many of them zero as published or said."""
    torch.manual_seed(0)
    make = OWN.get(name) or getattr(torchvision.models, name)
    module: nn.Module = make().eval()
    known: Mapping[str, float] = str_density(zeros) if name == "resnet50" and zeros in STR else {}
    for layer, part in module.named_modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.bias, std=0.1)  # or all biases were one array of zeros
        if isinstance(part, nn.Conv2d | nn.Linear):
            density = known.get(layer, 1 - float(zeros) / 100)
            if name == "mobilenet_v1" and part.weight[0].numel() < 32:  # stem, depthwise layers
                density = 1.0
            with torch.no_grad():
                part.weight.mul_(_mask(part.weight, density))
    return module


def _mask(weight: Tensor, density: float) -> Tensor:
    kept = torch.zeros(weight.numel())
    kept[torch.randperm(weight.numel())[: round(density * weight.numel())]] = 1
    return kept.view_as(weight)


def row(wanted: str, folder: Path, given: argparse.Namespace) -> Iterator[str]:
    """Export a network, prove the two equal, and time them in turns."""
    name, _, zeros = wanted.partition("@")
    side = 32 if name.endswith("_cifar") else 224
    example = (torch.randn(1, 3, side, side),)
    module = fold_batch_norms(masked(name, zeros), example)[0]
    step = Step("fold", {}, ("compact", "folded"), (1, 1), (1, 1), None, 0.0, "")
    artifact = Artifact(module, example, history=(step,))
    source = Source(artifact, {}, {"onnx": folder / "model.onnx"})
    ToOnnx()(source, folder / "model.onnx")
    path = ToC()(source, folder / "c" / "model.c").path
    size = sum(file.stat().st_size for file in path.parent.iterdir())
    ours = load_with_threads(path, given.threads, given.flags)
    theirs = Onnxruntime(threads=given.threads).open(folder / "model.onnx")
    inputs = [x.numpy() for x in example]
    made, expected = once(ours, inputs)[0], once(theirs, inputs)[0]
    error = float(np.abs(made - expected).max() / np.abs(expected).max())
    timed = interleaved(lambda: once(ours, inputs), lambda: once(theirs, inputs))
    nonzero = sum(int(x.count_nonzero()) for x in module.parameters() if x.ndim > 1)
    yield (
        f"{wanted:20} {1 / timed.ratio:6.2f} times as fast"
        f"   {timed.shipped_ms:7.2f} ms of {timed.dense_ms:7.2f}"
        f"   {size / 1e6:6.2f} MB, {size / max(nonzero, 1):.2f} bytes a nonzero weight"
        f"   {error:.0e} apart"
    )
    if given.beside:
        yield from _engines(source, folder, ours, 1 / timed.ratio)
    if given.int8:
        yield from _integers(source, folder, theirs, given, nonzero)


def _integers(
    source: Source, folder: Path, dense: LoadedFile, given: argparse.Namespace, nonzero: int
) -> Iterator[str]:
    """Time the network with integer kernels, as C and in onnxruntime, beside float32 there."""
    inputs, file = [x.numpy() for x in source.example], folder / "int8" / "model.onnx"
    ToInt8(agreement=0.0, accuracy_drop=100.0)(source, file, [source.example])
    source = Source(source.artifact, {}, {"int8": file})
    path = ToCInt8()(source, folder / "c8" / "model.c", [source.example]).path
    size = sum(each.stat().st_size for each in path.parent.iterdir())
    ours = load_with_threads(path, given.threads, given.flags)
    theirs = Onnxruntime(threads=given.threads).open(file)
    made, expected = once(ours, inputs)[0], once(theirs, inputs)[0]
    error = float(np.abs(made - expected).max() / np.abs(expected).max())
    timed = interleaved(lambda: once(ours, inputs), lambda: once(dense, inputs))
    yield (
        f"{'  int8':20} {1 / timed.ratio:6.2f} times as fast"
        f"   {timed.shipped_ms:7.2f} ms of {timed.dense_ms:7.2f}"
        f"   {size / 1e6:6.2f} MB, {size / max(nonzero, 1):.2f} bytes a nonzero weight"
        f"   {error:.0e} apart from onnxruntime's int8"
    )
    timed = interleaved(lambda: once(theirs, inputs), lambda: once(dense, inputs))
    yield (
        f"{'  onnxruntime int8':20} {1 / timed.ratio:6.2f} times as fast"
        f"   {timed.shipped_ms:7.2f} ms of {timed.dense_ms:7.2f}"
    )


def _engines(source: Source, folder: Path, ours: LoadedFile, ratio: float) -> Iterator[str]:
    """Time the network under other engines, each in turns with ours; the least ratio of all."""
    inputs, ratios = [x.numpy() for x in source.example], {"onnxruntime": ratio}
    for engine, suffix in ENGINES.items():
        path = folder / engine / f"model{suffix}"
        try:
            catalogue.exporter(f"to-{engine}")()(source, path)
            theirs = catalogue.runner_for(suffix).open(path)
        except PrunecError as error:
            yield f"{'':8}{engine}: {error.message}"
            continue
        timed = interleaved(lambda: once(ours, inputs), lambda: once(theirs, inputs))  # noqa: B023
        ratios[engine] = 1 / timed.ratio
        yield f"{'':8}{engine:12} {1 / timed.ratio:6.2f}   {timed.dense_ms:7.2f} ms"
    fastest = min(ratios, key=lambda engine: ratios[engine])
    yield f"{'':8}{ratios[fastest]:.2f} times as fast as the fastest dense, {fastest}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--flags", type=str.split, default=[])
    parser.add_argument("--beside", action="store_true")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("networks", nargs="*")
    given = parser.parse_args()
    networks = given.networks or NETWORKS
    if given.sweep:
        networks = [f"{name}@{zeros}" for name in networks for zeros in range(0, 101, 10)]
    for wanted in networks:
        with tempfile.TemporaryDirectory() as folder:
            for line in row(wanted, Path(folder), given):
                print(line, flush=True)


if __name__ == "__main__":
    main()
