"""Activations that are rounded as a quantised network will round them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import prunec
from prunec.deploy.runners.onnxruntime import Onnxruntime


class Rounded(nn.Module):
    """Half of the filters make a constant that no level stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        with torch.no_grad():
            self.first.weight[::2] = 0
            self.first.bias[::2] = torch.tensor([0.0, 0.11, -0.3, 40.0])

    def forward(self, x: Tensor) -> Tensor:
        y = torch.fake_quantize_per_tensor_affine(F.relu(self.first(x)), 0.07, 3, 0, 255)
        return self.last(y)


def test_it_is_cut_and_computes_the_same(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, x = Rounded().eval(), torch.randn(3, 3, 7, 7)
    exact = prunec.compile(net.double(), x.double())
    assert exact.report.after.macs < 0.7 * exact.report.before.macs
    for batch in (1, 3):
        ours = exact.module(x[:batch].double())
        torch.testing.assert_close(ours, net(x[:batch].double()), rtol=0, atol=1e-12)
    compact = prunec.compile(net.float(), x).module
    path = tmp_path / "model.onnx"
    prunec.export_onnx(compact, x, path)
    for batch in (1, 3):
        outputs = next(Onnxruntime().open(path).run([[x[:batch].numpy()]]))[0]
        torch.testing.assert_close(torch.from_numpy(outputs), net(x[:batch]), rtol=0, atol=1e-5)


def test_it_trains_on() -> None:
    """The gradient passes through the levels, as torch's operator has it."""
    compact = prunec.compile(Rounded().eval(), torch.randn(2, 3, 7, 7)).module
    compact(torch.randn(2, 3, 7, 7)).sum().backward()
    first = next(iter(compact.parameters()))
    assert first.grad is not None
    assert bool(first.grad.any())
