"""Operators one by one: both counters against loops over the weights, and against each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sampling import sampled, slow_case
from torch import Tensor, nn
from torch.nn import functional as F

import prunec

STEPS, WIDTH = 5, 4
MOMENTS = 2  # of recurrent layers, whose steps torch's exporter writes out one by one


class Last(nn.Module):
    """A recurrent stack whose first result is the network's."""

    def __init__(self, memory: nn.Module) -> None:
        super().__init__()
        self.memory = memory

    def forward(self, x: Tensor) -> Tensor:
        return self.memory(x)[0]


class TwoSteps(nn.Module):
    """A cell used twice: parameters count once."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state = self.cell(x[:, 1], self.cell(x[:, 0]))
        return state[0] if isinstance(state, tuple) else state


class Rule(nn.Module):
    """A function of the input (N, 5, 4) and one parameter (7, 4)."""

    def __init__(self, rule: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(7, WIDTH))
        self.rule = rule

    def forward(self, x: Tensor) -> Tensor:
        return self.rule(x, self.weight)


class PositionBias(nn.Module):
    """A small network over a table of positions makes a bias, whatever the input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(STEPS, 2))
        self.position = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, WIDTH))
        self.mix = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x + self.position(self.table))


@torch.no_grad()
def thinned(module: nn.Module) -> nn.Module:
    """About half of all weights at zero, and no other."""
    for p in module.parameters():
        p.copy_(torch.rand(p.shape) + 0.5)
        if p.dim() > 1:
            p.mul_(torch.rand(p.shape) < 0.5)
    return module.eval()


def both(module: nn.Module, example: Tensor, path: Path) -> tuple[int, int]:
    """MACs and non-zero MACs, the same by both counters."""
    prunec.export_onnx(module, example, path)
    ours, theirs = prunec.count(module, example), prunec.count_onnx(path)
    assert (ours.macs, ours.nonzero_macs) == (theirs.macs, theirs.nonzero_macs)
    assert (ours.params, ours.nonzero_params) == (theirs.params, theirs.nonzero_params)
    for cost in (ours, theirs):
        assert sum(layer.params for layer in cost.layers) <= cost.params
    return ours.macs, ours.nonzero_macs


def visited(module: nn.Module, steps: int) -> tuple[int, int]:
    """Walk over time and over every entry of every matrix, as the definition of the layers does."""
    macs = nonzero = 0
    for _ in range(steps):
        for p in module.parameters():
            if p.dim() == 2:
                for row in p.tolist():
                    for entry in row:
                        macs += 1
                        nonzero += entry != 0
    return macs, nonzero


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "layers", "directions"),
    [
        (nn.RNN, 1, 1),
        *(
            slow_case((kind, 2, 2), nightly=kind is not nn.LSTM)
            for kind in (nn.LSTM, nn.GRU, nn.RNN)
        ),
        *(slow_case((kind, 1, 1), nightly=True) for kind in (nn.LSTM, nn.GRU)),
        *(
            slow_case((kind, n, 3 - n), nightly=True)
            for kind in (nn.LSTM, nn.GRU, nn.RNN)
            for n in (1, 2)
        ),
    ],
)
def test_recurrent_layers(kind: type, layers: int, directions: int, tmp_path: Path) -> None:
    memory = kind(WIDTH, 6, layers, batch_first=True, bidirectional=directions == 2)
    module = thinned(Last(memory))
    example = torch.randn(2, MOMENTS, WIDTH)
    assert both(module, example, tmp_path / "net.onnx") == visited(module, MOMENTS)
    weights = sum(p.numel() for p in module.parameters() if p.dim() == 2)
    assert sum(layer.params for layer in prunec.count(module, example).layers) == weights


@pytest.mark.slow
def test_a_projection_is_one_more_matrix() -> None:
    module = thinned(Last(nn.LSTM(WIDTH, 6, 2, batch_first=True, proj_size=3)))
    cost = prunec.count(module, torch.randn(2, STEPS, WIDTH))
    assert (cost.macs, cost.nonzero_macs) == visited(module, STEPS)


CELLS = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)


@pytest.mark.parametrize(
    "kind", [slow_case(kind, nightly=kind is not nn.GRUCell) for kind in CELLS]
)
def test_cells(kind: type, tmp_path: Path) -> None:
    module = thinned(TwoSteps(kind(WIDTH, 6)))
    assert both(module, torch.randn(2, 2, WIDTH), tmp_path / "net.onnx") == visited(module, 2)


ENTRIES = {
    "matmul": (lambda x, w: x @ w.T, 5, slice(None)),
    "part": (lambda x, w: x @ w[1:5].T, 5, slice(1, 5)),
    "turned": (lambda x, w: x @ w[1:5].flip(0).roll(1, 1).T, 5, slice(1, 5)),
    "joined": (lambda x, w: x @ torch.cat([w[:2], w[4:6]]).T, 5, [0, 1, 4, 5]),
    "row": (lambda x, w: torch.mv(x.flatten(0, 1), w[0]), 5, slice(0, 1)),
    "inner": (lambda x, w: torch.inner(x, w), 5, slice(None)),
    "tensordot": (lambda x, w: torch.tensordot(x, w, dims=([2], [1])), 5, slice(None)),
    "einsum": (lambda x, w: torch.einsum("ntc,oc->nto", x, w), 5, slice(None)),
    "ellipsis": (lambda x, w: torch.einsum("n...c,oc->n...o", x, w), 5, slice(None)),
    "convolution": (lambda x, w: F.conv1d(x.mT, w[..., None]), 5, slice(None)),
}
"""Name → rule, how often one sample uses each weight, which rows of the parameter are weights."""


@pytest.mark.parametrize("name", sampled(ENTRIES, 10, 2))
def test_moved_weights_count_their_zeros(name: str, tmp_path: Path) -> None:
    rule, visits, rows = ENTRIES[name]
    module = thinned(Rule(rule))
    used = module.weight[rows]
    want = (visits * used.numel(), visits * int(used.count_nonzero()))
    assert both(module, torch.randn(2, STEPS, WIDTH), tmp_path / "net.onnx") == want


@pytest.mark.slow
def test_operands_of_an_einsum_are_taken_in_from_the_left(tmp_path: Path) -> None:
    module = thinned(Rule(lambda x, w: torch.einsum("ntc,oc,ntd->nod", x, w, x)))
    first, second = STEPS * 7 * WIDTH, STEPS * 7 * WIDTH  # sums over c, then over t
    macs = both(module, torch.randn(2, STEPS, WIDTH), tmp_path / "net.onnx")
    assert macs == (first + second, first + second)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [2, 3])
def test_what_depends_on_no_input_is_no_cost_of_a_sample(batch: int, tmp_path: Path) -> None:
    module = thinned(PositionBias())
    example = torch.randn(batch, STEPS, WIDTH)
    macs, _ = both(module, example, tmp_path / "net.onnx")
    assert macs == STEPS * WIDTH * 3
    cost = prunec.count(module, example)
    assert cost.params == sum(p.numel() for p in module.parameters())
    assert {layer.name: layer.params for layer in cost.layers} == {
        "position.0": 12,
        "position.2": 6 * WIDTH,
        "mix": WIDTH * 3,
    }


@pytest.mark.slow
def test_what_a_batch_repeats_is_a_cost_of_each_sample(tmp_path: Path) -> None:
    """A product of parameters alone, but one for each sample: it is computed for each."""

    def rule(x: Tensor, w: Tensor) -> Tensor:
        many = w.expand(x.shape[0], -1, -1)
        return torch.bmm(many, many.mT) + x.mean()

    macs = both(thinned(Rule(rule)), torch.randn(2, STEPS, WIDTH), tmp_path / "net.onnx")
    assert macs == (7 * 7 * WIDTH, 7 * 7 * WIDTH)


def test_a_weight_that_is_computed_counts_whole(tmp_path: Path) -> None:
    module = thinned(Rule(lambda x, w: x @ (w - w.mean(1, keepdim=True)).T))
    macs = both(module, torch.randn(2, STEPS, WIDTH), tmp_path / "net.onnx")
    assert macs == (5 * 28, 5 * 28)
