"""Passes: a rewrite keeps the function and the masks, again it changes nothing; order is law."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

import pytest
import torch
from masks import channel_masks, masked, unstructured_masks
from oracles import brute_macs, fresh_inputs, worst
from sampling import sampled, slow_but
from torch import Tensor, nn
from training.small_training import small_context
from zoo import ZOO

from prunec.artifact import Artifact, Step
from prunec.contract import Remarks, Rewrite, Training, outputs, relative_difference
from prunec.errors import NeedsNotMet, NotExact, PassError
from prunec.graph.channels.groups import channel_groups
from prunec.models.gates import attach_gates
from prunec.passes.absorb_gates import AbsorbGates
from prunec.passes.compact_masks import CompactMasks
from prunec.passes.fold_batchnorm import FoldBatchnorm
from prunec.passes.remove_channels import RemoveChannels
from prunec.passes.train_dense import TrainDense
from prunec.passes.train_gdp import TrainGdp
from prunec.passes.zero_tiny_weights import ZeroTinyWeights
from prunec.training.context import Context

REWRITES: dict[str, Rewrite] = {
    "remove-channels": RemoveChannels(),
    "remove-channels, rounded": RemoveChannels(round_to=4),
    "compact-masks": CompactMasks(),
    "zero-tiny-weights": ZeroTinyWeights(floor=1e-6),
    "fold-batchnorm": FoldBatchnorm(),
}
NETS = ("depthwise", "resnet-with-free-shortcuts")


@cache
def structured(name: str) -> Artifact:
    module, example = ZOO[name]()
    masks = channel_masks(module, channel_groups(module, example), 0.6, "readers", seed=1)
    return Artifact(masked(module, masks), example, masks=masks)


@cache
def unstructured(name: str) -> Artifact:
    module, example = ZOO[name]()
    masks = unstructured_masks(module, 0.4, seed=1)
    return Artifact(masked(module, masks), example, masks=masks)


def gated() -> Artifact:
    module, example = ZOO["residual"]()
    attach_gates(module, {"first.1.0.weight": torch.rand(1, 12, 1, 1, dtype=torch.float64).round()})
    step = Step("train-gdp", {}, ("gated", "trained"), (1, 1), (1, 1), None, 0.0, "")
    return Artifact(module, example, history=(step,))


def weights_equal(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("name", sampled(NETS, 2))
@pytest.mark.parametrize("rewrite", slow_but(REWRITES, "remove-channels"))
def test_a_rewrite_keeps_the_function_and_again_changes_nothing(rewrite: str, name: str) -> None:
    before = structured(name)
    weights = copy.deepcopy(before.module.state_dict())
    once = REWRITES[rewrite](before)
    inputs = fresh_inputs(before.example, 5, 3)
    assert worst(before.module, once.module, inputs) < 1e-10
    kept = before.module.state_dict()
    assert all(torch.equal(kept[key], value) for key, value in weights.items()), "not a new value"
    assert (
        once.history[-1].macs[1]
        <= once.history[-1].macs[0]
        == brute_macs(before.module, before.example)
    )
    twice = REWRITES[rewrite](once)
    assert twice.history[-1].error == 0
    assert weights_equal(once.module, twice.module)
    assert twice.history[-1].digest == once.history[-1].digest


@pytest.mark.slow
def test_the_whole_chain_keeps_the_function() -> None:
    before = structured("mobile-net-v2")
    artifact = before
    for rewrite in (RemoveChannels(round_to=2), CompactMasks(), FoldBatchnorm()):
        artifact = rewrite(artifact)
    assert worst(before.module, artifact.module, fresh_inputs(before.example, 5, 3)) < 1e-10
    macs = [step.macs for step in artifact.history]
    assert macs[0][1] < macs[0][0]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(macs))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in artifact.module.modules())
    assert [step.name for step in artifact.history] == [
        "remove-channels",
        "compact-masks",
        "fold-batchnorm",
    ]


def test_structured_masks_are_gone_when_their_channels_are() -> None:
    artifact = CompactMasks()(RemoveChannels()(structured("depthwise")))
    assert artifact.masks == {}
    assert artifact.facts == {"compact"}


@pytest.mark.parametrize("name", sampled(NETS, 2))
def test_unstructured_masks_survive_as_zeros(name: str) -> None:
    before = unstructured(name)
    dense_share = torch.cat([m.flatten() for m in before.masks.values()]).double().mean()
    artifact = FoldBatchnorm()(CompactMasks()(RemoveChannels()(before)))
    parameters = dict(artifact.module.named_parameters())
    assert set(artifact.masks) <= set(parameters)
    assert len(artifact.masks) > len(before.masks) / 2
    zeros = total = 0
    for key, mask in artifact.masks.items():
        assert mask.shape == parameters[key].shape
        assert bool((parameters[key][~mask] == 0).all())
        zeros, total = zeros + int((~mask).sum()), total + mask.numel()
    assert zeros / total == pytest.approx(1 - float(dense_share), abs=0.15)
    assert artifact.history[-1].params[1] > 0


def test_absorption_joins_the_masks_that_were_there() -> None:
    artifact = gated()
    mask = torch.rand(8, 12, 3, 3) < 0.5
    with torch.no_grad():
        kernel = artifact.module.get_parameter("first.1.0.parametrizations.weight.original")
        kernel.mul_(mask)
    gates = artifact.module.get_buffer("first.1.0.parametrizations.weight.0.gate")
    # The runner knows parameters of the network without gates by their names only.
    actual, _ = AbsorbGates().rewrite(replace(artifact, masks={"first.1.0.weight": mask}))
    assert torch.equal(actual.masks["first.1.0.weight"], mask & (gates != 0))


# -- order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [*REWRITES.values(), TrainGdp(dense_epochs=0, select_epochs=1, macs_ratio=0.5)],
    ids=lambda p: p.pass_name(),
)
def test_a_gated_network_is_absorbed_first(step: Rewrite) -> None:
    with pytest.raises(NeedsNotMet, match="already gated") as caught:
        step(gated())
    assert "order" in caught.value.remedy


def test_gates_are_absorbed_once() -> None:
    absorbed = AbsorbGates()(gated())
    with pytest.raises(NeedsNotMet, match=r"absorb-gates cannot run here: it needs .* gated"):
        AbsorbGates()(absorbed)


def test_a_folded_network_does_not_train() -> None:
    module, example = ZOO["chain"]()
    with pytest.raises(NeedsNotMet, match="already folded"):
        TrainDense()(FoldBatchnorm()(Artifact(module, example)))


def test_a_training_pass_must_be_given_data() -> None:
    module, example = ZOO["chain"]()
    with pytest.raises(PassError, match="is a training pass and needs data"):
        TrainDense()(Artifact(module, example))


# -- what the runner refuses -----------------------------------------------------------------------


@dataclass(frozen=True)
class Spoil(Rewrite):
    """Does to a copy of the network what it should not."""

    act: Callable[[nn.Module], None]

    def rewrite(self, artifact: Artifact) -> tuple[Artifact, Remarks]:
        module = copy.deepcopy(artifact.module)
        with torch.no_grad():
            self.act(module)
        return replace(artifact, module=module), Remarks(("spoilt",))


def _one_weight(module: nn.Module) -> None:
    next(module.parameters()).view(-1)[0] += 1e-6


def _not_a_number(module: nn.Module) -> None:
    next(module.parameters()).view(-1)[0] = float("nan")


def _another_shape(module: nn.Module) -> None:
    assert isinstance(module, nn.Sequential)
    module.append(nn.Flatten(0))


@pytest.mark.parametrize("act", [_one_weight, _not_a_number, _another_shape])
def test_a_rewrite_that_changes_the_outputs_is_refused(act: Callable[[nn.Module], None]) -> None:
    module, example = ZOO["chain"]()
    with pytest.raises(NotExact, match="spoil changed the outputs") as caught:
        Spoil(act)(Artifact(module, example))
    assert "report" in caught.value.remedy


@dataclass(frozen=True)
class Mask(Rewrite):
    """Adds a mask that is not true."""

    name: str
    mask: Tensor

    def rewrite(self, artifact: Artifact) -> tuple[Artifact, Remarks]:
        return replace(artifact, masks={self.name: self.mask}), Remarks(("masked",))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("0.0.weight", (3, 8, 3, 3), "fits no parameter: 0.0.weight"),
        ("nobody.weight", (8, 3, 3, 3), "fits no parameter: nobody.weight"),
        ("0.0.weight", (8, 3, 3, 3), "weights under the mask of 0.0.weight"),
    ],
)
def test_masks_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    module, example = ZOO["chain"]()
    with pytest.raises(NotExact, match=message):
        Mask(name, torch.zeros(shape, dtype=torch.bool))(Artifact(module, example))


@dataclass(frozen=True)
class Boast(Training):
    """Says that it leaves gates and leaves none."""

    adds: ClassVar[frozenset[str]] = frozenset({"gated"})

    def train(self, artifact: Artifact, context: Context) -> tuple[Artifact, Remarks]:
        return artifact, Remarks()


def test_a_pass_that_does_not_leave_what_it_says_is_refused(tmp_path: object) -> None:
    module, example = ZOO["chain"]()
    with pytest.raises(PassError, match="boast left the network without gates"):
        Boast()(Artifact(module, example), small_context(tmp_path))  # type: ignore[arg-type]


def test_differences_are_relative_to_each_output() -> None:
    small, large = torch.full((3,), 1e-3), torch.full((3,), 1e3)
    assert relative_difference([small, large], [small * 1.01, large]) == pytest.approx(
        0.01, rel=1e-3
    )
    assert relative_difference([small], [small, large]) == float("inf")
    assert relative_difference([small], [small.reshape(1, 3)]) == float("inf")
    assert relative_difference([large], [large * float("nan")]) != 0.0


def test_every_output_of_a_nest_is_compared() -> None:
    module, example = ZOO["dict-output"]()
    assert len(outputs(module, example)) == 3
