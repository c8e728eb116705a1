"""Laws of GDP: gates, their MACs, their steps, and what is left of them when training is over."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from masks import masked, randomise
from oracles import brute_macs, fresh_inputs, worst
from torch import Tensor, nn
from torch.func import functional_call
from training.small_training import small_context
from zoo import ZOO
from zoo.parts import block, head, linear_block

from prunec.artifact import Artifact, Step
from prunec.cost.torch_graph import count
from prunec.errors import PassError
from prunec.graph.atoms import analyse
from prunec.graph.capture import capture
from prunec.graph.compile import compile_module
from prunec.graph.gates import attach_gates, gates_of
from prunec.graph.groups import channel_groups
from prunec.graph.macs import Gated, gated_channels
from prunec.passes.absorb_gates import AbsorbGates
from prunec.passes.remove_channels import RemoveChannels
from prunec.passes.train_gdp import Gdp, TrainGdp
from prunec.training.context import Context
from prunec.training.loop import fit
from prunec.training.method import Moment

NETS = ("mobile-net-v2", "resnet-with-free-shortcuts", "residual", "dense-net", "shuffle-net-v2",
        "projection", "concat", "vgg", "squeeze-excite")  # fmt: skip
EVERY_KIND = (*NETS, "grouped", "transposed-grouped", "shared-module")
DENSE, SELECT, EPOCHS, STEPS = 1, 2, 5, 10
OPTIONS = TrainGdp(dense_epochs=DENSE, select_epochs=SELECT, macs_ratio=0.4, round_to=4)
Gates = Mapping[str, Tensor]

nets = pytest.mark.parametrize("name", NETS)
a_few = pytest.mark.parametrize(
    "name", ["mobile-net-v2", "resnet-with-free-shortcuts", "dense-net", "shuffle-net-v2"]
)
kinds = pytest.mark.parametrize("name", EVERY_KIND)


@cache
def _gated(name: str) -> Gated:
    return gated_channels(analyse(capture(*ZOO[name]())))


def method_of(name: str, options: TrainGdp = OPTIONS) -> tuple[nn.Module, tuple[Tensor, ...], Gdp]:
    module, example = ZOO[name]()
    return module, example, Gdp(options, module, _gated(name))


def moment(progress: float, learning_rate: float = 0.1) -> Moment:
    epoch = int(progress)
    return Moment(epoch, round((progress - epoch) * STEPS), STEPS, EPOCHS, learning_rate)


def random_gates(gated: Gated, seed: int, density: float = 0.6) -> Tensor:
    """Open or not; at least one gate of every group is."""
    generator = torch.Generator().manual_seed(seed)
    is_open = torch.rand(len(gated.group_of), generator=generator) < density
    starts = torch.cumsum(gated.sizes, 0) - gated.sizes
    is_open[starts + (torch.rand(len(starts), generator=generator) * gated.sizes).long()] = True
    return is_open


def closed_columns(module: nn.Module, gated: Gated, is_open: Tensor) -> dict[str, Tensor]:
    """The readers' masks that closed gates mean."""
    weights = dict(module.named_parameters())
    spread = torch.cat([is_open, torch.ones(1, dtype=torch.bool)])
    return {
        name: spread[index].reshape(gated.shapes[name]).expand_as(weights[name]).clone()
        for name, index in gated.readers.items()
    }


# -- the gate ------------------------------------------------------------------------------------


def test_the_gate_is_the_papers() -> None:
    """g = a²/(a²+ε): 0 at 0, 1/4 where it is steepest, towards 1[a ≠ 0] as ε falls."""
    _, _, method = method_of("residual")
    method.phase.fill_(1)
    epsilon = float(method.epsilon)
    steepest = math.sqrt(epsilon / 3)
    method.a[:4] = torch.tensor([0.0, 1.0, steepest, -steepest], dtype=torch.float64)
    expected = [0.0, 1 / (1 + epsilon), 0.25, 0.25]
    assert method.gates()[:4].tolist() == pytest.approx(expected, abs=1e-12)
    slopes = []
    for a in (steepest, 0.98 * steepest, 1.02 * steepest):
        method.a = torch.full_like(method.a, a).requires_grad_()
        slopes.append(float(torch.autograd.grad(method.gates()[0], method.a)[0][0]))
    assert slopes[0] > max(slopes[1:])
    method.a = torch.tensor([1e-3, 0.0, 1.0]).double()
    method.epsilon.fill_(1e-12)
    assert method.gates().tolist() == pytest.approx([1.0, 0.0, 1.0], abs=1e-5)


def test_all_gates_are_1_in_the_dense_phase() -> None:
    _, _, method = method_of("residual")
    assert method.gates().tolist() == [1.0] * len(method.a)


def test_a_gates_step_has_the_slope_of_the_gate() -> None:
    """While the MACs are free, equal slopes ∂L/∂g move gates by g'(a), as autograd has it."""
    _, _, method = method_of("mobile-net-v2")
    method.phase.fill_(1)
    before = torch.linspace(0.05, 1.5, len(method.a), dtype=torch.float64)
    leaf = before.clone().requires_grad_()
    method.a = leaf
    slope = torch.autograd.grad(method.gates().sum(), leaf)[0]
    method.a = before.clone()
    method.slope = -torch.ones_like(method.a)
    method.after_step(moment(DENSE, learning_rate=1e-4))
    speed = (method.a - before) / slope
    assert float(speed.min()) > 0
    assert float(speed.max() / speed.min()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_zero_is_absorbing_under_any_gradient(seed: int) -> None:
    """Whatever the loss asks for, a gate that closed stays closed and none turns negative."""
    _, _, method = method_of("resnet-with-free-shortcuts")
    generator = torch.Generator().manual_seed(seed)
    method.phase.fill_(1)
    was_closed = torch.zeros(len(method.a), dtype=torch.bool)
    for step in range(SELECT * STEPS):
        scale = 10.0 ** torch.randint(-4, 4, method.a.shape, generator=generator)
        method.slope = torch.randn(method.a.shape, generator=generator, dtype=torch.float64) * scale
        method.after_step(moment(DENSE + step / STEPS))
        closed = method.a == 0
        assert not bool((was_closed & ~closed).any())
        assert bool((method.a >= 0).all())
        assert bool(torch.isfinite(method.a).all())
        was_closed = closed
    assert bool(was_closed.any())
    assert not bool(was_closed.all())


def test_a_steady_pull_leaves_no_gate_between_0_and_a_quarter() -> None:
    """The toy in one dimension: g'(a)·s against a pull: above √(ε/3) or gone."""
    epsilon, pull, rate = 0.1, 0.8, 0.01
    a = torch.linspace(0.05, 2, 40, dtype=torch.float64)
    wanted = torch.linspace(0.1, 3, 40, dtype=torch.float64)  # how much the loss asks for each
    for _ in range(6000):
        slope = 2 * epsilon * a / (a**2 + epsilon) ** 2
        v = a + rate * wanted * slope * torch.exp(-a)
        a = (v - rate * pull).clamp(min=0) * (a > 0)
    gates = a**2 / (a**2 + epsilon)
    assert 0 < int((gates > 0).sum()) < 40
    assert not bool(((gates > 0) & (gates < 0.25)).any())


# -- MACs as a function of counts ------------------------------------------------------------------


@kinds
def test_all_gates_open_is_the_dense_network(name: str) -> None:
    module, example = ZOO[name]()
    assert int(_gated(name).macs(_gated(name).sizes.double())) == brute_macs(module, example)


@nets
def test_the_marginal_cost_is_the_difference_of_one_channel(name: str) -> None:
    """c = ∂F/∂n = F(n+1) − F(n): no kernel reads and writes the same group."""
    gated = _gated(name)
    counts = (torch.rand(len(gated.sizes), dtype=torch.float64) * gated.sizes).floor()
    one_more = counts + torch.eye(len(counts), dtype=torch.float64)
    assert torch.equal(gated.marginal(counts), gated.macs(one_more) - gated.macs(counts))


def test_the_marginal_cost_is_the_derivative_where_a_kernel_reads_what_it_writes() -> None:
    gated = _gated("shared-module")
    counts = torch.tensor([5.0], dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(gated.macs(counts), counts)[0]
    torch.testing.assert_close(gated.marginal(counts.detach()), expected)


@a_few
def test_macs_of_open_gates_are_those_of_the_cut_network(name: str) -> None:
    """The bilinear form equals a count over the graph of the network that was really cut."""
    module, example = ZOO[name]()
    gated = _gated(name)
    is_open = random_gates(gated, 1)
    masks = closed_columns(module, gated, is_open)
    compact = compile_module(masked(module, masks), example, masks=masks).module
    assert int(gated.macs(gated.counts(is_open))) == count(compact, example).macs


@pytest.mark.parametrize("name", ["grouped", "grouped-in-residual", "shuffle"])
def test_a_gate_stands_for_one_position_of_all_groups(name: str) -> None:
    module, example = ZOO[name]()
    gated = _gated(name)
    assert int(gated.widths.max()) > 1
    is_open = random_gates(gated, 3)
    masks = closed_columns(module, gated, is_open)
    compact = compile_module(masked(module, masks), example, masks=masks).module
    assert int(gated.macs(gated.counts(is_open))) == count(compact, example).macs


@pytest.mark.parametrize("round_to", [1, 3, 4, 8, 100])
def test_shipped_counts_are_whole_blocks(round_to: int) -> None:
    gated = _gated("mobile-net-v2")
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
        ("mobile-net-v2", 4),
        ("residual", 3),
        ("concat", 2),
        ("squeeze-excite", 4),
        ("grouped", 2),
        ("grouped-in-residual", 2),
        ("shuffle", 2),
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


@pytest.mark.parametrize("name", SHORT)
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
        found = told["layers"]["gates open"][kernel.removesuffix(".weight")]
        assert found == pytest.approx(sum(own) / len(own))
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


# -- the function ---------------------------------------------------------------------------------


def logits(method: Gdp, module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    with torch.no_grad(), method.shipping():
        return module(*inputs).clone()


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@kinds
def test_entering_the_selection_does_not_change_the_function(name: str) -> None:
    module, example, method = method_of(name)
    inputs = fresh_inputs(example, 3, 1)
    before = module(*inputs).detach()
    raw = [kernel.detach().clone() for kernel in method.kernels]
    method.before_forward(moment(DENSE))
    assert int(method.phase) == 1
    assert relative(module(*inputs).detach(), before) < 1e-10
    method.close_kernels()
    assert float(method.gates().max()) < 1
    assert any(not torch.equal(a, b) for a, b in zip(raw, method.kernels, strict=True))


@kinds
def test_polarisation_does_not_change_the_function(name: str) -> None:
    module, example, method = method_of(name, dataclasses.replace(OPTIONS, macs_ratio=1.0))
    inputs = fresh_inputs(example, 3, 1)
    method.before_forward(moment(DENSE))
    method.a = (0.3 + torch.rand(len(method.a)).double()) * random_gates(method.gated, 3)
    method.before_forward(moment(DENSE + SELECT))
    assert int(method.phase) == 2
    method.close_kernels()
    before, start = logits(method, module, inputs), method.gates()
    for step in range(1, 2 * STEPS):
        method.before_forward(moment(DENSE + SELECT + step / STEPS))
        method.close_kernels()
    assert relative(logits(method, module, inputs), before) < 1e-10
    assert float(method.epsilon) == pytest.approx(OPTIONS.epsilon_end)
    survivors = start > 0
    assert torch.equal(method.gates() > 0, survivors)
    assert float((1 - method.gates()[survivors]).max()) < float((1 - start[survivors]).max()) / 50


@kinds
def test_gradients_of_the_scaled_kernels_are_autograds(name: str) -> None:
    """∂L/∂W and ∂L/∂g of the in-place scheme against autograd through W·g."""
    module, example, method = method_of(name)
    gated, inputs = method.gated, fresh_inputs(example, 3, 1)
    method.before_forward(moment(DENSE))
    method.close_kernels()
    method.a = torch.rand(len(method.a)).double() * random_gates(gated, 5)
    g = method.gates().requires_grad_()
    weights = {n: p.detach().clone().requires_grad_() for n, p in module.named_parameters()}
    spread = torch.cat([g, g.new_ones(1)])
    used = dict(weights)
    for kernel, index in gated.readers.items():
        used[kernel] = weights[kernel] * spread[index].reshape(gated.shapes[kernel])
    functional_call(module, used, inputs).square().sum().backward()

    method.before_forward(moment(DENSE + 0.5))
    module(*inputs).square().sum().backward()
    method.gradient(moment(DENSE + 0.5))
    assert g.grad is not None
    torch.testing.assert_close(method.slope, g.grad, rtol=1e-9, atol=1e-9)
    for key, parameter in module.named_parameters():
        torch.testing.assert_close(parameter, weights[key])
        torch.testing.assert_close(parameter.grad, weights[key].grad, rtol=1e-9, atol=1e-9)


# -- absorption and removal -----------------------------------------------------------------------


def with_gates(module: nn.Module, example: tuple[Tensor, ...], gates: Gates) -> Artifact:
    """What a training pass would leave."""
    attach_gates(module, gates)
    macs = brute_macs(module, example)
    facts = ("gated", "trained")
    step = Step("train-gdp", {}, facts, (macs, macs), (0, 0), None, 0.0, "")
    return Artifact(module, example, history=(step,))


def gated_artifact(name: str, a: Tensor) -> Artifact:
    module, example, method = method_of(name)
    method.phase.fill_(1)
    method.a = a.double()
    return with_gates(module, example, method.kernel_gates())


@pytest.mark.parametrize("name", ["mobile-net-v2", "grouped", "transposed-grouped", "vgg"])
def test_outputs_before_and_after_absorption_agree(name: str) -> None:
    is_open = random_gates(_gated(name), 2)
    gated = gated_artifact(name, (0.2 + torch.rand(len(is_open))) * is_open)
    after = AbsorbGates()(gated)
    assert after.history[-1].error is not None
    assert after.history[-1].error < 1e-10
    assert worst(gated.module, after.module, fresh_inputs(gated.example, 3, 4)) < 1e-10
    assert gates_of(after.module) == {}
    assert bool(gates_of(gated.module)), "the artifact before is a value and must not change"
    closed = torch.cat([(~mask).flatten() for mask in after.masks.values()])
    assert bool(closed.any())


def test_a_stream_keeps_a_channel_that_one_reader_wants() -> None:
    """One of three readers closes channels 2 and 5, all close channel 3: 3 alone goes."""
    module, example = ZOO["residual"]()
    readers = ("first.0.0.weight", "second.0.0.weight", "head.2.weight")
    gates = {}
    for reader in readers:
        gates[reader] = torch.ones(8, dtype=torch.float64)
        gates[reader][3] = 0.0
    gates[readers[0]][[2, 5]] = 0.0
    shaped = {n: g.reshape(1, -1, *[1] * (2 if "head" not in n else 0)) for n, g in gates.items()}
    artifact = AbsorbGates()(with_gates(module, example, shaped))
    small = RemoveChannels()(artifact)
    removed: Any = small.history[-1].details["removed"]
    (stream,) = [
        group.name for group in channel_groups(artifact.module, example) if group.size == 8
    ]
    assert removed == {stream: 1}
    assert worst(artifact.module, small.module, fresh_inputs(example, 3, 4)) < 1e-10


def test_an_empty_block_goes_and_its_constant_stays() -> None:
    gated = _gated("residual")
    inner = {int(i) for i in gated.readers["first.1.0.weight"]}
    a = torch.tensor([0.0 if i in inner else 1.0 for i in range(len(gated.group_of))])
    artifact = AbsorbGates()(gated_artifact("residual", a))
    small = RemoveChannels()(artifact)
    inputs = fresh_inputs(artifact.example, 3, 4)
    assert worst(artifact.module, small.module, inputs) < 1e-10
    layers = [layer.name for layer in count(small.module, small.example).layers]
    assert not [name for name in layers if name.startswith("first")]
    assert [name for name in layers if name.startswith("second")]
    expected = int(gated.macs(gated.counts(a > 0)))
    assert small.history[-1].macs[1] == expected
    without = copy.deepcopy(artifact.module)
    nn.init.zeros_(without.get_parameter("first.1.1.bias"))
    nn.init.zeros_(without.get_buffer("first.1.1.running_mean"))
    assert worst(artifact.module, without, inputs) > 1e-3, "the constant does not matter here"


# -- a whole small training -----------------------------------------------------------------------


class Small(nn.Module):
    """A stem, a residual block, a head; 1×8×8 to three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(1, 16)
        self.body = nn.Sequential(block(16, 24), block(24, 24, groups=24), linear_block(24, 16, 1))
        self.head = head(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.relu(x + self.body(x)))


def small_artifact() -> Artifact:
    torch.manual_seed(5)
    return Artifact(randomise(Small()).eval(), (torch.randn(2, 1, 8, 8),))


@cache
def small_gated() -> Gated:
    artifact = small_artifact()
    return gated_channels(analyse(capture(artifact.module, artifact.example)))


TRAINING = {"epochs": EPOCHS, "batch_size": 8}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return OPTIONS(small_artifact(), small_context(tmp_path_factory.mktemp("run"), **TRAINING))


def test_after_training_no_gate_lies_between_0_and_a_quarter(trained: Artifact) -> None:
    gates = torch.cat([gate.flatten() for gate in gates_of(trained.module).values()])
    assert bool((gates == 0).any())
    assert not bool(((gates > 0) & (gates < 0.25)).any())
    assert trained.history[-1].details["gates_between"] == 0


def test_after_training_the_budget_is_met_as_it_ships(trained: Artifact) -> None:
    dense = brute_macs(small_artifact().module, trained.example)
    assert trained.history[-1].macs == (dense, dense), "a gate is not a cut yet"
    small = RemoveChannels(round_to=OPTIONS.round_to)(AbsorbGates()(trained))
    assert small.history[-1].macs[1] <= OPTIONS.macs_ratio * dense
    details: Any = trained.history[-1].details
    assert small.history[-1].macs[1] == round(details["macs_ratio"] * dense)
    assert details["test_accuracy"] > 60


def test_training_starts_from_the_weights_and_leaves_them(trained: Artifact) -> None:
    artifact = small_artifact()
    assert gates_of(artifact.module) == {}
    fresh = dict(artifact.module.named_parameters())
    assert not torch.equal(fresh["head.2.bias"], trained.module.get_parameter("head.2.bias"))
    assert not trained.module.training


class StopAfter:
    """Stands in for the loop's progress: Ctrl-C when an epoch is over."""

    def __init__(self, context: Context, epoch: int) -> None:
        self.inner: Any = context.progress
        self.stop = epoch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def epoch(self, metrics: dict[str, Any]) -> None:
        self.inner.epoch(metrics)
        if metrics["epoch"] == self.stop:
            raise KeyboardInterrupt


def fitted(context: Context) -> tuple[nn.Module, Gdp]:
    artifact = small_artifact()
    method = Gdp(OPTIONS, artifact.module, small_gated())
    fit(artifact.module, method, context)
    return artifact.module, method


@pytest.mark.parametrize("epoch", [1, 2, 4], ids=["dense", "selecting", "finishing"])
def test_resumed_is_bit_identical(trained: Artifact, tmp_path: Path, epoch: int) -> None:
    context = small_context(tmp_path, **TRAINING)
    stopping: Any = StopAfter(context, epoch)
    with pytest.raises(KeyboardInterrupt):
        fitted(dataclasses.replace(context, progress=stopping))
    module, method = fitted(small_context(tmp_path, resume=True, **TRAINING))
    attach_gates(module.eval(), method.kernel_gates())
    for key, value in trained.module.state_dict().items():
        assert torch.equal(module.state_dict()[key], value), key


def test_a_budget_out_of_reach_names_one_within(tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, macs_ratio=0.01, round_to=16)
    with pytest.raises(PassError, match=r"0\.01 cannot be reached") as caught:
        options(small_artifact(), small_context(tmp_path, **TRAINING))
    least = float(caught.value.remedy.split("above ")[1].split(",")[0])
    within = dataclasses.replace(options, macs_ratio=least + 0.01)
    within(small_artifact(), small_context(tmp_path, **TRAINING))


def test_more_epochs_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PassError, match=r"dense_epochs \+ select_epochs is 3, .* only 2") as caught:
        OPTIONS(small_artifact(), small_context(tmp_path, epochs=2))
    assert "train.epochs" in caught.value.remedy


def test_a_network_without_a_gateable_channel_is_refused(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(PassError, match="no channel that a gate could stand before"):
        OPTIONS(
            Artifact(module.eval(), (torch.randn(2, 1, 8, 8),)),
            small_context(tmp_path, **TRAINING),
        )
