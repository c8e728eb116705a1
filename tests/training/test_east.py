"""EAST: its three tricks against their formulas and the counts of the paper, and what ships."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from sampling import slow_case
from small_training import CPU, Recorder, Stopped, small_context, stopping_after
from torch import Tensor, nn
from torchvision import models

import prunec
from prunec.artifact import Artifact
from prunec.errors import PassError
from prunec.models.resnet_cifar import ResNetCifar
from prunec.models.ties import ties_of
from prunec.passes._east import East
from prunec.passes.compact_masks import CompactMasks
from prunec.passes.fold_batchnorm import FoldBatchnorm
from prunec.passes.remove_channels import RemoveChannels
from prunec.passes.train_east import TrainEast
from prunec.sparsity.dyrelu import Phasing, phasing_of
from prunec.sparsity.kernels import sparse_kernels
from prunec.sparsity.sharing import Reuse, absorb_gains, reuses, share
from prunec.store.artifacts import load_artifact, save_artifact
from prunec.training.method import Moment

IMAGE = (torch.zeros(2, 3, 32, 32),)


def cifar(builder: Any, classes: int) -> nn.Module:
    """torchvision's ResNet with the stem for small images: 3×3, no stride, no pooling."""
    network: Any = builder(num_classes=classes)
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()
    return network.eval()  # type: ignore[no-any-return]


# -- shared kernels --------------------------------------------------------------------------------


SURVIVORS = {0.99: 212_651, 0.999: 21_265, 0.9995: 10_633, 0.9999: 2_127}  # ResNet-34, 10 classes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("builder", "classes", "total", "unique"),
    [
        (models.resnet34, 10, 21_265_088, 11_164_352),
        slow_case((models.resnet34, 100, 21_311_168, 11_210_432), nightly=True),
        slow_case((models.resnet50, 10, 23_467_712, 13_928_128)),
    ],
)
def test_the_weights_that_are_left_are_the_papers(
    builder: Any, classes: int, total: int, unique: int
) -> None:
    """N_total and N_unique of both networks; the survivors of an unshared one at each sparsity."""
    network = cifar(builder, classes)
    kernels = sparse_kernels(network)
    shared = reuses(network, IMAGE, 2)
    ties = share(network, shared, torch.ones(len(shared)))
    assert sum(k.numel() for k in kernels.values()) == total
    left = {name: k for name, k in kernels.items() if name not in ties}
    assert sum(k.numel() for k in left.values()) == unique
    assert len(shared) == len(ties)
    for sparsity, survivors in SURVIVORS.items():
        method = East(TrainEast(sparsity=sparsity), left, total, torch.Generator().manual_seed(0))
        counts = method.masks.counts()
        assert sum(counts) == round((1 - sparsity) * total)
        assert sum(counts) == survivors or total != 21_265_088
        assert min(counts) > 0


class Blocks(nn.Module):
    """A stem and two stages of residual blocks, functional ReLU: ResNet-20's cousin."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = ResNetCifar(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x)
        return result


def net() -> nn.Module:
    torch.manual_seed(5)
    return Blocks()


EXAMPLE = (torch.randn(2, 1, 8, 8),)


def gained(network: nn.Module, gains: Tensor) -> list[Reuse]:
    """Share the kernels of ``network``; its norms have seen something."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    example = (EXAMPLE[0].to(gains.dtype),)
    shared = reuses(network.eval(), example, 2)
    share(network, shared, gains[: len(shared)])
    return shared


def test_the_later_blocks_take_the_kernels_of_the_last_that_owns_its() -> None:
    shared = reuses(net().eval(), EXAMPLE, 2)
    assert {(one.layer, one.owner) for one in shared} == {
        (f"inner.layer{s}.{b}.conv{c}", f"inner.layer{s}.1.conv{c}")
        for s in (1, 2, 3)
        for b in (2, 3)
        for c in (1, 2)
    }
    assert not reuses(net().eval(), EXAMPLE, 4)


def test_a_shared_kernels_gradient_is_the_sum_over_its_uses() -> None:
    network = net().double()
    gains = torch.rand(12, dtype=torch.float64) + 0.5
    shared = gained(network, gains)
    apart = copy.deepcopy(network)  # the same, but every use has a kernel of its own
    for one in shared:
        held = apart.get_submodule(one.layer).convolution
        held.weight = nn.Parameter(held.weight.detach().clone())
    image = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    for each in (network, apart):
        each(image).square().sum().backward()
    for name in {one.owner for one in shared}:
        uses = [apart.get_submodule(o.layer).convolution for o in shared if o.owner == name]
        expected = sum(
            (use.weight.grad for use in uses), apart.get_parameter(f"{name}.weight").grad
        )
        actual = network.get_parameter(f"{name}.weight").grad
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gain", [0.7, -1.3, 0.0, 1e-6])
def test_a_gain_goes_into_its_norm(gain: float) -> None:
    network = net().double()
    shared = gained(network, torch.full((12,), gain, dtype=torch.float64))
    image = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    before = network(image)
    absorb_gains(network, shared)
    torch.testing.assert_close(network(image), before, rtol=1e-12, atol=1e-12)
    assert len(ties_of(network)) == 12
    assert set(network.state_dict()) == set(net().state_dict())


# -- cyclic sparsity -------------------------------------------------------------------------------


def test_the_density_follows_the_cosine() -> None:
    options = TrainEast(sparsity=0.9, cycles=2, cycle=0.2)
    kernels = sparse_kernels(nn.Sequential(nn.Conv2d(40, 50, 3), nn.Conv2d(50, 60, 3)))
    total = sum(k.numel() for k in kernels.values())
    method = East(options, kernels, total, torch.Generator().manual_seed(0))
    assert method.wanted(0.0) == pytest.approx(0.1)
    assert method.wanted(0.1) == pytest.approx(0.3)
    assert method.wanted(0.05) == pytest.approx(0.2)
    assert method.wanted(0.2) == pytest.approx(0.1)
    assert method.wanted(0.3) == pytest.approx(0.3)


def test_updates_keep_the_largest_or_grow_by_gradient() -> None:
    """One kernel, by hand: peaks at three times the weights, ends with what it began with."""
    torch.manual_seed(1)
    layer = nn.Linear(100, 10, bias=False)
    options = TrainEast(sparsity=0.9, cycles=1, cycle=0.5, cycle_steps=1, update_steps=10**6)
    method = East(options, sparse_kernels(nn.Sequential(layer)), 1000, torch.Generator())
    method.optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    for number in range(41):
        before, mask = layer.weight.detach().clone(), method.masks.values[0].clone()
        gradient = torch.randn(10, 100)
        layer.weight.grad = gradient.clone()
        moment = Moment(0, number, 80, 1, 0.1)
        method.gradient(moment)
        after = method.masks.values[0]
        wanted = round(1000 * min(1, method.wanted(number / 80))) if number < 40 else 100
        assert int(after.sum()) == wanted
        if wanted > mask.sum():
            grown = gradient.abs()[(after > 0) & (mask == 0)]
            assert grown.min() >= gradient.abs()[after == 0].max()
            assert bool((after >= mask).all())
        elif wanted < mask.sum():
            kept, gone = before.abs()[after > 0], before.abs()[(after == 0) & (mask > 0)]
            assert kept.min() >= gone.max()
        with torch.no_grad():
            layer.weight.add_(0.1 * torch.randn(10, 100) * after)


@pytest.mark.parametrize(
    "wrong", [{"cycles": 3, "cycle": 0.5}, {"dyrelu_from": 0.6, "dyrelu_until": 0.5}]
)
def test_contradictions_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PassError):
        TrainEast(sparsity=0.9, **wrong)


# -- a training ------------------------------------------------------------------------------------

OPTIONS = TrainEast(
    sparsity=0.9, dyrelu_from=0.2, dyrelu_until=0.5, cycle=0.25, cycle_steps=2, update_steps=5
)
ABLATIONS = {
    "east": OPTIONS,
    "no dyrelu": replace(OPTIONS, dyrelu_until=0.0),
    "no sharing": replace(OPTIONS, own_blocks=0),
    "no cycles": replace(OPTIONS, cycles=0),
}
every = pytest.mark.parametrize(
    "name", [slow_case(name, nightly=name != "east") for name in ABLATIONS]
)


def trained(options: TrainEast, folder: Path, **settings: Any) -> Artifact:
    artifact = Artifact(net().eval(), EXAMPLE)
    return options(artifact, small_context(folder, **{"epochs": 6, **settings}))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifact]:
    """Result of a training; trained once for all tests."""
    return cache(lambda name: trained(ABLATIONS[name], tmp_path_factory.mktemp("whole")))


@every
def test_what_is_left_ships_without_a_trace(
    name: str, tmp_path: Path, whole: Callable[[str], Artifact]
) -> None:
    """The constructor's parameters, the weights asked for, shared kernels once in the file."""
    result = whole(name)
    total = sum(k.numel() for k in sparse_kernels(net()).values())
    kept = sum(int(mask.sum()) for mask in result.masks.values())
    assert 0.98 * 0.1 * total < kept <= round(0.1 * total)  # what grew in a dead filter stays 0
    assert min(int(mask.sum()) for mask in result.masks.values()) > 0
    assert set(result.module.state_dict()) == set(net().state_dict())
    assert len(result.ties) == (0 if name == "no sharing" else 12)
    save_artifact(result, tmp_path / "trained")
    again = load_artifact(tmp_path / "trained", net)
    assert ties_of(again.module) == dict(result.ties)
    shipped = again
    for step in (RemoveChannels(), CompactMasks(), FoldBatchnorm()):
        shipped = step(shipped)
    save_artifact(shipped, tmp_path / "shipped")
    loaded = load_artifact(tmp_path / "shipped", net)
    torch.testing.assert_close(
        loaded.module(*EXAMPLE), result.module(*EXAMPLE), rtol=1e-5, atol=1e-5
    )
    path = tmp_path / "model.onnx"
    prunec.export_onnx(loaded.module, EXAMPLE, path)
    assert prunec.verify(loaded.module, path, example_inputs=EXAMPLE).passed
    kernels = Counter(len(t.dims) for t in onnx.load(path).graph.initializer)[4]
    assert kernels <= len(sparse_kernels(net())) - 1 - len(result.ties)


STOPPED = {"stop": {"accuracy": 1.0}}
ENDS: dict[str, tuple[TrainEast, dict[str, Any]]] = {
    "cycles last as long as the training": (replace(OPTIONS, cycle=0.5), {}),
    "and the last update is on its last step": (replace(OPTIONS, cycle=0.5, cycle_steps=35), {}),
    "stopped where the cycles end": (
        replace(OPTIONS, dyrelu_until=0.0),
        {"stop": {"accuracy": 1.0}},
    ),
    "the last update is on the last step": (replace(OPTIONS, update_steps=35), {}),
    "DyReLU lasts as long as the training": (replace(OPTIONS, dyrelu_until=1.0), {}),
    "DyReLU is never blended": (replace(OPTIONS, dyrelu_from=1.0, dyrelu_until=1.0), {}),
}


# The others are neighbours of these: the same end is met in another way.
USUAL = ("stopped where the cycles end", "DyReLU lasts as long as the training")


@pytest.mark.parametrize("name", [slow_case(name, nightly=name not in USUAL) for name in ENDS])
def test_the_density_is_met_and_what_is_told_is_what_ships(name: str, tmp_path: Path) -> None:
    """Wherever the training ends: 36 steps, of which 18 or all are cycles."""
    options, settings = ENDS[name]
    context = small_context(tmp_path, **{"epochs": 6, **settings})
    result = options(Artifact(net().eval(), EXAMPLE), context)
    total = sum(k.numel() for k in sparse_kernels(net()).values())
    kept = sum(int(mask.sum()) for mask in result.masks.values())
    assert 0.98 * 0.1 * total < kept <= round(0.1 * total)
    told = result.history[-1].details["test_accuracy"]
    images, labels = context.data.test_images, context.data.test_labels
    with torch.no_grad():
        answers = result.module(context.data.normalise(images)).argmax(1)
    assert told == pytest.approx(100 * float((answers == labels).float().mean()))


@pytest.mark.slow
def test_what_stays_dense_is_not_shared(tmp_path: Path) -> None:
    """Neither a kernel that others would take, nor one that would take another's."""
    dense = ("inner.layer1.1.conv1", "inner.layer2.3.conv2")
    result = trained(replace(OPTIONS, dense=dense), tmp_path)
    kernels = {f"{layer}.weight" for layer in dense}
    assert not kernels & {*result.ties, *result.ties.values(), *result.masks}
    assert len(result.ties) == 12 - 2 - 1
    total = sum(k.numel() for k in sparse_kernels(net(), dense).values())
    kept = sum(int(mask.sum()) for mask in result.masks.values())
    assert 0.98 * 0.1 * total < kept <= round(0.1 * total)


@pytest.mark.slow
def test_fewer_zeros_than_sharing_leaves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PassError, match=r"sparsity is 0\.1, but what blocks share") as caught:
        trained(replace(OPTIONS, sparsity=0.1), tmp_path)
    assert "own_blocks = 0" in str(caught.value.remedy)


@pytest.mark.nightly  # what is left of a training ships so too
def test_a_kernel_that_is_shared_is_stored_once(tmp_path: Path) -> None:
    network, path = net(), tmp_path / "model.onnx"
    shared = gained(network, torch.rand(12) + 0.5)
    absorb_gains(network, shared)
    prunec.export_onnx(network, EXAMPLE, path)
    kernels = Counter(len(t.dims) for t in onnx.load(path).graph.initializer)[4]
    assert kernels == 1 + 3 * 4
    convolutions = Counter(node.op_type for node in onnx.load(path).graph.node)["Conv"]
    assert convolutions == 1 + 3 * 8


@pytest.mark.nightly  # test_mask_methods.py trains it too
def test_it_learns_and_tells_beta(tmp_path: Path) -> None:
    context = small_context(tmp_path, epochs=16)
    result = OPTIONS(Artifact(net().eval(), EXAMPLE), context)
    assert float(result.history[-1].details["test_accuracy"]) > 60
    assert isinstance(context.progress, Recorder)
    betas = [epoch["dyrelu_beta"] for epoch in context.progress.epochs]
    assert betas[0] == 1
    assert betas[8:] == [0] * 8
    assert [epoch["settled"] for epoch in context.progress.epochs] == [False] * 8 + [True] * 8
    assert result.module(*EXAMPLE).device == CPU


@pytest.mark.slow
def test_it_tells_how_many_parameters_of_dyrelu_trained(whole: Callable[[str], Artifact]) -> None:
    report = whole("east").history[-1]
    count = sum(1.25 * c**2 + 4.25 * c for c in phasing_of(net().eval(), EXAMPLE).channels)
    assert report.details["dyrelu_params"] == count
    told = f"{count:,.0f} parameters of DyReLU learned until 20 %"
    assert any(told in note for note in report.notes)


@pytest.mark.parametrize("stop", [slow_case(n, nightly=True) for n in (2, 4)])
def test_a_stopped_training_ends_with_the_same_weights(
    stop: int, tmp_path: Path, whole: Callable[[str], Artifact]
) -> None:
    context = stopping_after(small_context(tmp_path / "cut", epochs=6), stop)
    with pytest.raises(Stopped):
        OPTIONS(Artifact(net().eval(), EXAMPLE), context)
    later = replace(small_context(tmp_path / "cut", epochs=6), resume=True)
    resumed = OPTIONS(Artifact(net().eval(), EXAMPLE), later)
    for key, value in whole("east").module.state_dict().items():
        assert torch.equal(resumed.module.state_dict()[key], value), key


def test_units_do_not_learn_while_they_are_phased_out(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    phasing = Phasing([4])
    method = East(OPTIONS, sparse_kernels(network), 180, torch.Generator(), phasing)
    phasing.install(network)
    method.optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for number, moves in ((0, True), (1, True), (2, False), (3, False)):
        before = copy.deepcopy(phasing.units.state_dict())
        moment = Moment(0, number, 10, 1, 0.1)
        method.optimizer.zero_grad()
        method.before_forward(moment)
        network(torch.randn(2, 1, 8, 8)).square().sum().backward()
        method.gradient(moment)
        method.optimizer.step()
        after = phasing.units.state_dict()
        changed = any(not torch.equal(after[key], before[key]) for key in before)
        assert changed == moves
