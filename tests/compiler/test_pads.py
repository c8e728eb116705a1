"""Constants behind a border: exact, and carried by one channel, or two where they must be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from masks import randomise
from oracles import worst
from torch import Tensor, nn
from torch.nn import functional as F
from zoo.parts import linear_block

from prunec.graph.rewriting.compile import compile_module

EXAMPLE = (
    torch.randn(2, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
)
VARYING = 3  # of eight channels that are read
SIZES = (9, 9), (12, 10)
Function = Callable[[Tensor], Tensor]


class Padded(nn.Module):
    """Eight channels, five of them constant; a function of them; a reader of ten filters."""

    def __init__(self, function: Function, reader: nn.Module) -> None:
        super().__init__()
        self.stem, self.function, self.reader = linear_block(3, 8), function, reader

    def forward(self, x: Tensor) -> Tensor:
        y = self.reader(self.function(torch.sigmoid(self.stem(x)))).relu()
        return y.flatten(2).mean(2) if y.dim() > 2 else y


def _left(function: Function, reader: nn.Module, sizes: tuple[tuple[int, int], ...] = SIZES) -> int:
    """Channels that are made, where the reader's answers are the same for every batch."""
    torch.manual_seed(0)
    net = randomise(Padded(function, reader).double()).eval()
    with torch.no_grad():
        net.stem[0].weight[VARYING:] = 0.0
    compiled = compile_module(net, EXAMPLE).module
    for batch, size in ((1, 0), (2, -1), (3, 0), (5, 0)):
        inputs = (torch.randn(batch, 3, *sizes[size], dtype=torch.float64),)
        assert worst(net, compiled, inputs) < 1e-12
    return int(compiled.get_parameter("stem.0.weight").shape[0])


def _reader(**options: int | bool) -> nn.Module:
    return nn.Conv2d(8, 10, 3, **options)  # type: ignore[arg-type]


def _pad(*widths: int, **named: str | float) -> Function:
    return lambda y: F.pad(y, widths, **named)  # type: ignore[arg-type]


def _with_a_row(y: Tensor) -> Tensor:
    y = y * 1.0
    y[:, :, 1] = 0.25
    return y


CARRIED: dict[str, Function] = {
    "zeros": _pad(0, 1, 0, 1),
    "a number": _pad(0, 1, 2, 1, value=0.3),
    "cropped elsewhere": _pad(-1, 1, 2, -2, value=0.5),
    "cropped and padded": lambda y: F.pad(F.pad(y, (-1, -1)), (1, 1, 1, 1)),
    "two in a row": lambda y: F.pad(F.pad(y, (1, 0)), (0, 1, 1, 1)),
    "then repeated": lambda y: F.pad(F.pad(y, (1, 1, 1, 1)), (1, 1, 1, 1), mode="replicate"),
    "a module": nn.ConstantPad2d((1, 0, 1, 1), 0.25),
    "then an activation": lambda y: torch.sigmoid(F.pad(y, (1, 1, 1, 1))),
    "then a maximum": lambda y: F.max_pool2d(F.pad(y, (3, 3, 3, 3)), 2, 2),
    "then a mean": lambda y: F.avg_pool2d(F.pad(y, (1, 1, 1, 1), value=0.4), 3, 1),
    "then cropped": lambda y: F.pad(y, (2, 2, 2, 2))[:, :, 1:-1, 1:],
    "then mirrored": lambda y: F.pad(y, (2, 0, 1, 1)).flip(3),
    "then enlarged": lambda y: F.interpolate(
        F.pad(y, (2, 0, 2, 1)), scale_factor=2, mode="bilinear"
    ),
    "then shuffled": lambda y: torch.cat(F.pad(y, (2, 0, 2, 1)).chunk(4, 1)[::-1], 1),
    "by parts": lambda y: torch.cat([F.pad(y[:, :4], (1, 1)), F.pad(y[:, 4:], (1, 1))], 1),
    "added": lambda y: F.pad(y, (1, 1)) + F.pad(y * y, (1, 1), value=0.2),
    "a mean of all": lambda y: (
        F.pad(y, (1, 1, 1, 1)).mean((2, 3), keepdim=True).expand(-1, -1, 3, 3)
    ),
}
GONE: dict[str, Function] = {
    "only cropped": _pad(-1, -1, -1, -2),
    "mirrored": _pad(1, 1, 1, 1, mode="reflect"),
    "repeated": _pad(1, 1, 1, 1, mode="replicate"),
    "around": _pad(1, 1, 1, 1, mode="circular"),
    "no window without what is inside": lambda y: F.max_pool2d(F.pad(y, (0, 1, 0, 1)), 3, 2),
    "below every number": lambda y: F.max_pool2d(
        F.pad(y, (0, 1, 0, 1), value=float("-inf")), 3, 2, 1
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CARRIED)
def test_one_constant_behind_a_pad_carries_the_others(name: str) -> None:
    assert _left(CARRIED[name], _reader()) == VARYING + 1


@pytest.mark.parametrize(
    "function",
    [
        lambda y: torch.cat([y.new_zeros(len(y), 8, 2, y.shape[3]), y], 2),
        lambda y: torch.cat([y[:, :, :3], torch.full_like(y[:, :, :1], 0.5), y[:, :, 3:]], 2),
        _with_a_row,
    ],
)
def test_a_number_beside_positions_is_a_border(function: Function) -> None:
    """The place of the number is fixed, and with it the size of an image."""
    assert _left(function, _reader(), SIZES[:1]) == VARYING + 1


@pytest.mark.parametrize("name", GONE)
def test_what_stays_constant_goes_whole(name: str) -> None:
    assert _left(GONE[name], _reader()) == VARYING


@pytest.mark.parametrize(
    ("function", "left"),
    [
        (_pad(1, 1, 1, 1), 1),  # zeros around zeros
        (_pad(1, 1, 1, 1, value=0.3), 2),
        (lambda y: torch.sigmoid(F.pad(y, (1, 1, 1, 1))), 2),
    ],
)
def test_a_reader_that_pads_too_needs_a_carrier_for_either_border(
    function: Function, left: int
) -> None:
    assert _left(function, _reader(padding=1, bias=False)) == VARYING + left


def test_borders_of_three_numbers_are_kept() -> None:
    differing = _left(lambda y: F.pad(F.pad(y, (1, 0), value=1.0), (0, 1)), _reader())
    assert differing == 8


@pytest.mark.parametrize("padding", [0, 1])
def test_linear_maps_of_sums_and_of_last_axes(padding: int) -> None:
    def last(y: Tensor) -> Tensor:
        return F.pad(y, (padding, 1), value=0.2).permute(0, 2, 3, 1)

    assert _left(last, nn.Linear(8, 10)) == VARYING + 1
    assert _left(lambda y: F.pad(y, (padding, 0)).sum((2, 3)), nn.Linear(8, 10)) == VARYING + 1
