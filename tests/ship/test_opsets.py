"""Files at the opset asked for: the same numbers under onnxruntime, or what needs more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sampling import slow_case
from torch import Tensor, nn
from torch.nn import functional as F

import prunec
from prunec.errors import PassError
from prunec.exporters._onnx_opset import to_opset

QUIET = onnxruntime.SessionOptions()
QUIET.log_severity_level = 4


class Every(nn.Module):
    """Operators whose form or meaning changed between the opsets, with earlier forms of all."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.layer_norm = nn.BatchNorm2d(4), nn.LayerNorm((6, 6))
        self.group_norm = nn.GroupNorm(2, 4)
        self.memory = nn.LSTM(6, 5, batch_first=True)
        self.head = nn.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        rows = x[:, :, 1:-1].softmax(1) + x.log_softmax(-1)[:, :, 1:-1]
        bent = F.mish(self.norm(x)) + F.hardswish(self.group_norm(x)).clamp(-0.5, 0.5)
        shaped = torch.cat(x.chunk(4, 3)[::-1], 3).tril() + torch.split(x, [1, 3], 1)[0]
        resized = F.interpolate(F.pad(x, (1, 1, 0, 2), value=0.5), scale_factor=2)
        reflected = F.pad(x, (1, 1, 1, 1), "reflect")
        pooled = F.max_pool2d(x, 2).flatten(2).topk(2, -1).values
        shuffled = F.pixel_shuffle(x, 2).amax(1).mean(-1)
        placed = torch.zeros_like(x).scatter(1, x.argmax(1, keepdim=True), 1.0)
        reduced = x.logsumexp(-1) + x.var(-1) + F.normalize(x, dim=1).prod(-1) + x.sum(-1)
        attended = F.scaled_dot_product_attention(x, x, x)
        memory, head = self.memory(x[:, 0])[0], self.head(x[:, 0, 0])
        return (
            *(rows, bent, shaped, resized, reflected, pooled, shuffled, placed, reduced),
            *(attended, memory, head, self.layer_norm(x), x.view(x.shape[0], -1)),
        )


class Function(nn.Module):
    """A function of the input and of one parameter, so that a file holds a weight."""

    def __init__(self, rule: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(6))
        self.rule = rule

    def forward(self, x: Tensor) -> Tensor:
        return self.rule(x * self.scale)


def answers(model: onnx.ModelProto, x: Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), QUIET)
    outputs: list[np.ndarray] = session.run(None, {"input": x.numpy()})
    return outputs


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    path = tmp_path_factory.mktemp("opsets") / "net.onnx"
    return onnx.load(prunec.export_onnx(Every().eval(), torch.randn(2, 4, 6, 6), path))


def at(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    lowered = to_opset(copied, opset)
    lowered.ir_version = onnx.helper.find_min_ir_version_for(lowered.opset_import)
    for number, node in enumerate(lowered.graph.node):
        node.name = f"node_{number}"
    return lowered


@pytest.mark.slow  # the file is large: it holds all of them
@pytest.mark.parametrize("opset", range(9, 18))
def test_operators_that_changed_compute_the_same(newest: onnx.ModelProto, opset: int) -> None:
    lowered = at(newest, opset)
    onnx.checker.check_model(lowered, full_check=True)
    assert [o.version for o in lowered.opset_import] == [opset]
    for batch in (1, 3):
        x = torch.randn(batch, 4, 6, 6)
        for ours, theirs in zip(answers(lowered, x), answers(newest, x), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("opset", "ir_version", "written"),
    [(9, None, 4), slow_case((13, 8, 8)), slow_case((17, None, 8)), slow_case((21, None, 10))],
)
def test_a_file_has_the_opset_and_the_layout_asked_for(
    opset: int, ir_version: int | None, written: int, tmp_path: Path
) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(144, 5)).eval()
    x = torch.randn(2, 3, 8, 8)
    path = prunec.export_onnx(net, x, tmp_path / "n.onnx", opset=opset, ir_version=ir_version)
    model = onnx.load(path)
    assert (model.opset_import[0].version, model.ir_version) == (opset, written)
    report = prunec.verify(net, path, example_inputs=x)
    assert report.passed, report.failures


BEYOND = {
    "grid": (lambda x: F.grid_sample(x, x[:, :2].movedim(1, 3)), "GridSample", 16),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), "Resize", 11),
    "antialias": (
        lambda x: F.interpolate(x, (3, 3), mode="bilinear", antialias=True),
        "Resize",
        18,
    ),
    "steps": (lambda x: x[:, :, ::2], "Slice", 10),
    "smallest": (lambda x: x.topk(2, largest=False).values, "TopK", 11),
    "ceiling": (lambda x: F.max_pool2d(x, 4, 3, ceil_mode=True), "MaxPool", 10),
    "letters": (lambda x: torch.einsum("ncij,ndij->ncd", x, x), "Einsum", 12),
    "whole": (lambda x: torch.maximum(x.argmax(-1), x.argmin(-1)) + 0 * x.sum(-1), "Max", 12),
    "equal": (lambda x: (x == x[:, :1]).float(), "Equal", 11),
}
"""Name → function, the operator that needs more, the first opset that has it."""


@pytest.mark.parametrize("name", [n if n == "steps" else slow_case(n) for n in BEYOND])
def test_an_operator_that_needs_more_is_named(name: str, tmp_path: Path) -> None:
    rule, operator, needed = BEYOND[name]
    net, x = Function(rule).eval(), torch.randn(2, 4, 6, 6)
    newest = onnx.load(prunec.export_onnx(net, x, tmp_path / "n.onnx"))
    with pytest.raises(PassError, match=rf"opset {needed - 1}: {operator} at .*opset {needed}\b"):
        at(newest, needed - 1)
    for ours, theirs in zip(answers(at(newest, needed), x), answers(newest, x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_nothing_is_written_where_an_operator_needs_more(tmp_path: Path) -> None:
    net, path = Function(BEYOND["grid"][0]).eval(), tmp_path / "n.onnx"
    with pytest.raises(PassError, match=r"GridSample at .* needs opset 16") as error:
        prunec.export_onnx(net, torch.randn(2, 4, 6, 6), path, opset=12)
    assert "Ask for opset 16 or later" in error.value.remedy
    assert not path.exists()


@pytest.mark.parametrize(("key", "value"), [("opset", 8), ("opset", 99), ("ir_version", 3)])
def test_versions_that_nobody_reads_are_refused(key: str, value: int, tmp_path: Path) -> None:
    net, path = nn.Linear(2, 2).eval(), tmp_path / "n.onnx"
    with pytest.raises(prunec.PrunecError, match=f"{key} must be at (least|most)"):
        prunec.export_onnx(net, torch.randn(2, 2), path, **{key: value})
    assert not path.exists()
