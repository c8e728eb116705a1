"""MACs as GDP counts them, of open gates and of what ships: the cut network, brute force."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from gated_nets import (
    DENSE,
    OPTIONS,
    SELECT,
    a_few,
    closed_columns,
    gated_of,
    kinds,
    method_of,
    moment,
    nets,
    random_gates,
)
from masks import masked
from oracles import brute_macs
from sampling import sampled, slow_but, slow_case
from torch import nn
from training.small_training import small_context
from zoo import ZOO

from prunec.artifact import Artifact
from prunec.cost.torch_graph import count
from prunec.graph.rewriting.compile import compile_module
from prunec.passes.absorb_gates import AbsorbGates
from prunec.passes.remove_channels import RemoveChannels
from prunec.passes.train_gdp import TrainGdp


@kinds
def test_all_gates_open_is_the_dense_network(name: str) -> None:
    module, example = ZOO[name]()
    assert int(gated_of(name).macs(gated_of(name).sizes.double())) == brute_macs(module, example)


@nets
def test_the_marginal_cost_is_the_difference_of_one_channel(name: str) -> None:
    """c = ∂F/∂n = F(n+1) − F(n): no kernel reads and writes the same group."""
    gated = gated_of(name)
    counts = (torch.rand(len(gated.sizes), dtype=torch.float64) * gated.sizes).floor()
    one_more = counts + torch.eye(len(counts), dtype=torch.float64)
    assert torch.equal(gated.marginal(counts), gated.macs(one_more) - gated.macs(counts))


def test_the_marginal_cost_is_the_derivative_where_a_kernel_reads_what_it_writes() -> None:
    gated = gated_of("shared-module")
    counts = torch.tensor([5.0], dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(gated.macs(counts), counts)[0]
    torch.testing.assert_close(gated.marginal(counts.detach()), expected)


@a_few
def test_macs_of_open_gates_are_those_of_the_cut_network(name: str) -> None:
    """The bilinear form equals a count over the graph of the network that was really cut."""
    module, example = ZOO[name]()
    gated = gated_of(name)
    is_open = random_gates(gated, 1)
    masks = closed_columns(module, gated, is_open)
    compact = compile_module(masked(module, masks), example, masks=masks).module
    assert int(gated.macs(gated.counts(is_open))) == count(compact, example).macs


@pytest.mark.parametrize("name", sampled(["grouped", "grouped-in-residual", "shuffle"], 3))
def test_a_gate_stands_for_one_position_of_all_groups(name: str) -> None:
    module, example = ZOO[name]()
    gated = gated_of(name)
    assert int(gated.widths.max()) > 1
    is_open = random_gates(gated, 3)
    masks = closed_columns(module, gated, is_open)
    compact = compile_module(masked(module, masks), example, masks=masks).module
    assert int(gated.macs(gated.counts(is_open))) == count(compact, example).macs


@pytest.mark.parametrize("round_to", [1, 3, 4, 8, 100])
def test_shipped_counts_are_whole_blocks(round_to: int) -> None:
    gated = gated_of("mobile-net-v2")
    for n in range(21):
        counts = torch.minimum(torch.full_like(gated.sizes, n), gated.sizes).double()
        for kept, size, shipped in zip(
            counts.tolist(), gated.sizes.tolist(), gated.shipped(counts, round_to).tolist(),
            strict=True,
        ):  # fmt: skip
            assert shipped in (0, size) or shipped % round_to == 0
            assert (shipped == 0) == (kept == 0)
            assert shipped <= max(kept, min(size, round_to))
            assert kept - shipped < round_to


@pytest.mark.parametrize(
    ("name", "round_to"),
    [
        slow_case(("mobile-net-v2", 4)),
        ("residual", 3),
        ("concat", 2),
        ("squeeze-excite", 4),
        ("grouped", 2),
        ("grouped-in-residual", 2),
        slow_case(("shuffle", 2)),
    ],
)
def test_what_the_controller_counts_is_what_ships(name: str, round_to: int) -> None:
    """After the selection remove-channels leaves exactly the MACs that the controller believed."""
    module, example, method = method_of(name, dataclasses.replace(OPTIONS, round_to=round_to))
    method.phase.fill_(1)
    method.a = torch.rand(len(method.a)).double() * random_gates(method.gated, 7)
    believed = method.after_epoch(moment(DENSE + SELECT / 2))["macs_ratio"]
    method.finish_selection()
    gated = method.gated
    assert bool(((method.gates() > 0) == (method.a > 0)).all())
    masks = closed_columns(module, gated, method.a > 0)
    module = masked(module, masks)
    compact = compile_module(module, example, masks=masks, round_to=round_to).module
    assert count(compact, example).macs == round(believed * brute_macs(module, example))


SHORT: dict[str, dict[str, Any]] = {
    "one step selects": {"epochs": 2, "batch_size": 96},
    "two steps select": {"epochs": 2, "batch_size": 48},
    "nothing follows": {"epochs": 1},
    "stopped as it ends": {"epochs": 3, "stop": {"accuracy": 1.0}},
    "best as it ends": {"epochs": 3, "ship": "best", "learning_rate": 0.3},
}


@pytest.mark.parametrize("name", slow_but(SHORT, "one step selects"))
def test_the_budget_is_met_and_told_however_short_the_phases(name: str, tmp_path: Path) -> None:
    """The file has the MACs that the report says, and no more than were asked for."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3),
        nn.ReLU(), nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    options = TrainGdp(dense_epochs=0, select_epochs=1, macs_ratio=0.4, round_to=4)
    artifact = Artifact(module.eval(), (torch.randn(2, 1, 8, 8),))
    result = options(artifact, small_context(tmp_path, **SHORT[name]))
    told = float(str(result.history[-1].details["macs_ratio"]))
    assert 0.1 < told <= 0.4
    shipped = RemoveChannels(round_to=4)(AbsorbGates()(result))
    macs = count(shipped.module, shipped.example).macs
    assert macs == round(told * brute_macs(module, artifact.example))


@kinds
def test_an_epoch_tells_how_many_gates_are_open_before_each_kernel(name: str) -> None:
    _, _, method = method_of(name)
    method.phase.fill_(1)
    is_open = random_gates(method.gated, 3)
    method.a = torch.rand(len(method.a)).double().clamp(min=0.1) * is_open
    told = method.after_epoch(moment(DENSE + SELECT / 2))
    for kernel, index in method.gated.readers.items():
        own = [bool(is_open[i]) for i in index.tolist() if i < len(is_open)]
        actual = told["layers"]["gates open"][kernel.removesuffix(".weight")]
        assert actual == pytest.approx(sum(own) / len(own))
    assert len(told["layers"]["gates open"]) == len(method.gated.readers)


def test_an_epoch_tells_the_histogram_of_the_gates() -> None:
    _, _, method = method_of("residual")
    method.phase.fill_(1)
    method.a = torch.rand(len(method.a)).double() * random_gates(method.gated, 3)
    told = method.after_epoch(moment(DENSE + SELECT / 2))["histograms"]["gate g"]
    low, high = told["edges"][:-1], told["edges"][1:]
    gates = method.gates().tolist()
    assert (low[0], high[-1], len(told["counts"])) == (0, 1, len(low))
    assert told["counts"] == [
        sum(a <= g < b for g in gates) for a, b in zip(low, high, strict=True)
    ], "no gate is 1: a²/(a²+ε)"
