"""Learned ranks: S with g = exp, the cell by its formula, zeros that are cut, forms that load."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles import worst
from small_training import small_context
from torch import Tensor, nn

import prunec
from prunec.artifact import Artifact
from prunec.errors import PassError, PrunecError
from prunec.models.fastgrnn import FastGRNN, FastGRNNCell, fastgrnn
from prunec.models.low_rank import Form, LowRank, factored, maps_of, reform, unscaled, whole
from prunec.passes.absorb_ranks import AbsorbRanks
from prunec.passes.compact_masks import CompactMasks
from prunec.passes.remove_channels import RemoveChannels
from prunec.passes.train_gmp import TrainGmp
from prunec.passes.train_str_rank import StrRank, TrainStrRank
from prunec.sparsity.densities import save_densities
from prunec.store.artifacts import load_artifact, save_artifact
from prunec.store.runs import RunFolder
from prunec.training.method import Moment


def moment(number: int, steps: int = 100, rate: float = 0.1) -> Moment:
    return Moment(0, number, steps, 1, rate)


def net(rank_w: int = 0, rank_u: int = 0) -> FastGRNN:
    torch.manual_seed(5)
    return fastgrnn(3, inputs=8, hidden=12, rank_w=rank_w, rank_u=rank_u)


def artifact(module: nn.Module | None = None) -> Artifact:
    return Artifact((module or net()).eval(), (torch.randn(2, 1, 8, 8),))


TRAINING = TrainStrRank(factor=("cell.?",), sparsity=0.7, ramp=0.5)
QUICK = {"epochs": 8, "optimizer": {"name": "Adam"}, "learning_rate": 0.01, "weight_decay": 1e-4}


def trained(folder: Path, step: TrainStrRank = TRAINING, **settings: Any) -> Artifact:
    return step(artifact(), small_context(folder, **{**QUICK, **settings}))


# -- maps and cell ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 6)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_its_factors_at_full_rank(shape: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(*shape, bias=bias).double()
    made, x = factored(layer), torch.randn(3, shape[0], dtype=torch.float64)
    assert made.first.out_features == min(shape)
    torch.testing.assert_close(made(x), layer(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(whole(made).weight, layer.weight, rtol=0, atol=1e-12)
    torch.testing.assert_close(unscaled(made)(x), layer(x), rtol=0, atol=1e-12)


def test_a_lower_rank_is_the_nearest_matrix_of_it() -> None:
    """Eckart & Young: the error is what the singular values left out amount to."""
    torch.manual_seed(0)
    layer = nn.Linear(9, 7).double()
    sigma = torch.linalg.svdvals(layer.weight.detach())
    error = torch.linalg.norm((whole(factored(layer, 3)).weight - layer.weight).detach())
    assert float(error) == pytest.approx(float(sigma[3:].square().sum().sqrt()))
    made = factored(layer, 3)
    assert made.m is not None
    torch.testing.assert_close(made.m[0], sigma[:3] / sigma[0])


def test_a_layer_of_zeros_has_factors() -> None:
    layer = nn.Linear(3, 4)
    nn.init.zeros_(layer.weight)
    x = torch.randn(2, 3)
    assert torch.equal(factored(layer)(x), layer(x))


@pytest.mark.parametrize("ranks", [(0, 0), (3, 4)])
def test_the_cell_is_its_formula(ranks: tuple[int, int]) -> None:
    """One sample and unit after the other, with the functions of math alone."""
    torch.manual_seed(1)
    cell = FastGRNNCell(4, 5, *ranks).double()
    for parameter in cell.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    w, u = (
        (whole(part) if isinstance(part, LowRank) else part).weight.tolist()
        for part in (cell.w, cell.u)
    )
    b_z, b_h = cell.bias_z.tolist(), cell.bias_h.tolist()
    zeta, nu = (1 / (1 + math.exp(-v.item())) for v in (cell.zeta, cell.nu))
    for n in range(2):
        h = [0.0] * 5
        for step in x[n].tolist():
            new = []
            for j in range(5):
                both = sum(a * b for a, b in zip(w[j], step, strict=True))
                both += sum(a * b for a, b in zip(u[j], h, strict=True))
                z = 1 / (1 + math.exp(-(both + b_z[j])))
                candidate = math.tanh(both + b_h[j])
                new.append((zeta * (1 - z) + nu) * candidate + z * h[j])
            h = new
        assert cell(x)[n].tolist() == pytest.approx(h, abs=1e-12)


def test_the_cell_starts_as_the_paper_says() -> None:
    cell = FastGRNNCell(40, 60, rank_u=30)
    assert (cell.zeta.item(), cell.nu.item()) == (1.0, -4.0)
    assert bool((cell.bias_z == 1).all() and (cell.bias_h == 1).all())
    assert isinstance(cell.u, LowRank)
    assert bool((cell.u.get_parameter("m") == 1).all())
    for weight in (cell.w.weight, cell.u.first.weight, cell.u.second.weight):
        assert float(weight.detach().std()) == pytest.approx(0.1, rel=0.1)


def test_a_sequence_runs_along_the_last_axis() -> None:
    model = net().double()
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64)
    steps = torch.stack([x[..., t].flatten(1) for t in range(5)], 1)
    torch.testing.assert_close(model(x), model.classifier(model.cell(steps)))


def test_what_is_frozen_stays_frozen() -> None:
    """Through factors, their file, m taken in, and one matrix again; each bias by itself."""
    for weight, bias in ((False, True), (True, False), (False, False)):
        layer = nn.Linear(5, 4)
        layer.weight.requires_grad_(weight)
        layer.bias.requires_grad_(bias)
        made = factored(layer)
        loaded = nn.Sequential(copy.deepcopy(layer))
        reform(loaded, {"0": Form(4, scaled=True)})
        for part in (made, unscaled(made), whole(made), loaded):
            for name, parameter in part.named_parameters():
                assert parameter.requires_grad == (bias if name.endswith("bias") else weight)


# -- thresholds ------------------------------------------------------------------------------------


def test_gradients_are_autograds() -> None:
    """By differentiating sign(m)·relu(|m| − exp(s)) in float64."""
    model = net(rank_w=6, rank_u=7).double()
    for part in maps_of(model).values():
        part.get_parameter("m").data.uniform_(-1, 1)
    options = TrainStrRank(s_init=-1.0)
    kernels = options.kernels(model)
    method = StrRank(options, kernels, weight_decay=0.0, momentum=0.0)
    method.s = torch.tensor([-1.0, -1.5], dtype=torch.float64)
    raw = [m.detach().clone().requires_grad_() for m in method.weights]
    s = method.s.clone().requires_grad_()
    soft = [
        torch.sign(m) * torch.relu(m.abs() - torch.exp(part))
        for m, part in zip(raw, s, strict=True)
    ]
    x = torch.randn(4, 1, 8, 3, dtype=torch.float64)
    replaced = dict(zip(kernels, soft, strict=True))
    torch.func.functional_call(model, replaced, x).square().sum().backward()
    assert 0 < sum(int(torch.count_nonzero(m)) for m in soft) < 13

    method.before_forward(moment(0))
    assert all(torch.equal(a, b) for a, b in zip(method.weights, soft, strict=True))
    model(x).square().sum().backward()
    method.gradient(moment(0))
    for weight, expected in zip(method.weights, raw, strict=True):
        torch.testing.assert_close(weight.grad, expected.grad)
    torch.testing.assert_close(method.slope, s.grad)


def test_without_gradients_s_and_m_decay() -> None:
    """s(t) = s_init·(1 − ηλ)ᵗ, and m is among what the optimizer decays."""
    model = net(rank_w=4, rank_u=4)
    options = TrainStrRank(s_init=-50.0)
    method = StrRank(options, options.kernels(model), weight_decay=0.01, momentum=0.0)
    for number in range(60):
        method.after_step(moment(number))
    assert method.s.tolist() == pytest.approx([-50 * (1 - 0.1 * 0.01) ** 60] * 2, rel=1e-5)
    assert all(m.dim() == 2 for m in method.weights)  # as the loop's rule for decay has it


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.95])
def test_shifts_lead_to_the_wanted_number_of_ranks(sparsity: float) -> None:
    """16 ranks; at 95 % fewer than maps would be left, and every map keeps one."""
    model = net(rank_w=8, rank_u=8)
    torch.manual_seed(2)
    for part in maps_of(model).values():
        part.get_parameter("m").data.uniform_(0.2, 2)
    options = TrainStrRank(sparsity=sparsity, ramp=0.5)
    method = StrRank(options, options.kernels(model), weight_decay=0.0, momentum=0.0)
    for number in range(400):
        method.before_forward(moment(number, 400))
        method.gradient(moment(number, 400))
        method.after_step(moment(number, 400))
    before = method.s.clone()
    method.shift(moment(399, 400))
    assert torch.equal(method.s, before)  # nothing is worn away once the number is reached
    with method.shipping():
        left = [int(torch.count_nonzero(m)) for m in method.weights]
    assert sum(left) == max(2, round(16 * (1 - sparsity)))
    assert min(left) >= 1


@pytest.mark.slow
def test_processes_that_were_not_reached_are_told(tmp_path: Path) -> None:
    """20 ranks of two maps: at 95 % one would be left, and each map keeps one."""
    few = trained(tmp_path / "few", epochs=1)
    assert "asked 70.00 %, reached " in few.history[-1].notes[1]
    assert "train for more" in few.history[-1].notes[1]
    most = trained(tmp_path / "most", TrainStrRank(factor=("cell.?",), sparsity=0.95, ramp=0.5))
    assert most.history[-1].notes[1].startswith("asked 95.00 %, reached 90.00 %: each of 2 maps")
    told = trained(tmp_path / "told").history[-1].notes
    assert not any("asked" in note for note in told)


# -- the road to a file ----------------------------------------------------------------------------


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
    """The ranks asked for are left; it loads again; ONNX is equal under onnxruntime."""
    result = trained(tmp_path)
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
    # The state is zero before the first of the 8 steps, and zeros are not multiplied.
    steps = {"cell.w": (8, 8), "cell.u": (7, 12)}
    reads = {n: many * min(kept[n] * (size + 12), size * 12) for n, (many, size) in steps.items()}
    assert here.macs == sum(reads.values()) + 3 * 12


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    """Three classes of bright rows: chance is a third."""
    result = trained(tmp_path, epochs=16)
    assert float(result.history[-1].details["test_accuracy"]) > 60


@pytest.mark.slow
def test_a_stopped_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole_one = trained(tmp_path / "whole")

    class Stop(Exception):
        pass

    context = small_context(tmp_path / "cut", **QUICK)
    told = context.progress.epoch

    def stopping(metrics: Any) -> None:
        told(metrics)
        if metrics["epoch"] == 5:
            raise Stop

    context.progress.epoch = stopping  # type: ignore[method-assign]
    with pytest.raises(Stop):
        TRAINING(artifact(), context)
    context = replace(small_context(tmp_path / "cut", **QUICK), resume=True)
    resumed = TRAINING(artifact(), context)
    for key, value in whole_one.module.state_dict().items():
        assert torch.equal(resumed.module.state_dict()[key], value), key


def test_any_linear_layer_may_be_factored() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 9), nn.Linear(9, 3))
    expected = module.double()(x := torch.randn(2, 1, 8, 8, dtype=torch.float64))
    forms = TrainStrRank(factor=("2", "3")).split(module)
    assert forms == {"2": Form(9, scaled=True), "3": Form(3, scaled=True)}
    torch.testing.assert_close(module(x), expected)
    assert set(TrainStrRank().kernels(module)) == {"2.m", "3.m"}


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


def shared_weight() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    return net


def zero_head() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    nn.init.zeros_(net[1].weight)
    return net


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (shared_weight(), "0 shares a parameter with 1"),
        (zero_head(), "1 has no rank to learn"),
        (nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16)),
         r"0\.linear1 cannot be factored: torch's TransformerEncoderLayer reads its weight"),
    ],
)  # fmt: skip
def test_layers_that_cannot_be_factored_are_named(net: nn.Module, message: str) -> None:
    with pytest.raises(PassError, match=message) as caught:
        TrainStrRank(factor=("*",)).split(net)
    assert "Leave it out of factor" in caught.value.remedy


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(PassError, match="factor = 'cel' fits no linear layer") as caught:
        TrainStrRank(factor=("cel",)).split(net())
    assert "cell.w, cell.u, classifier" in caught.value.remedy
    with pytest.raises(PassError, match="no low-rank map"):
        TrainStrRank()(artifact(), small_context(tmp_path))
    with pytest.raises(PrunecError, match="low-rank"):
        AbsorbRanks()(artifact())
    with pytest.raises(PassError, match="Flatten, no linear map"):
        reform(nn.Sequential(nn.Flatten()), {"0": Form(2)})


def test_its_densities_are_none_of_layers(tmp_path: Path) -> None:
    """`prunec densities` writes the share of ranks; another method on other layers refuses it."""
    result = trained(tmp_path / "run", epochs=2)
    run = RunFolder(tmp_path / "run")
    save_artifact(result, run.step(0, "train-str-rank"))
    densities = save_densities(run, tmp_path / "densities.json")
    assert set(densities) == {"cell.w.m", "cell.u.m"}
    follower = TrainGmp(
        sparsity=0.5, spread="densities", densities=str(tmp_path / "densities.json")
    )
    with pytest.raises(PassError, match=r"have no layer 'cell\.w'"):
        follower(artifact(), small_context(tmp_path / "other"))
