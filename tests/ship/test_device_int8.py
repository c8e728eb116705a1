"""Integer files of ExecuTorch and LiteRT under their own runtimes; skipped where one is missing."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ship_nets import METADATA
from torch import Tensor, nn

from prunec import catalogue
from prunec.artifact import Artifact
from prunec.deploy.exporter import Exported, Source
from prunec.deploy.gate import verify_file
from prunec.deploy.runner import once
from prunec.errors import PassError
from prunec.exporters._int8_scales import LARGEST, filter_scales
from prunec.exporters._int8_search import with_idle_producers
from prunec.exporters.to_onnx import ToOnnx
from prunec.passes.fold_batchnorm import FoldBatchnorm
from prunec.passes.remove_channels import RemoveChannels
from prunec.recipe import VerifySpec
from prunec.tasks.task import Classification

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}")
    for kind in ("DeprecationWarning", "FutureWarning", "UserWarning")
]

PACKAGES = {
    "executorch-int8": ("executorch",),
    "litert-int8": ("litert_torch", "ai_edge_litert", "ai_edge_quantizer"),
}
IMAGES = 255 * torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(7))
ANY = {"agreement": 0.0, "accuracy_drop": 100.0, "percentiles": (100.0,)}
every = pytest.mark.parametrize("form", [pytest.param(f, marks=pytest.mark.slow) for f in PACKAGES])


def hard_net() -> nn.Module:
    """Bytes as input, ReLU6, explicit and "same" pads; filters of zeros with biases, tiny ones."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding="same"),
        nn.ReLU6(inplace=True),
        nn.Conv2d(16, 16, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    first, second = net[0], net[2]
    with torch.no_grad():
        first.weight.mul_(0.1)
        first.weight[:2] = 0
        first.bias[:2] = torch.tensor([0.4, 5.0])
        second.weight[3] = 0
        second.bias[3] = 1.7
        for values in (second.weight, second.bias):
            values *= 1e-6  # below the floor of XNNPACK's own quantiser
        net[6].weight *= 1e6
    return net.eval()


class Uneven(nn.Module):
    """A channel of the input is a thousand times as large, and takes the steps of the sum."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.shift = nn.Parameter(torch.randn(3, 1, 1))
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.last = nn.Linear(16, 4)
        with torch.no_grad():
            logits = self(torch.randn(64, 3, 16, 16))
            deviation = logits.std(0)
            self.last.weight.div_(deviation[:, None])
            self.last.bias.sub_(logits.mean(0)).div_(deviation)
            self.shift[0] *= 3000
            self.first.weight[:, 0] /= 3000

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x + self.shift))
        return self.last(torch.relu(self.second(y)).mean((2, 3)))


class Mixed(nn.Module):
    """Kernels without bias, shared, grouped and transposed; a gate; two inputs and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(16, 16, 3, groups=4, padding="same", bias=False)
        self.shared = nn.Conv2d(16, 16, 1)
        self.gate = nn.Conv2d(16, 16, 1)
        self.up = nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1)
        self.last = nn.Linear(24, 5)

    def forward(self, x: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        y = nn.functional.silu(self.grouped(nn.functional.hardswish(self.first(x))))
        y = self.shared(nn.functional.leaky_relu(self.shared(torch.relu(y))))
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        up = nn.functional.max_pool2d(self.up(torch.relu(y)), 2)
        return self.last(torch.cat([y, up], 1).mean((2, 3))) + offset, up


class Split:
    task = Classification(4)

    def __init__(self, module: nn.Module, images: Tensor) -> None:
        self._module, self._images = module, images

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        with torch.no_grad():
            yield self._images, self._module(self._images).argmax(1)


def exported(
    form: str, net: nn.Module, images: Tensor, folder: Path, *others: Tensor, **options: Any
) -> tuple[Exported, Artifact]:
    for package in PACKAGES[form]:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'prunec[{form[:-5]}]'")
    example = tuple(x[:2] for x in (images, *others))
    artifact = FoldBatchnorm()(RemoveChannels()(Artifact(net, example)))
    ToOnnx()(Source(artifact, METADATA), folder / "onnx" / "model.onnx")
    source = Source(artifact, METADATA, {"onnx": folder / "onnx" / "model.onnx"})
    writer = catalogue.exporter(f"to-{form}")(**options)
    return writer(source, folder / f"model{writer.suffix}", [(images, *others)]), artifact


def outputs(path: Path, images: Tensor) -> np.ndarray:
    loaded = catalogue.runner_for(path.suffix).open(path)
    return once(loaded, [images.numpy()])[0]


@every
def test_integers_keep_zero_and_tiny_filters_and_relu6(form: str, tmp_path: Path) -> None:
    """The outputs err as the eight bits of a tensor do, and every layer is integer."""
    net = hard_net()
    made, _ = exported(form, net, IMAGES, tmp_path, **ANY)
    expected = net(IMAGES).detach().numpy()
    actual = outputs(made.path, IMAGES)
    apart = np.abs(actual - expected).max() / np.ptp(expected)
    assert apart < 0.04, apart
    losses = {loss["tensor"]: loss for loss in made.told["losses"]}  # type: ignore[attr-defined]
    assert set(losses) == {"0.weight", "2.weight", "6.weight"}
    assert all(loss["moved"] == 0 for loss in losses.values()), losses
    assert made.told["remarks"] == []
    assert (made.told["integer layers"], made.told["layers"]) == (3, 3)
    kinds = [kind for _, kind in catalogue.exporter(f"to-{form}")().operators(made.path) or ()]
    if form == "litert-int8":
        assert [kinds.count(end) for end in ("QUANTIZE", "DEQUANTIZE")] == [1, 1]
        assert not {"RELU", "RELU6"} & set(kinds)
    else:
        assert all(kind.startswith("XNN") for kind in kinds), kinds
        assert "XNNClamp" not in kinds  # ReLU6 is the range of its layer
    kernels = sum(p.numel() for p in net.parameters() if p.dim() > 1)
    assert made.bytes < 2 * kernels + 8000  # a byte a weight


@every
def test_other_layers_and_ends_err_as_eight_bits_do(form: str, tmp_path: Path) -> None:
    net, offset = Mixed().eval(), torch.rand(24, 5)
    images = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(7))
    made, _ = exported(form, net, images, tmp_path, offset, **ANY)
    actual = once(catalogue.runner_for(made.path.suffix).open(made.path),
                  [images.numpy(), offset.numpy()])  # fmt: skip
    for ours, theirs in zip(net(images, offset), actual, strict=True):
        gap = ours.detach().numpy() - theirs
        assert np.sqrt(np.square(gap).mean()) < 0.02 * np.ptp(theirs)
    losses = {loss["tensor"]: loss["moved"] for loss in made.told["losses"]}  # type: ignore[attr-defined]
    kernels = {name for name, values in net.named_parameters() if values.dim() > 1}
    assert losses == dict.fromkeys(kernels, 0)
    assert made.told["integer layers"] == made.told["layers"] == 7


@pytest.mark.slow
def test_pads_that_are_unequal_are_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 4, padding="same"), nn.ReLU(), nn.Flatten()).eval()
    with pytest.raises(PassError, match='padding="same" of conv2d pads unequally'):
        exported("executorch-int8", net, IMAGES, tmp_path, **ANY)


@every
def test_layers_stay_float_until_the_bounds_hold(form: str, tmp_path: Path) -> None:
    """The one that needs it, and the sum that it alone reads; the file is then proven."""
    net = Uneven().eval()
    images = torch.randn(48, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    images[:, 0] *= 3000
    bounds = {"agreement": 0.85, "accuracy_drop": 15.0, "percentiles": (100.0,)}
    made, artifact = exported(form, net, images, tmp_path, **bounds)
    left = made.told["float layers"]
    assert list(left) == ["first.weight"]  # type: ignore[call-overload]
    assert (made.told["integer layers"], made.told["layers"]) == (2, 3)
    (remark,) = made.told["remarks"]  # type: ignore[misc]
    assert "first.weight is float: integers in it alone move" in remark
    report = verify_file(
        made.path,
        artifact.module,
        artifact.example,
        exporter=catalogue.exporter(f"to-{form}")(**bounds),
        runner=catalogue.runner_for(made.path.suffix),
        spec=VerifySpec(),
        torch_cost=artifact.cost,
        data=Split(artifact.module, images),  # type: ignore[arg-type]
    )
    assert report.passed, report.failures
    assert "top-1 agreement" in {check.name for check in report.checks}


def test_a_result_that_float_operations_alone_read_is_float() -> None:
    """Beside the definition, tried on all sets: the largest set of operations that is closed."""
    reads = {"pad": {"conv"}, "sum": {"conv", "pool"}, "pool": {"pad", "view"}, "view": {"linear"},
             "idle": set[str](), "last": {"output"}}  # fmt: skip
    order = ["last", "idle", "sum", "pool", "view", "pad"]  # of computation, if pad reads pool
    for left in ({"conv"}, {"linear"}, {"conv", "linear"}, set[str]()):
        closed = [
            set(some) | left
            for size in range(len(reads) + 1)
            for some in itertools.combinations(reads, size)
            if all(reads[name] and reads[name] <= set(some) | left for name in some)
        ]
        expected = max(closed, key=len)
        assert with_idle_producers(order, reads.__getitem__, left) == expected


@pytest.mark.parametrize("step", [1e-6, 0.02, 300.0])
def test_scales_keep_biases_and_round_weights_by_half_a_step(step: float) -> None:
    """In 32 bits with room for the products; a bias rounded by half a step of its layer's sums."""
    rng = np.random.default_rng(2)
    kernel = rng.normal(size=(64, 9)) * 10.0 ** rng.integers(-9, 3, size=(64, 1))
    kernel[:8] = 0
    bias = rng.normal(size=64) * 10.0 ** rng.integers(-6, 4, size=64)
    bias[4:12] = 0
    scales = filter_scales(kernel, bias, step)
    assert (scales > 0).all()
    integers = np.round(kernel / scales[:, None])
    assert np.abs(integers).max() <= LARGEST
    assert (np.abs(integers * scales[:, None] - kernel) <= scales[:, None] / 2 * 1.0001).all()
    stored = np.round(bias / (scales * step))
    assert np.abs(stored).max() <= 2**28
    assert (np.abs(stored * scales * step - bias) <= scales * step / 2 * 1.0001).all()
    kept = np.abs(stored[:4] * scales[:4] * step / bias[:4] - 1)  # of filters of zeros
    assert kept.max() < 2.0**-28
    plain = filter_scales(kernel, None, step)
    assert (plain[8:] == np.abs(kernel[8:]).max(1) / LARGEST).all()
