"""Native code beside onnxruntime: the same masked network by both, in turns, one image, one thread.

    python tests/bench/native_speed.py [NETWORK ...]

Networks: `resnet50@90.23` (the layers of STR's published run of that sparsity: 79.55, 87.7, 90.23,
95.15, 96.11, 98.05, 98.98), or any of torchvision's with one share of zeros everywhere:
`resnet18@90`. onnxruntime gains nothing by zeros: its time is the dense network's. On a machine
that does other work only the ratio holds.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent / "cost"))
from published_resnet50 import STR, str_density

from prunec.artifact import Artifact
from prunec.deploy.exporter import Source
from prunec.deploy.runner import once
from prunec.deploy.runners.native import Native
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.deploy.timing import interleaved
from prunec.exporters.to_c import ToC
from prunec.exporters.to_onnx import ToOnnx
from prunec.graph.rewriting.fold_batch_norms import fold_batch_norms

NETWORKS = (
    *(f"resnet50@{sparsity}" for sparsity in ("0", *STR)),
    *(f"{name}@{zeros}" for name in ("resnet18", "mobilenet_v2") for zeros in (0, 90, 95)),
)


def masked(name: str, zeros: str) -> nn.Module:
    """A network of torchvision, weights random, as many of them zero as published or said."""
    torch.manual_seed(0)
    module: nn.Module = getattr(torchvision.models, name)(weights=None).eval()
    known: Mapping[str, float] = str_density(zeros) if name == "resnet50" and zeros in STR else {}
    for layer, part in module.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            density = known.get(layer, 1 - float(zeros) / 100)
            with torch.no_grad():
                part.weight.mul_(_mask(part.weight, density))
    return module


def _mask(weight: Tensor, density: float) -> Tensor:
    kept = torch.zeros(weight.numel())
    kept[torch.randperm(weight.numel())[: round(density * weight.numel())]] = 1
    return kept.view_as(weight)


def row(wanted: str, folder: Path) -> str:
    """Export a network, prove the two equal, and time them in turns."""
    name, _, zeros = wanted.partition("@")
    example = (torch.randn(1, 3, 224, 224),)
    module = fold_batch_norms(masked(name, zeros), example)[0]
    artifact = Artifact(module, example)
    ToOnnx()(Source(artifact), folder / "model.onnx")
    size = ToC()(Source(artifact, {}, {"onnx": folder / "model.onnx"}), folder / "model.c").bytes
    ours, theirs = Native().open(folder / "model.c"), Onnxruntime().open(folder / "model.onnx")
    inputs = [x.numpy() for x in example]
    actual, expected = once(ours, inputs)[0], once(theirs, inputs)[0]
    error = float(np.abs(actual - expected).max() / np.abs(expected).max())
    timed = interleaved(lambda: once(ours, inputs), lambda: once(theirs, inputs))
    return (
        f"{wanted:20} {1 / timed.ratio:6.2f} times as fast"
        f"   {timed.shipped_ms:7.1f} ms of {timed.dense_ms:7.1f}"
        f"   {size / 1e6:6.2f} MB   {error:.0e} apart"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for wanted in sys.argv[1:] or NETWORKS:
            print(row(wanted, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
