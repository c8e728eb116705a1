"""Integer programs of ExecuTorch, run by XNNPACK; skipped where it is not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ship_nets import METADATA
from torch import Tensor, nn

from prunec import catalogue
from prunec.artifact import Artifact
from prunec.deploy.exporter import Exported, Source
from prunec.deploy.runner import once
from prunec.errors import PassError
from prunec.exporters.to_onnx import ToOnnx
from prunec.passes.fold_batchnorm import FoldBatchnorm
from prunec.passes.remove_channels import RemoveChannels

pytestmark = [
    pytest.mark.slow,
    *(
        pytest.mark.filterwarnings(f"ignore::{kind}")
        for kind in ("DeprecationWarning", "FutureWarning", "UserWarning")
    ),
]

IMAGES = 255 * torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(7))


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


def exported(net: nn.Module, images: Tensor, folder: Path) -> Exported:
    pytest.importorskip("executorch")
    artifact = FoldBatchnorm()(RemoveChannels()(Artifact(net, (images[:2],))))
    ToOnnx()(Source(artifact, METADATA), folder / "onnx" / "model.onnx")
    source = Source(artifact, METADATA, {"onnx": folder / "onnx" / "model.onnx"})
    return catalogue.exporter("to-executorch-int8")()(source, folder / "model.pte", [(images,)])


def outputs(path: Path, images: Tensor) -> np.ndarray:
    loaded = catalogue.runner_named("executorch").open(path)
    return once(loaded, [images.numpy()])[0]


def test_zero_and_tiny_filters_and_relu6_keep_their_values(tmp_path: Path) -> None:
    """The outputs err as the eight bits of a tensor do; those of XNNPACK's quantiser by half."""
    net = hard_net()
    made = exported(net, IMAGES, tmp_path)
    expected = net(IMAGES).detach().numpy()
    actual = outputs(made.path, IMAGES)
    apart = np.abs(actual - expected).max() / np.ptp(expected)
    assert apart < 0.04, apart
    losses = {loss["tensor"]: loss for loss in made.told["losses"]}  # type: ignore[attr-defined]
    assert set(losses) == {"0.weight", "2.weight", "6.weight"}
    assert all(loss["moved"] == 0 for loss in losses.values()), losses
    assert made.told["remarks"] == []


def test_pads_that_are_unequal_are_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 4, padding="same"), nn.ReLU(), nn.Flatten()).eval()
    with pytest.raises(PassError, match='padding="same" of conv2d pads unequally'):
        exported(net, IMAGES, tmp_path)


def test_every_layer_computes_in_integers(tmp_path: Path) -> None:
    """Kernels take a byte per weight, and nothing runs outside of XNNPACK."""
    net = hard_net()
    made = exported(net, IMAGES, tmp_path)
    operators = catalogue.exporter("to-executorch-int8")().operators(made.path)
    assert operators is not None
    kinds = [kind for _, kind in operators]
    assert all(kind.startswith("XNN") for kind in kinds), kinds
    assert "XNNClamp" not in kinds  # ReLU6 is the range of its layer
    kernels = sum(p.numel() for p in net.parameters() if p.dim() > 1)
    assert made.bytes < 2 * kernels + 8000
