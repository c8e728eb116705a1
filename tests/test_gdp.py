"""Laws of GDP: gates, their steps, the function they leave, their absorption."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from gated_nets import (
    DENSE,
    OPTIONS,
    SELECT,
    STEPS,
    Gates,
    gated_of,
    kinds,
    method_of,
    moment,
    random_gates,
)
from oracles import brute_macs, fresh_inputs, worst
from sampling import slow_but
from torch import Tensor, nn
from torch.func import functional_call
from zoo import ZOO

from prunec.artifact import Artifact, Step
from prunec.cost.torch_graph import count
from prunec.graph.channels.groups import channel_groups
from prunec.models.gates import attach_gates, gates_of
from prunec.passes._gdp import Gdp
from prunec.passes.absorb_gates import AbsorbGates
from prunec.passes.remove_channels import RemoveChannels

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
    raw = [kernel.detach().clone() for kernel in method.kernels.weights]
    method.before_forward(moment(DENSE))
    assert int(method.phase) == 1
    assert relative(module(*inputs).detach(), before) < 1e-10
    method.close_kernels()
    assert float(method.gates().max()) < 1
    assert any(not torch.equal(a, b) for a, b in zip(raw, method.kernels.weights, strict=True))


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
    """Stand-in for the result of a training pass."""
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


@pytest.mark.parametrize(
    "name", slow_but(["mobile-net-v2", "grouped", "transposed-grouped", "vgg"], "grouped")
)
def test_outputs_before_and_after_absorption_agree(name: str) -> None:
    is_open = random_gates(gated_of(name), 2)
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
    gated = gated_of("residual")
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
