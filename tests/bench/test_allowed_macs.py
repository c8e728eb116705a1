"""The bound on MACs that masks allow, against numbers counted by hand and against brute force."""

from __future__ import annotations

import pytest
import torch
from bench.allowed_macs import allowed_macs, metered
from masks import channel_masks, masked
from oracles import brute_macs
from sampling import slow_but, slow_case
from torch import Tensor, nn
from zoo import ZOO
from zoo.parts import Net, block, head

from prunec.graph.channels.groups import channel_groups
from prunec.graph.rewriting.compile import compile_module

IMAGE = (torch.zeros(2, 3, 8, 8),)


def _keep(module: nn.Module, kept: dict[str, list[int]]) -> tuple[int, int]:
    """Allowed MACs, and those if widths could differ, for these kept channels of each group."""
    groups = channel_groups(module, IMAGE)
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in module.named_parameters()}
    for group in groups:
        for cut in group.slices:
            if group.name in kept and cut.axis >= 0 and cut.parameter in masks:
                gone = [
                    i for c, p in enumerate(cut.indices) if c not in kept[group.name] for i in p
                ]
                masks[cut.parameter].index_fill_(cut.axis, torch.tensor(gone), False)
            elif group.name in kept and cut.parameter in masks:
                _strike_inputs(masks[cut.parameter], cut.indices, kept[group.name])
    allowed = allowed_macs(module, IMAGE, groups, masks)
    return allowed.macs, allowed.separate


def _strike_inputs(mask: Tensor, indices: tuple[tuple[int, ...], ...], kept: list[int]) -> None:
    """Of a convolution with two groups."""
    outputs, width = mask.shape[0] // 2, mask.shape[1]
    for channel, places in enumerate(indices):
        for place in places if channel not in kept else ():
            group = place // width
            mask[group * outputs : (group + 1) * outputs, place % width] = False


def test_a_chain_counts_kept_inputs_by_kept_outputs() -> None:
    net = nn.Sequential(block(3, 8), block(8, 6), head(6)).eval()
    macs, separate = _keep(net, {"0.0": [1, 5, 7], "1.0": [0, 2]})
    assert macs == separate == 64 * 9 * (3 * 3 + 3 * 2) + 2 * 5


def test_the_groups_of_a_grouped_convolution_stay_equally_wide() -> None:
    """Kept inputs 3 and 1, outputs 2 and 1: two inputs and one output come back."""
    net = nn.Sequential(block(3, 8), block(8, 6, groups=2), head(6)).eval()
    macs, separate = _keep(net, {"0.0": [0, 1, 2, 4], "1.0": [0, 1, 5]})
    assert separate == 64 * 9 * (3 * 4 + 3 * 2 + 1 * 1) + 3 * 5
    assert macs == 64 * 9 * (3 * 6 + 2 * 3 * 2) + 4 * 5


def test_products_of_activations_are_counted_apart() -> None:
    module, example = ZOO["attention"]()
    seen = metered(module, example)
    assert seen.products > 0
    assert seen.macs - seen.products == brute_macs(module, example)


def test_what_follows_from_no_input_costs_nothing() -> None:
    """Nor does it once it was written where something of the sample is written afterwards."""

    def forward(m: Net, x: Tensor) -> Tensor:
        both = torch.cat([m.bias(m.table), torch.zeros(3)])
        before = m.square(both)
        both[:3] += m.read(x)[0]
        return before + m.square(both)

    net = Net(
        forward,
        read=nn.Linear(7, 3),
        bias=nn.Linear(5, 3),
        table=nn.Parameter(torch.ones(5)),
        square=nn.Linear(6, 6),
    )
    assert metered(net, (torch.zeros(1, 7),)).macs == 7 * 3 + 6 * 6


OPERATORS = [
    "pooled-with-places",
    "statistics-beside-means",
    "compared-and-chosen",
    "multiplied-and-added",
    "sampled-by-a-flow",
    "one-group-norm",
    "windows-put-together",
    "padding-by-one",
    "asymmetric-padding",
]


LONG = [
    "lstm-of-two-layers-and-directions",
    "lstm-with-projection",
    "written-at-fixed-places",
]
"""Cases that take seconds each."""


@pytest.mark.parametrize(
    "name",
    [
        *slow_but(["chain", "residual", "dense-net", "grouped", "mobile-net-v2"], "residual"),
        *slow_but(OPERATORS, "statistics-beside-means", "compared-and-chosen"),
        "shuffle-between-groups",
        *(slow_case(name, nightly=True) for name in LONG),
    ],
)
def test_the_compiler_reaches_what_masks_allow(name: str) -> None:
    module, example = ZOO[name]()
    groups = channel_groups(module, example)
    masks = channel_masks(module, groups, 0.5, "both", 3)
    compiled = compile_module(masked(module, masks), example)
    allowed = allowed_macs(module, example, groups, masks)
    assert metered(compiled.module, example).macs <= allowed.macs < allowed.dense


@pytest.mark.parametrize(("density", "seed"), [(0.3, 6), (0.7, 4)])
def test_a_channel_is_taken_back_that_serves_two_kernels(density: float, seed: int) -> None:
    """If others suffice for one of them, the allowed MACs are exceeded by 9 % and by 23 %."""
    module, example = ZOO["shuffle-between-groups"]()
    groups = channel_groups(module, example)
    masks = channel_masks(module, groups, density, "both", seed)
    compiled = compile_module(masked(module, masks), example)
    allowed = allowed_macs(module, example, groups, masks)
    assert metered(compiled.module, example).macs <= allowed.macs
