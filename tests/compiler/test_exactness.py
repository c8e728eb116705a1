"""Exactness at borders: where constants are not zero and operators treat the border apart.

Every family of operators of ``border_grid`` × activations with f(0) ≠ 0 × ways of masking. A slice
of the product, always the same, in which each family meets constants and, nightly, one other way of
masking; all of it with ``PRUNEC_EXAMPLES`` set.
"""

from __future__ import annotations

import os
from collections import defaultdict
from functools import lru_cache
from typing import Any

import pytest
import torch
from border_grid import ACTIVATIONS, FAMILIES, SIZE, Branches
from masks import masked
from modes import MODES
from oracles import brute_layers, fresh_inputs, least_layers, outputs
from sampling import slow_case
from torch import nn

from prunec.graph.channels.groups import ChannelGroup, channel_groups
from prunec.graph.rewriting.compile import compile_module

EXAMPLE = (
    torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
)
OTHERS = [mode for mode in MODES if mode != "producers"]


def _slice() -> list[tuple[str, str, str]]:
    activations = list(ACTIVATIONS)
    collected = []
    for i, family in enumerate(FAMILIES):
        collected.append((family, activations[i % 5], "producers"))
        collected.append((family, activations[(i + 2) % 5], OTHERS[i % 4]))
    return collected


HEAVY = ("upsamplings", "padding modes")
"""Of dozens of layers each: random networks hold both too."""


def _marked(number: int, case: tuple[str, str, str]) -> Any:
    """By default a family meets constants; other ways of masking, and the heavy, are nightly."""
    family, *_ = case
    nightly = number % 2 == 1 or family in HEAVY
    return case if family == "max pools" and not nightly else slow_case(case, nightly=nightly)


CASES = (
    [(f, a, m) for f in FAMILIES for a in ACTIVATIONS for m in MODES]
    if os.environ.get("PRUNEC_EXAMPLES")
    else [_marked(number, case) for number, case in enumerate(_slice())]
)


# The largest constant is carried, and may be the only reason why a group of a kernel stays.
UNREACHABLE = {("grouped convolutions", "filters")}


@lru_cache(maxsize=2)
def _groups(family: str) -> tuple[ChannelGroup, ...]:
    """They do not depend on the activation."""
    return channel_groups(Branches(FAMILIES[family](), "sigmoid"), EXAMPLE)


def _errors(original: nn.Module, other: nn.Module) -> dict[str, float]:
    """For each branch the largest difference, relative to its largest value."""
    inputs = fresh_inputs(EXAMPLE, 3, 5)
    mine, theirs = outputs(original, inputs)[0], outputs(other, inputs)[0]
    return {
        name: (a - b).abs().max().item() / (a.abs().max().item() or 1.0)
        for name, a, b in zip(original.branches, mine, theirs, strict=True)
    }


def _by_branch(layers: dict[str, int]) -> dict[str, int]:
    collected: dict[str, int] = defaultdict(int)
    for layer, macs in layers.items():
        collected[layer.split(".")[1]] += macs
    return collected


@pytest.mark.parametrize(("family", "activation", "mode"), CASES)
def test_exact_at_the_border_and_no_channel_too_many(
    family: str, activation: str, mode: str
) -> None:
    net = Branches(FAMILIES[family](), activation)
    groups = _groups(family)
    original = masked(net, MODES[mode](net, groups, 0.4, 11))
    compiled = compile_module(original, EXAMPLE).module
    errors = _errors(original, compiled)
    assert {name: error for name, error in errors.items() if not error <= 1e-12} == {}
    before = _by_branch(brute_layers(original, EXAMPLE))
    after = _by_branch(brute_layers(compiled, EXAMPLE))
    if mode == "weights" or (family, mode) in UNREACHABLE:
        assert all(after[name] <= macs for name, macs in before.items())
        return
    least = _by_branch(least_layers(original, EXAMPLE, groups))
    assert {n: (after[n], macs) for n, macs in least.items() if after[n] > macs} == {}
    assert sum(least.values()) < 0.8 * sum(before.values())
