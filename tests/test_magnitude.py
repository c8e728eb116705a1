"""Laws of train-magnitude: what is important, what stays, what ships."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from gated_nets import EVERY_KIND, closed_columns, gated_of, nets
from masks import masked
from oracles import brute_macs
from sampling import sampled, slow_but, slow_case
from test_gdp_training import TRAINING, StopAfter, small_artifact
from torch import nn
from training.small_training import small_context
from zoo import ZOO

from prunec.artifact import Artifact
from prunec.cost.torch_graph import count
from prunec.errors import PassError
from prunec.graph.capture import capture
from prunec.graph.channels.analyse import analyse
from prunec.graph.rewriting.compile import compile_module
from prunec.passes.remove_channels import RemoveChannels
from prunec.passes.train_magnitude import TrainMagnitude
from prunec.sparsity.channel_importance import IMPORTANCES, Importance
from prunec.sparsity.gated_macs import gated_channels
from prunec.sparsity.mac_budget import first_block, most_important

OPTIONS = TrainMagnitude(macs_ratio=0.4, round_to=4, dense_epochs=1, batches=3)


def importance_of(name: str, module: nn.Module, example: tuple[torch.Tensor, ...]) -> Importance:
    structure = analyse(capture(module, example))
    return IMPORTANCES[name](structure, gated_channels(structure), module)


@pytest.mark.parametrize("name", sampled(EVERY_KIND, 6, 2))
@pytest.mark.parametrize("round_to", [1, 4])
def test_what_is_chosen_is_what_ships_and_no_lower_threshold_would_do(
    name: str, round_to: int
) -> None:
    module, example = ZOO[name]()
    gated = gated_of(name)
    scores = torch.rand(len(gated.group_of), generator=torch.Generator().manual_seed(3)).double()
    dense = float(gated.macs(gated.sizes.double()))
    least = float(gated.macs(gated.shipped(torch.ones(len(gated.sizes)).double(), round_to)))
    target = least + 0.5 * (dense - least)
    kept = most_important(gated, scores, target, round_to)
    macs = float(gated.macs(gated.counts(kept)))
    assert macs <= target
    assert bool((gated.counts(kept) > 0).all())
    strong = torch.where(first_block(gated, scores, round_to), torch.inf, scores)
    lowest = float(strong[kept].min())
    lower = [t for t in strong.tolist() if t < lowest]
    if lower:  # the next threshold below the one that was taken
        counts = gated.shipped(gated.counts(strong >= max(lower)), round_to)
        more = float(gated.macs(counts))
        assert more > target or more == macs
    masks = closed_columns(module, gated, kept)
    compact = compile_module(masked(module, masks), example, masks=masks, round_to=round_to)
    assert count(compact.module, example).macs == round(macs)


def test_the_magnitude_of_a_channel_is_that_of_what_makes_and_reads_it() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, 3),
    ).eval()  # fmt: skip
    nn.init.uniform_(module[1].weight)
    nn.init.uniform_(module[4].weight)
    example = (torch.randn(2, 1, 8, 8),)
    parts = [
        module[0].weight.flatten(1).T,
        module[3].weight.flatten(1).T,
        module[7].weight.reshape(3, 4, 16).transpose(1, 2).reshape(48, 4),
    ]
    weights = torch.cat([part.detach().double() for part in parts])
    kept = torch.ones(4, dtype=torch.bool)
    scales = (module[1].weight + module[4].weight).detach().double()
    for name, expected in {
        "l1": weights.abs().sum(0), "l2": (weights**2).sum(0).sqrt(), "norm-scale": scales,
    }.items():  # fmt: skip
        actual = importance_of(name, module, example).scores(kept)
        torch.testing.assert_close(actual, expected / expected.mean())


@nets
def test_taylor_is_the_square_of_the_gates_own_gradient(name: str) -> None:
    """∂L/∂g of gates that are attached to the kernels, by autograd."""
    module, example = ZOO[name]()
    module = module.double()
    example = tuple(x.double() if x.is_floating_point() else x for x in example)
    gated = gated_of(name)
    taylor = importance_of("taylor", module, example)

    def loss(network: nn.Module) -> torch.Tensor:
        return sum((x**2).mean() for x in _tensors(network(*(x.clone() for x in example))))

    loss(module).backward()
    taylor.observe()
    actual = taylor.raw()
    weights = dict(module.named_parameters())
    gates = torch.ones(len(gated.group_of), dtype=torch.float64, requires_grad=True)
    spread = torch.cat([gates, gates.new_ones(1)])
    values = {k: spread[i].reshape(gated.shapes[k]) for k, i in gated.readers.items()}
    gated_weights = {k: weights[k].detach() * v for k, v in values.items()}
    outputs = torch.func.functional_call(module, gated_weights, tuple(x.clone() for x in example))
    sum((x**2).mean() for x in _tensors(outputs)).backward()
    assert gates.grad is not None
    torch.testing.assert_close(actual, gates.grad**2, rtol=1e-8, atol=1e-18)
    assert not bool(taylor.raw().any()), "what was seen is forgotten"


def _tensors(value: Any) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else [t for v in value for t in _tensors(v)]


WAYS = {
    "l1": dataclasses.replace(OPTIONS, importance="l1", dense_epochs=None),
    "norm-scale": dataclasses.replace(OPTIONS, importance="norm-scale"),
    "taylor": OPTIONS,
    "rounds": dataclasses.replace(OPTIONS, importance="l2", rounds=3, select=0.4),
    "a choice at the end": dataclasses.replace(OPTIONS, dense_epochs=5),
}


@pytest.mark.parametrize("way", slow_but(WAYS, "taylor"))
def test_a_training_ships_the_macs_it_tells_within_its_budget(way: str, tmp_path: Path) -> None:
    trained = WAYS[way](small_artifact(), small_context(tmp_path, **TRAINING))
    dense = brute_macs(small_artifact().module, trained.example)
    told: Any = trained.history[-1].details
    assert 0.2 < told["macs_ratio"] <= 0.4
    assert not told["targets"]["MACs / dense"]["missed"]
    small = RemoveChannels(round_to=4)(trained)
    assert small.history[-1].macs[1] == round(told["macs_ratio"] * dense)


@pytest.mark.parametrize(
    "epoch", [slow_case(1, nightly=True), slow_case(2), slow_case(4, nightly=True)]
)
@pytest.mark.parametrize("way", ["taylor", slow_case("rounds")])
def test_resumed_is_bit_identical(way: str, epoch: int, tmp_path: Path) -> None:
    whole = WAYS[way](small_artifact(), small_context(tmp_path / "whole", **TRAINING))
    context = small_context(tmp_path / "stopped", **TRAINING)
    stopping: Any = StopAfter(context, epoch)
    with pytest.raises(KeyboardInterrupt):
        WAYS[way](small_artifact(), dataclasses.replace(context, progress=stopping))
    again = small_context(tmp_path / "stopped", resume=True, **TRAINING)
    resumed = WAYS[way](small_artifact(), again)
    for key, value in whole.module.state_dict().items():
        assert torch.equal(resumed.module.state_dict()[key], value), key


def test_in_rounds_nothing_comes_back_and_every_round_meets_its_budget() -> None:
    module, example = ZOO["mobile-net-v2"]()
    gated = gated_of("mobile-net-v2")
    kept = torch.ones_like(gated.group_of, dtype=torch.bool)
    dense = float(gated.macs(gated.sizes.double()))
    importance = importance_of("l1", module, example)
    for share in (0.8, 0.6, 0.5):
        left = most_important(gated, importance.scores(kept), share * dense, 2)
        assert not bool((left & ~kept).any())
        assert float(gated.macs(gated.counts(left))) <= share * dense
        kept = left


def test_options_that_contradict_themselves_and_networks_that_cannot_are_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(PassError, match=r"rounds is 3, select 0") as caught:
        TrainMagnitude(macs_ratio=0.5, rounds=3)
    assert "select = " in caught.value.remedy
    with pytest.raises(PassError, match="found both"):
        TrainMagnitude(macs_ratio=0.5, dense=0.5, dense_epochs=2)
    bare = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3)).eval()
    artifact = Artifact(bare, (torch.randn(2, 1, 8, 8),))
    options = TrainMagnitude(macs_ratio=0.6, importance="norm-scale", round_to=2)
    with pytest.raises(PassError, match="no channel passes a batch norm") as caught:
        options(artifact, small_context(tmp_path, **TRAINING))
    assert "taylor" in caught.value.remedy
    options = TrainMagnitude(macs_ratio=0.01)
    with pytest.raises(PassError, match=r"train-magnitude: macs_ratio 0\.01 cannot be reached"):
        options(artifact, small_context(tmp_path, **TRAINING))
