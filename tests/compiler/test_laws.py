"""Laws of compilation over the zoo: every awkward network × the ways of masking it.

Each network meets one way, in turn, and the costlier laws meet some of the networks; with
``PRUNEC_EXAMPLES`` set, all meet all.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest
import torch
from masks import Masks, masked
from modes import MODES
from oracles import brute_macs, fresh_inputs, least_macs, torch_macs, worst
from sampling import slow_but, slow_case
from test_groups import FREE
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from zoo import ZOO

from prunec.graph.channels.groups import ChannelGroup, channel_groups
from prunec.graph.rewriting.compile import Compiled, compile_module
from prunec.graph.rewriting.plan import Plan

DENSITY = {"readers": 0.5, "producers": 0.5, "both": 0.3, "filters": 0.6, "weights": 0.4}
ALL = [(name, mode) for name in ZOO for mode in MODES]
ONE_EACH = [(name, list(MODES)[i % len(MODES)]) for i, name in enumerate(ZOO)]
FULL = bool(os.environ.get("PRUNEC_EXAMPLES"))
CASES = ALL if FULL else ONE_EACH

# Where brute force asks for more than can be had, and why.
UNREACHABLE = {
    "shared-module": "two constants meet in one kernel",
    "shared-on-two-branches": "two constants meet in one kernel",
    "two-inputs-dict-output": "two constants meet in one kernel",
    "selected-by-number": "the carrier is read at two places",
    "dead-branch": "0·x is not 0 when x is not finite",
    "weighted-sum-of-stages": "the factors of the constants are learnt",
    "average-with-divisor": "the divisor makes a constant another constant",
    "fastgrnn-of-low-rank": "a unit's constant differs from step to step, the kernel is one",
    "fastgrnn-of-whole-matrices": "a unit's constant differs from step to step, the kernel is one",
    "lstm": "weights that belong to no convolution or linear layer",
    "convolution-then-gru": "weights that belong to no convolution or linear layer",
    "lstm-of-two-layers-and-directions": "weights that belong to no convolution or linear layer",
    "lstm-with-projection": "weights that belong to no convolution or linear layer",
    "gru-of-two-layers": "weights that belong to no convolution or linear layer",
    "rnn-of-two-directions": "weights that belong to no convolution or linear layer",
    "rnn-time-first": "weights that belong to no convolution or linear layer",
    "attention-module": "weights that belong to no convolution or linear layer",
    "functional-convolution": "weights that belong to no convolution or linear layer",
    "tied-weights": "weights that belong to no convolution or linear layer",
    "einsum-with-a-parameter": "weights that belong to no convolution or linear layer",
    "product-with-a-parameter": "weights that belong to no convolution or linear layer",
    "two-convolutions-one-weight": "weights used beside their layer",
    "two-layers-one-weight": "weights used beside their layer",
    "standardised-weight": "weights used beside their layer",
    "layer-without-its-bias": "weights used beside their layer",
    "bias-partly-zeroed": "weights used beside their layer",
    "one-weight-two-strides": "weights used beside their layer",
}
QUICK = {*list(ZOO)[::24]}
LONG = {
    "convolution-then-gru", "gru-of-two-layers", "lstm-of-two-layers-and-directions",
    "rnn-of-two-directions",
}  # fmt: skip
"""Recurrent networks that take seconds: smaller ones stay in the default run."""


def marked(cases: list[tuple[str, str]]) -> list[Any]:
    """Of every 24th network all laws are quick: it is compiled once for them."""
    return [
        case if case[0] in QUICK else slow_case(case, nightly=case[0] in LONG) for case in cases
    ]


BOUNDED = [(n, m) for n, m in CASES if n not in UNREACHABLE and m != "weights"]

every = pytest.mark.parametrize(("name", "mode"), marked(CASES))
some = pytest.mark.parametrize(("name", "mode"), marked(CASES if FULL else CASES[::6]))
others = pytest.mark.parametrize(("name", "mode"), marked(CASES if FULL else CASES[3::6]))
a_few = pytest.mark.parametrize(("name", "mode"), marked(CASES if FULL else CASES[::12]))


@dataclass(frozen=True)
class Law:
    """A masked network, and what the compiler made of it."""

    original: nn.Module
    example: tuple[Tensor, ...]
    compiled: Compiled


@lru_cache(maxsize=8)
def groups_of(name: str) -> tuple[ChannelGroup, ...]:
    return channel_groups(*ZOO[name]())


def masks_of(name: str, mode: str, density: float) -> Masks:
    module, _ = ZOO[name]()
    return MODES[mode](module, groups_of(name), density, 7)


@lru_cache(maxsize=8)
def law(name: str, mode: str) -> Law:
    module, example = ZOO[name]()
    original = masked(module, masks_of(name, mode, DENSITY[mode]))
    return Law(original, example, compile_module(original, example))


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in module.state_dict().items()}


@every
def test_outputs_stay_for_every_batch_size(name: str, mode: str) -> None:
    case = law(name, mode)
    for batch in (1, 3):
        inputs = fresh_inputs(case.example, batch, seed=batch)
        assert worst(case.original, case.compiled.module, inputs) < 1e-10


@pytest.mark.parametrize("name", [n if n in QUICK else slow_case(n) for n in FREE])
def test_all_are_free_that_can_be_cut_alone(name: str) -> None:
    """The number counted by hand."""
    assert sum(group.size for group in groups_of(name) if not group.pinned) == FREE[name]


@every
def test_what_is_stored_has_the_types_of_the_network(name: str, mode: str) -> None:
    """Constants that the compiler writes, too: float32 in a float64 network is off by 1e-8."""
    case = law(name, mode)
    before, after = (
        {x.dtype for x in module.state_dict().values() if x.is_floating_point()}
        for module in (case.original, case.compiled.module)
    )
    assert after <= before


@every
def test_cost_never_rises(name: str, mode: str) -> None:
    case = law(name, mode)
    before, after = case.original, case.compiled.module
    if name != "attention-module":  # its fast path hides MACs of the original from torch's counter
        assert torch_macs(after, case.example) <= torch_macs(before, case.example)
    assert sum(p.numel() for p in after.parameters()) <= sum(p.numel() for p in before.parameters())


@pytest.mark.parametrize(("name", "mode"), marked(BOUNDED if FULL else BOUNDED[::2]))
def test_all_goes_that_brute_force_finds_useless(name: str, mode: str) -> None:
    """Single weights may be placed so that a border does not matter; brute force sees that too."""
    case = law(name, mode)
    least = least_macs(case.original, case.example, groups_of(name))
    assert brute_macs(case.compiled.module, case.example) <= least


@some
def test_compiled_again_nothing_more_goes(name: str, mode: str) -> None:
    case = law(name, mode)
    again = compile_module(case.compiled.module, case.example)
    assert shapes(again.module) == shapes(case.compiled.module)


@others
def test_the_plan_rebuilds_the_network_from_its_constructor(name: str, mode: str) -> None:
    case = law(name, mode)
    plan = Plan.from_json(case.compiled.plan.to_json())
    assert plan == case.compiled.plan
    fresh, _ = ZOO[name]()
    with torch.no_grad():
        for p in fresh.parameters():
            p.normal_()
    rebuilt = plan.apply(fresh, case.example).eval()
    assert shapes(rebuilt) == shapes(case.compiled.module)
    rebuilt.load_state_dict(case.compiled.module.state_dict())
    assert worst(case.original, rebuilt, fresh_inputs(case.example, 3, 3)) < 1e-10


@every
def test_the_compact_network_trains(name: str, mode: str) -> None:
    case = law(name, mode)
    module = copy.deepcopy(case.compiled.module).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    leaves = tree_leaves(module(*fresh_inputs(case.example, 4, 2)))
    loss = sum((leaf.double() ** 2).mean() for leaf in leaves)
    if not loss.requires_grad:
        pytest.skip("nothing is left that could learn")
    loss.backward()
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    assert gradients
    assert all(g.isfinite().all() for g in gradients)
    means = [key for key in before if key.endswith("running_mean")]
    after = module.state_dict()
    if name != "running-instance-norm":  # captured in evaluation, it stays with its statistics
        assert all(not torch.equal(before[key], after[key]) for key in means)


@a_few
def test_the_original_is_left_as_it_was(name: str, mode: str) -> None:
    module, example = ZOO[name]()
    masks = masks_of(name, mode, DENSITY[mode])
    before = {key: value.clone() for key, value in module.state_dict().items()}
    module.train()
    compiled = compile_module(module, example, masks=masks)
    assert module.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert shapes(compiled.module) == shapes(law(name, mode).compiled.module)
    assert worst(masked(module, masks).eval(), compiled.module, example) < 1e-10


@pytest.mark.parametrize(
    "name", slow_but(["chain", "grouped", "dense-net", "mobile-net-v2", "split"], "grouped")
)
def test_kept_counts_are_rounded_up(name: str) -> None:
    module, example = ZOO[name]()
    original = masked(module, masks_of(name, "both", 0.3))
    compiled = compile_module(original, example, round_to=4)
    assert worst(original, compiled.module, fresh_inputs(example, 3, 1)) < 1e-10
    tight = law(name, "both").compiled.removed
    for group in groups_of(name):
        removed = compiled.removed.get(group.name, 0)
        assert removed <= tight.get(group.name, 0)
        kept = group.size - removed
        assert group.pinned or kept % 4 == 0 or removed == 0, (group.name, kept)
