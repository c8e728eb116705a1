"""Outputs that are an input, one tensor twice, a parameter or a constant; inputs without axes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

import prunec

Last = Callable[["Net", Tensor, Tensor], object]


class Net(nn.Module):
    """A convolution; ``last`` makes the outputs of it, the input and itself."""

    def __init__(self, last: Last) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.last = last

    def forward(self, x: Tensor) -> object:
        return self.last(self, x, self.conv(x))


ODD: dict[str, Last] = {
    "the input": lambda net, x, y: (x, y, x),
    "one tensor twice": lambda net, x, y: {"a": y, "b": [y, y.argmax(1)]},
    "a parameter": lambda net, x, y: (y, net.conv.bias, net.conv.weight),
    "a constant": lambda net, x, y: (torch.arange(5), y),
    "a shape": lambda net, x, y: (y, torch.tensor(x.shape[2:])),
    "whole numbers": lambda net, x, y: (y > 0, y.argmax(1), y.shape[0] * torch.ones(1, dtype=int)),
}


QUICK = ("the input", "one tensor twice", "a parameter")


@pytest.mark.parametrize("name", QUICK)
def test_an_odd_output_ships(name: str, tmp_path: Path) -> None:
    _ships(ODD[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ODD.keys() - {*QUICK}))
def test_more_odd_outputs_ship(name: str, tmp_path: Path) -> None:
    _ships(ODD[name], tmp_path)


def _ships(last: Last, folder: Path) -> None:
    _ships_whole(Net(last).eval(), folder)


def test_a_network_that_returns_its_input_ships(tmp_path: Path) -> None:
    _ships_whole(nn.Identity(), tmp_path)


def _ships_whole(net: nn.Module, folder: Path) -> None:
    example = torch.randn(2, 3, 6, 6)
    path = prunec.export_onnx(net, example, folder / "net.onnx")
    names = [value.name for value in onnx.load(path).graph.output]
    assert names == (["logits"] if len(names) == 1 else [f"output_{i}" for i in range(len(names))])
    report = prunec.verify(net, path, example_inputs=example)
    assert report.passed, [check.message for check in report.failures]


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (
            lambda net, x, y: (y, x.shape[0]),
            "output 1 of Net is a number that depends on",
        ),
        (lambda net, x, y: ("masks", y), "output 0 of Net is 'masks'"),
    ],
)
def test_what_is_no_tensor_is_named(last: Last, told: str, tmp_path: Path) -> None:
    with pytest.raises(prunec.PrunecError, match=told):
        prunec.export_onnx(Net(last).eval(), torch.randn(2, 3, 6, 6), tmp_path / "net.onnx")


class Scaled(nn.Module):
    """A network with a second input without axes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.conv(x) * scale


def test_an_input_without_axes_ships(tmp_path: Path) -> None:
    net, example = Scaled().eval(), (torch.randn(2, 3, 4, 4), torch.tensor(0.7))
    path = prunec.export_onnx(net, example, tmp_path / "net.onnx")
    report = prunec.verify(net, path, example_inputs=example)
    assert report.passed, [check.message for check in report.failures]


class Aside(nn.Module):
    """A head that only training reads, and a factor for every channel beside the samples."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.auxiliary = nn.Conv2d(3, 4, 3), nn.Linear(4, 7)

    def forward(self, x: Tensor, factors: Tensor) -> Tensor:
        return self.conv(x) * factors[None, :, None, None]


def test_parameters_nobody_reads_and_an_input_that_is_no_batch(tmp_path: Path) -> None:
    net, example = Aside().eval(), (torch.randn(2, 3, 6, 6), torch.rand(4))
    path = prunec.export_onnx(net, example, tmp_path / "aside.onnx")
    report = prunec.verify(net, path, example_inputs=example)
    assert report.passed, report.failures
    assert prunec.count(net, example).unread_params == 4 * 7 + 7
    shapes = [
        tuple(d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim)
        for i in onnx.load(path).graph.input
    ]
    assert shapes == [("batch", 3, 6, 6), (4,)]
