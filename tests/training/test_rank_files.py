"""The road of learned ranks to a file: zeros of m are cut, forms load, ONNX is equal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import worst
from ranked_nets import QUICK, net, trained
from small_training import small_context
from torch import Tensor, nn

import prunec
from prunec.artifact import Artifact
from prunec.models.low_rank import Form, maps_of
from prunec.passes.absorb_ranks import AbsorbRanks
from prunec.passes.compact_masks import CompactMasks
from prunec.passes.remove_channels import RemoveChannels
from prunec.passes.train_str_rank import TrainStrRank
from prunec.store.artifacts import load_artifact, save_artifact


def with_ranks(module: nn.Module, left: int) -> nn.Module:
    """Random m of which so many are not zero."""
    for part in maps_of(module).values():
        m = part.get_parameter("m")
        m.data.uniform_(0.5, 2)
        m.data[:, torch.randperm(m.shape[1])[left:]] = 0
    return module


def masked(module: nn.Module) -> Artifact:
    masks = {f"{n}.m": part.get_parameter("m").detach() != 0 for n, part in maps_of(module).items()}
    x = torch.randn(2, 1, 8, 5, dtype=torch.float64)
    facts = ("low-rank", "masked", "trained")
    step = prunec.artifact.Step("made", {}, facts, (1, 1), (1, 1), None, 0.0, "")
    return Artifact(module.double().eval(), (x,), masks, history=(step,))


def test_zeros_of_m_are_ranks_that_go() -> None:
    before = masked(with_ranks(net(rank_w=6, rank_u=9), 2))
    after = CompactMasks()(RemoveChannels()(AbsorbRanks()(before)))
    shapes = {name: tuple(p.shape) for name, p in after.module.named_parameters()}
    assert shapes["cell.w.first.weight"] == (2, 8)
    assert shapes["cell.w.second.weight"] == (12, 2)
    assert shapes["cell.u.first.weight"] == (2, 12)
    assert shapes["cell.u.second.weight"] == (12, 2)
    assert "cell.u.m" not in shapes
    assert not after.masks
    assert worst(before.module, after.module, (torch.randn(3, 1, 8, 5).double(),)) < 1e-10


def test_zeros_of_m_go_without_being_absorbed_too() -> None:
    model = with_ranks(net(rank_w=6, rank_u=9), 2).double().eval()
    x = torch.randn(2, 1, 8, 5, dtype=torch.float64)
    compiled = prunec.compile(model, x)
    assert tuple(compiled.module.get_parameter("cell.u.m").shape) == (1, 2)
    assert worst(model, compiled.module, (x,)) < 1e-10


def test_units_that_nobody_reads_go() -> None:
    model = net(rank_w=3, rank_u=3).double().eval()
    with torch.no_grad():
        model.classifier.weight[:, 4:7] = 0
        model.cell.u.first.weight[:, 4:7] = 0
    x = torch.randn(2, 1, 8, 5, dtype=torch.float64)
    compiled = prunec.compile(model, x)
    assert compiled.module.get_parameter("cell.bias_z").shape == (9,)
    assert worst(model, compiled.module, (x,)) < 1e-10


def test_factors_that_cost_more_than_a_matrix_are_multiplied_out() -> None:
    """12×8: from ⌈96/20⌉ = 5 ranks on; 12×12: from 6 on."""
    module = net(rank_w=6, rank_u=9)
    for name, left in (("w", 5), ("u", 5)):
        with_ranks(nn.ModuleDict({name: getattr(module.cell, name)}), left)
    before = masked(module)
    after = AbsorbRanks()(before)
    assert after.forms == {"cell.w": Form(0), "cell.u": Form(9)}
    assert type(after.module.get_submodule("cell.w")) is nn.Linear
    assert set(after.masks) == {"cell.u.second.weight"}
    assert after.history[-1].error is not None
    assert after.history[-1].error < 1e-12
    note = after.history[-1].notes[0]
    assert "cell.w: 5 ranks cost more than 12×8: one matrix" in note
    assert "cell.u: rank 5 of 9" in note


@pytest.mark.slow
def test_a_trained_network_ships(tmp_path: Path) -> None:
    """The ranks asked for are left; it loads again; ONNX is equal under onnxruntime.

    What ships is as long as its example: of the eight steps of the training, three.
    """
    result = replace(trained(tmp_path), example=(torch.randn(2, 1, 8, 3),))
    ranks: Any = result.history[-1].details["ranks"]
    assert sum(left for left, _ in ranks.values()) == round(0.3 * 20)
    assert [of for _, of in ranks.values()] == [8, 12]
    assert result.facts == {"trained", "masked", "low-rank"}
    save_artifact(result, tmp_path / "trained")
    loaded = load_artifact(tmp_path / "trained", net)
    assert torch.equal(loaded.module(*result.example), result.module(*result.example))
    for step in (AbsorbRanks(), RemoveChannels(), CompactMasks()):
        result = step(result)
    save_artifact(result, tmp_path / "artifact")
    loaded = load_artifact(tmp_path / "artifact", net)
    assert torch.equal(loaded.module(*result.example), result.module(*result.example))
    assert loaded.forms == result.forms
    path = tmp_path / "model.onnx"
    prunec.export_onnx(result.module, result.example, path)
    assert prunec.verify(result.module, path, example_inputs=result.example).passed
    here, there = prunec.count(result.module, result.example), prunec.count_onnx(path)
    assert (here.macs, here.params) == (there.macs, there.params)
    kept = {name: left for name, (left, _) in ranks.items()}
    # The state is zero before the first of the 3 steps, and zeros are not multiplied.
    steps = {"cell.w": (3, 8), "cell.u": (2, 12)}
    reads = {n: many * min(kept[n] * (size + 12), size * 12) for n, (many, size) in steps.items()}
    assert here.macs == sum(reads.values()) + 3 * 12


class Twice(nn.Module):
    """One linear layer under two names, an untied one between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.between, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(64, 3)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, 3] for [N, 1, 8, 8]."""
        inner = self.second(torch.relu(self.between(torch.relu(self.first(x)))))
        logits: Tensor = self.head(inner.flatten(1))
        return logits


@pytest.mark.slow
@pytest.mark.parametrize("name", ["first", "second"])
def test_a_layer_of_two_names_is_one_map(name: str, tmp_path: Path) -> None:
    """Outputs and parameters as they were, through training, absorbing, cutting and files."""
    module = Twice().double()
    expected = module(x := torch.randn(2, 1, 8, 8, dtype=torch.float64))
    assert TrainStrRank(factor=(name,)).split(module) == {"first": Form(8, scaled=True)}
    torch.testing.assert_close(module(x), expected)
    assert sum(p.numel() for p in module.parameters()) == 64 + 8 + 64 + 8 + 72 + 64 * 3 + 3

    start = Artifact(Twice().eval(), (torch.randn(2, 1, 8, 8),))
    step = TrainStrRank(factor=(name,), sparsity=0.7, ramp=0.5)
    result = step(start, small_context(tmp_path, **QUICK))
    assert result.module.first is result.module.second
    result = AbsorbRanks()(result)
    assert result.module.first is result.module.second
    save_artifact(result, tmp_path / "artifact")
    loaded = load_artifact(tmp_path / "artifact", Twice)
    assert loaded.module.first is loaded.module.second
    assert torch.equal(loaded.module(*start.example), result.module(*start.example))
    compact = CompactMasks()(RemoveChannels()(result)).module
    ranks: Any = result.history[0].details["ranks"]
    names = ("first.", "second.")
    shapes = {tuple(p.shape) for n, p in compact.named_parameters() if n.startswith(names)}
    assert shapes == {(ranks["first"][0], 8), (8, ranks["first"][0]), (8,)}
