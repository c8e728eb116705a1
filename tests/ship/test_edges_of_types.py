"""Outputs at the edges of their type: right files pass, a weight off by 1 % fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from sampling import slow_case
from torch import Tensor, nn

import prunec

Last = Callable[[Tensor], object]


class Head(nn.Module):
    """A small convolutional network whose outputs another function makes of its own."""

    def __init__(self, last: Last) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)
        )
        self.last = last

    def forward(self, x: Tensor) -> object:
        return self.last(self.body(x))


NAN = float("nan")
EDGES: dict[str, tuple[Last, torch.dtype]] = {
    "tiny": (lambda y: y * 1e-30, torch.float32),
    "subnormal": (lambda y: y * 1e-41, torch.float32),
    "huge": (lambda y: y * 1e30, torch.float32),
    "overflow": (lambda y: torch.exp(y * 300), torch.float32),
    "half": (lambda y: y, torch.float16),
    "a softmax of halves": (lambda y: torch.softmax(y * 10, 1), torch.float16),
    "a saturated sigmoid": (lambda y: torch.sigmoid(y * 60), torch.float32),
    "a softmax that underflows": (lambda y: torch.softmax(y * 200, 1), torch.float32),
    "log of what underflows": (lambda y: (y * 500).softmax(1).log(), torch.float32),
    "log of zero": (lambda y: torch.log(torch.relu(y)), torch.float32),
    "roots of negatives": (torch.sqrt, torch.float32),
    "nan at places": (lambda y: torch.where(y > 0, y, NAN), torch.float32),
    "bytes": (lambda y: (y.sigmoid() * 255).to(torch.uint8), torch.float32),
    "truth values and a constant": (lambda y: (y > 0, torch.ones_like(y)), torch.float32),
}


SLOW = ("subnormal", "a saturated sigmoid", "log of what underflows")
RARE = sorted(EDGES.keys() - {"half", *SLOW})


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["half", *map(slow_case, SLOW), *(slow_case(name, nightly=True) for name in RARE)]
)
def test_a_right_file_passes_and_a_wrong_one_fails(name: str, tmp_path: Path) -> None:
    last, kind = EDGES[name]
    module, example = Head(last).to(kind).eval(), (torch.randn(2, 3, 6, 6, dtype=kind),)
    path = prunec.export_onnx(module, example, tmp_path / "model.onnx")
    report = prunec.verify(module, path, example_inputs=example)
    assert report.passed, report.failures
    _off_by_a_hundredth(path, "body.3.weight")
    actual = prunec.verify(module, path, example_inputs=example)
    assert any("body.3.weight" in check.message for check in actual.failures)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["tiny", "huge", "a saturated sigmoid", "log of what underflows"])
def test_outputs_alone_tell_the_wrong_file(name: str, tmp_path: Path) -> None:
    last, kind = EDGES[name]
    module, example = Head(last).to(kind).eval(), (torch.randn(2, 3, 6, 6, dtype=kind),)
    path = prunec.export_onnx(module, example, tmp_path / "model.onnx")
    _off_by_a_hundredth(path, "body.3.weight")
    report = prunec.verify(module, path, example_inputs=example)
    assert "outputs, random" in [check.name for check in report.failures]


def _off_by_a_hundredth(path: Path, name: str) -> None:
    """Change the largest value of a tensor by 1 %."""
    model = onnx.load(path)
    stored = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(stored).copy()
    values.reshape(-1)[np.abs(values).argmax()] *= 1.01
    stored.raw_data = values.tobytes()
    onnx.save(model, path)
