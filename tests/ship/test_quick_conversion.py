"""Conversion without a second trace gives the file of torch's own decomposition."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from sampling import slow_case
from torch import Tensor, nn
from torch.nn import functional as F

from prunec.artifact import Artifact
from prunec.deploy.exporter import Source
from prunec.deploy.onnx_operations import graph_of
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.exporters import _onnx_quick
from prunec.exporters.to_onnx import ToOnnx

Rule = Callable[[nn.Module, Tensor], Tensor]


class Net(nn.Module):
    """A convolution and a batch norm, then a rule over (N, 6, 8, 8)."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.again = nn.Conv2d(6, 6, 1)
        self.layer, self.group = nn.LayerNorm(6), nn.GroupNorm(2, 6)
        self.bare, self.wide = nn.BatchNorm2d(6, affine=False), nn.Linear(6, 4)
        self.rule = rule
        nn.init.uniform_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)
        self.eval()

    def forward(self, input: Tensor) -> Tensor:  # a name of Python's own, as layers have it
        return self.rule(self, self.norm(self.conv(input)))


def residual(net: nn.Module, y: Tensor) -> Tensor:
    y = F.relu6(y, inplace=True)
    y = y + F.hardswish(net.norm(net.again(y)))
    y = F.dropout(F.adaptive_avg_pool2d(y, 1).flatten(1), 0.3, net.training, inplace=True)
    return net.wide(y)


def pooled(net: nn.Module, y: Tensor) -> Tensor:
    y = torch.cat([F.max_pool2d(y.relu(), 2), F.avg_pool2d(F.silu(y), 2)], 1)
    return F.dropout2d(y, 0.2, net.training).flatten(1)


def excited(net: nn.Module, y: Tensor) -> Tensor:
    return y * F.adaptive_avg_pool2d(y, (1, 1)).sigmoid() + net.group(y) * 2


def channels_last(net: nn.Module, y: Tensor) -> Tensor:
    y = net.layer(y.permute(0, 2, 3, 1)).softmax(-1).permute(0, 3, 1, 2)
    return F.adaptive_avg_pool2d(y, 1).flatten(1)


QUICK = [residual, excited, channels_last]


def to_a_grid(net: nn.Module, y: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(y, 2).flatten(1)


def shuffled(net: nn.Module, y: Tensor) -> Tensor:
    return y.reshape(-1, 2, 3, 8, 8).transpose(1, 2).reshape(-1, 6, 8, 8)


def without_scale(net: nn.Module, y: Tensor) -> Tensor:
    return net.bare(y)


def overwritten(net: nn.Module, y: Tensor) -> Tensor:
    y[:, 1:3].add_(1.0)
    return y


def with_a_mask(net: nn.Module, y: Tensor) -> Tensor:
    return torch.where(y > 0, y, 0.1) + y.new_ones(()).half()


def of_rows(net: nn.Module, y: Tensor) -> Tensor:
    return net.wide(y.permute(0, 2, 3, 1).flatten(0, 2))


def of_two(net: nn.Module, y: Tensor) -> Tensor:
    return y.mean(3).flatten(0, 1).flatten(1)


def by_the_batch(net: nn.Module, y: Tensor) -> Tensor:
    return y.reshape(y.shape[0] * 2, 3, 8, 8).amax((2, 3)).reshape(y.shape[0], 6) * y.shape[0]


SLOW = [
    by_the_batch,
    of_rows,
    of_two,
    to_a_grid,
    shuffled,
    without_scale,
    overwritten,
    with_a_mask,
    pooled,
]


ALWAYS = (residual, to_a_grid, by_the_batch)
CASES = [r if r in ALWAYS else slow_case(r, nightly=r is not of_rows) for r in QUICK + SLOW]


@pytest.mark.slow
@pytest.mark.parametrize("rule", CASES, ids=lambda rule: rule.__name__)
def test_both_roads_write_the_same(
    rule: Rule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, example = Net(rule), (torch.randn(2, 3, 8, 8),)
    quickly = _onnx_quick.decomposed
    answers: list[bool] = []
    monkeypatch.setattr(
        _onnx_quick, "decomposed", lambda *given: answers.append(quickly(*given)) or answers[-1]
    )
    ToOnnx()(Source(Artifact(net, example)), tmp_path / "quick.onnx")
    monkeypatch.setattr(_onnx_quick, "decomposed", lambda *_given: False)
    ToOnnx()(Source(Artifact(net, example)), tmp_path / "slow.onnx")

    assert answers == [rule in QUICK]
    batch = torch.randn(3, 3, 8, 8).numpy()
    first, second = (
        next(Onnxruntime().open(tmp_path / name).run([[batch]]))[0]
        for name in ("quick.onnx", "slow.onnx")
    )
    np.testing.assert_array_equal(first, second)
    if rule is not channels_last:  # torch spells the flattening of permuted axes in a dozen nodes
        graphs = [graph_of(onnx.load(tmp_path / name)) for name in ("quick.onnx", "slow.onnx")]
        assert graphs[0] == graphs[1]


def scaled(net: nn.Module, y: Tensor) -> Tensor:
    return y * 2 + 1.5 - y.clamp(0, 6) / 3.0


def counted(net: nn.Module, y: Tensor) -> Tensor:
    return y * (y > 0) + torch.arange(8, device=y.device)


def averaged(net: nn.Module, y: Tensor) -> Tensor:
    return torch.where(y.mean((2, 3), keepdim=True) > 0.0, y, y.sum(1, keepdim=True) / 2.0)


OF_ONE_TYPE = {residual: True, averaged: True, scaled: False, counted: False}


@pytest.mark.parametrize(
    "rule",
    [r if r in (residual, scaled) else slow_case(r) for r in OF_ONE_TYPE],
    ids=lambda rule: rule.__name__,
)
def test_without_casts_the_file_is_the_same(
    rule: Rule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, example = Net(rule), (torch.randn(2, 3, 8, 8),)
    quickly = _onnx_quick.alike
    answers: list[bool] = []
    monkeypatch.setattr(
        _onnx_quick, "alike", lambda module: answers.append(quickly(module)) or answers[-1]
    )
    ToOnnx()(Source(Artifact(net, example)), tmp_path / "quick.onnx")
    monkeypatch.setattr(_onnx_quick, "alike", lambda _module: False)
    ToOnnx()(Source(Artifact(net, example)), tmp_path / "slow.onnx")

    assert answers == [OF_ONE_TYPE[rule]]
    graphs = [graph_of(onnx.load(tmp_path / name)) for name in ("quick.onnx", "slow.onnx")]
    assert graphs[0] == graphs[1]


@pytest.mark.slow
def test_another_torch_converts_as_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_onnx_quick, "_HOME", "torch.onnx.elsewhere")
    net, example = Net(residual), (torch.randn(2, 3, 8, 8),)
    ToOnnx()(Source(Artifact(net, example)), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").exists()
