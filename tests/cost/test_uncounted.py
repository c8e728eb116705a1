"""Torch operators that multiply beyond the usual ones, and those that nobody can count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sampling import slow_case
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import DeformConv2d

import prunec
from prunec.cost import Cost, LayerCost, Uncounted
from prunec.deploy.checks.costs import compare_macs


class Rule(nn.Module):
    """A function of the input (N, 5, 4) and two parameters, (4, 4) and (6, 4, 4), half zero."""

    def __init__(self, rule: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.matrix = nn.Parameter(torch.rand(4, 4) + 0.5)
        self.cube = nn.Parameter((torch.rand(6, 4, 4) + 0.5) * (torch.rand(6, 4, 4) < 0.5))
        self.rule = rule

    def forward(self, x: Tensor) -> Tensor:
        return self.rule(x, self.matrix, self.cube) + 0 * (self.matrix.sum() + self.cube.sum())


MULTIPLY = {
    "bilinear": (lambda x, w, v: F.bilinear(x, x.flip(1), v), 5 * (6 * 16 + 6 * 4)),
    "bilinear-rows": (lambda x, w, v: F.bilinear(x[:, 0], x[:, 1], v), 6 * 16 + 6 * 4),
    "addbmm": (lambda x, w, v: torch.addbmm(w, x.mT, x) + x[:, :4], 4 * 4 * 5),
    "vdot": (lambda x, w, v: x * torch.vdot(w[0], w[1]), 0),
    "outer": (lambda x, w, v: x[:, :4] + torch.outer(x.mean((0, 1)), w[0]), 0),
    "vecdot": (lambda x, w, v: torch.linalg.vecdot(x, w[0]), 0),
}
"""Name → function, MACs of one sample."""


@pytest.mark.parametrize(
    "name",
    [
        n if n == "bilinear" else slow_case(n, nightly=n in ("bilinear-rows", "vecdot"))
        for n in MULTIPLY
    ],
)
def test_what_multiplies_is_counted_as_in_the_file(name: str, tmp_path: Path) -> None:
    rule, macs = MULTIPLY[name]
    module, example = Rule(rule).eval(), torch.randn(2, 5, 4)
    ours = prunec.count(module, example)
    assert (ours.macs, ours.uncounted) == (macs, ())
    theirs = prunec.count_onnx(prunec.export_onnx(module, example, tmp_path / "net.onnx"))
    assert (ours.macs, ours.nonzero_macs) == (theirs.macs, theirs.nonzero_macs)


class Bent(nn.Module):
    """A deformable convolution, its offsets and its modulation made by convolutions."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.offset, self.mask = nn.Conv2d(4, 18, 3, padding=1), nn.Conv2d(4, 9, 3, padding=1)
        self.bent = DeformConv2d(4, 6, 3, padding=1, groups=groups)
        with torch.no_grad():
            self.bent.weight[0] = 0

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.bent(x, self.offset(x), self.mask(x).sigmoid())
        return made


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, slow_case(2, nightly=True)])
def test_a_deformable_convolution_counts_as_one(groups: int, tmp_path: Path) -> None:
    module, example = Bent(groups).eval(), torch.randn(2, 4, 7, 5)
    cost = prunec.count(module, example)
    bent = next(layer for layer in cost.layers if layer.name == "bent")
    weights = module.bent.weight.numel()
    assert (bent.macs, bent.params) == (35 * weights, weights)
    assert bent.nonzero_macs == 35 * weights * 5 // 6
    path = prunec.export_onnx(module, example, tmp_path / "net.onnx", opset=19)
    assert prunec.count_onnx(path).macs == cost.macs


@torch.library.custom_op("prunec_tests::relu", mutates_args=())
def _own(x: Tensor) -> Tensor:
    return x @ x.mT


@_own.register_fake
def _(x: Tensor) -> Tensor:
    return x @ x.mT


HIDDEN = {
    "fft_rfft": lambda x, w, v: torch.fft.rfft(x @ w).abs(),
    "cdist": lambda x, w, v: torch.cdist(x @ w, x),
    "matrix_exp": lambda x, w, v: torch.matrix_exp(x.mT @ x),
    "linalg_inv": lambda x, w, v: torch.linalg.inv(x.mT @ x + torch.eye(4)),
    "matrix_power": lambda x, w, v: torch.matrix_power(x.mT @ x / 20, 3),
    "prunec_tests.relu": lambda x, w, v: torch.ops.prunec_tests.relu(x @ w),
}
"""Operator → a function that calls it, and multiplies (4 × 4) × 5 numbers besides."""


@pytest.mark.parametrize("operator", HIDDEN)
def test_what_cannot_be_counted_is_named(operator: str) -> None:
    cost = prunec.count(Rule(HIDDEN[operator]).eval(), torch.randn(2, 5, 4))
    assert cost.macs == 80
    assert [item.operator for item in cost.uncounted] == [operator]
    assert f"operator {operator} at" in str(cost.uncounted[0])


def test_the_report_of_a_compile_names_it() -> None:
    report = prunec.compile(Rule(HIDDEN["cdist"]).eval(), torch.randn(2, 5, 4)).report
    assert "operator cdist at" in report.to_dict()["uncounted"][0]
    assert "Not counted: operator cdist" in str(report)


@pytest.mark.parametrize("of", ["parameters", "input"])
def test_what_depends_on_no_input_costs_nothing_whatever_it_is(of: str) -> None:
    def rule(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
        return x @ torch.matrix_exp(w if of == "parameters" else x.mT @ x)

    cost = prunec.count(Rule(rule).eval(), torch.randn(2, 5, 4))
    assert len(cost.uncounted) == (of == "input")


@pytest.mark.slow
def test_a_file_of_what_torch_cannot_count_is_told_so(tmp_path: Path) -> None:
    module, example = Rule(HIDDEN["matrix_power"]).eval(), torch.randn(2, 5, 4)
    path = prunec.export_onnx(module, example, tmp_path / "net.onnx")
    report = prunec.verify(module, path, example_inputs=example)
    assert report.passed, report.failures
    macs = next(check for check in report.checks if check.name == "MACs")
    assert macs.expected == "at least 80"
    assert "matrix_power" in str(macs.found)


class Spectral(nn.Module):
    """A convolution behind a filter in the frequencies of its input, which neither side counts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kernel = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        actual: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * 0.5, s=x.shape[-2:])
        made: Tensor = self.kernel(actual)
        return made


@pytest.mark.slow
def test_what_neither_side_counts_is_named_and_the_rest_compared(tmp_path: Path) -> None:
    module, example = Spectral().eval(), torch.randn(2, 3, 8, 8)
    path = prunec.export_onnx(module, example, tmp_path / "net.onnx")
    report = prunec.verify(module, path, example_inputs=example)
    assert report.passed, report.failures
    macs = next(check for check in report.checks if check.name == "MACs")
    assert macs.expected == f"at least {36 * module.kernel.weight.numel():,}"
    assert "operator fft_rfft2 at" in str(macs.found)
    with pytest.raises(prunec.PrunecError, match="operator DFT at"):
        prunec.count_onnx(path)


def test_what_the_file_alone_hides_is_no_equal_of_what_is_counted() -> None:
    counted = Cost((LayerCost("a", "conv2d", 10, 10, 10, 10),), 10, 10)
    hidden = replace(counted, uncounted=(Uncounted("b", "DFT", "its MACs are not known"),))
    check = compare_macs(counted, hidden)
    assert not check.passed
    assert check.message == "operator DFT at b: its MACs are not known."
    assert compare_macs(hidden, hidden).passed
