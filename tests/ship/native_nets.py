"""Networks for native code, and the one way in which its tests write them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ship_nets import METADATA
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.deploy.exporter import Source
from prunec.deploy.native.library import Compiled
from prunec.deploy.native.lowering import lower
from prunec.deploy.native.reading import read_network
from prunec.deploy.runner import once
from prunec.deploy.runners.native import Native
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.exporters.to_c import ToC
from prunec.exporters.to_onnx import ToOnnx

_Masked = (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d, nn.ConvTranspose3d, nn.Linear)
need_compiler = pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler is installed")


Pick = Callable[[tuple[str, ...]], str]
"""The kernel of a layer: its own, then the others that fit → one of them."""


def exported(
    module: nn.Module, example: tuple[Tensor, ...], folder: Path, pick: Pick | None = None
) -> Path:
    artifact = Artifact(module.eval(), example)
    onnx = ToOnnx()(Source(artifact), folder / "model.onnx").path
    choices = lower(read_network(onnx)).choices if pick else {}
    kernels = {name: pick(fits) for name, fits in choices.items()} if pick else {}
    source = Source(artifact, METADATA, {"onnx": onnx})
    return ToC(kernels=kernels)(source, folder / "c" / "model.c").path


def in_columns(fits: tuple[str, ...]) -> str:
    return "columns" if "columns" in fits else fits[0]


def distance(path: Path, inputs: list[np.ndarray], loaded: Compiled | None = None) -> list[float]:
    """The difference of every output to onnxruntime's, in shares of its largest value."""
    ours = once(loaded or Native().open(path), inputs)
    theirs = once(Onnxruntime().open(path.parent.parent / "model.onnx"), inputs)
    assert [x.shape for x in ours] == [x.shape for x in theirs]
    pairs = zip(ours, theirs, strict=True)
    return [float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in pairs]


def masked(module: nn.Module, density: float) -> nn.Module:
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, _Masked):
                part.weight.mul_(torch.rand_like(part.weight) < density)
    return module


class Beside(nn.Module):
    """Networks beside each other, each with an input and an output: built once for all of them."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        return [part(x) for part, x in zip(self.parts, inputs, strict=True)]


class Everything(nn.Module):
    """One network with what the kernels do beside convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.side = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.deep = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.halved = nn.Conv2d(8, 8, 3, 2, 1, groups=8)
        self.up, self.norm = nn.ConvTranspose2d(16, 8, 3, 2, 1, 1), nn.BatchNorm2d(8)
        self.last, self.head = nn.Conv2d(8, 32, (3, 2)), nn.Linear(32 * 9, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x).relu()
        x = (self.two(self.one(x).relu()) + self.side(x)).relu()
        x = x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        x = x + F.interpolate(self.halved(x), size=(7, 8), mode="bilinear")
        x = torch.cat([x, F.silu(self.deep(x))], 1)
        x = x.unflatten(1, (2, 8)).transpose(1, 2).flatten(1, 2)  # channels shuffled
        left, right = self.norm(self.up(x)).chunk(2, 1)
        x = torch.cat([F.max_pool2d(left, 3, 2, 1), F.avg_pool2d(right, 3, 2, 1)], 1)
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.interpolate(x, size=(9, 10), mode="bilinear")
        x = F.pad(self.last(x), (0, 0, 0, 1), mode="replicate")
        x = F.adaptive_avg_pool2d(F.hardswish(x)[:, :, 1:7], (3, 3))
        return self.head(x.flatten(1)).softmax(1), x.amax((2, 3))


class OfIntegers(nn.Module):
    """A network whose every convolution can be integer; no float operator lies between two."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.side = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 24, 1)
        self.one, self.two = nn.Conv2d(8, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1)
        self.deep = nn.Conv2d(24, 24, 5, padding=2, groups=24)
        self.halved = nn.Conv2d(24, 24, 3, 2, 1, groups=24)
        self.last, self.head = nn.Conv2d(24, 32, (3, 2), dilation=(1, 2)), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(self.stem(x).relu(), 3, 1, 1)
        x = (self.two(self.one(x).relu()) + self.side(x)).relu()
        x = x + F.relu6(self.deep(x))
        x = self.last(self.halved(x)).relu()
        return self.head(x.mean((2, 3))), x.amax((2, 3))
