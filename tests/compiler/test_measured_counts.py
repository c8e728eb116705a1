"""Counts by measured times, on synthetic tables: brute force is the oracle."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunec.graph.capture import capture
from prunec.graph.channels.analyse import analyse
from prunec.graph.channels.counted import LayerShape, counted_layers
from prunec.graph.channels.groups import class_bundles
from prunec.graph.channels.structure import Structure
from prunec.graph.removal.counts import (
    BLOCK,
    FIXED,
    MARGIN,
    STEP,
    Measured,
    candidates,
    fewest,
    in_multiples,
)
from prunec.graph.rewriting.compile import compile_module

EXAMPLE = (torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0)),)
Table = Callable[[LayerShape], float]


def chain() -> nn.Module:
    """Two regular convolutions, a depthwise one between them, a linear map of every position."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 40, 3, padding=1), nn.ReLU(),
        nn.Conv2d(40, 40, 3, stride=2, padding=1, groups=40), nn.ReLU(),
        nn.Conv2d(40, 24, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(24 * 36, 5),
    ).double().eval()  # fmt: skip


def grouped() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, 48, 3, groups=4), nn.ReLU(),
        nn.Conv2d(48, 7, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 4),
    ).double().eval()  # fmt: skip


def analysed(module: nn.Module) -> tuple[Structure, list[Tensor]]:
    structure = analyse(capture(module, (EXAMPLE[0].double(),)))
    return structure, list(class_bundles(structure).values())


def jagged(seed: int) -> Table:
    """Times that rise with the counts and are up to four times as long off a multiple."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.rand(16, generator=generator).tolist()

    def time(shape: LayerShape) -> float:
        work = shape.outer * shape.inner / shape.groups + shape.outer
        return work * (1 + 3 * steps[shape.outer % 16] * steps[shape.inner % 16])

    return time


def table(time: Table) -> Callable[[Sequence[LayerShape]], list[float]]:
    return lambda shapes: [time(shape) for shape in shapes]


@given(st.integers(0, 200), st.integers(0, 200))
def test_candidates_keep_what_is_needed_and_their_windows_are_nested(
    needed: int, more: int
) -> None:
    size = needed + more
    actual = candidates(needed, size)
    assert actual == sorted(set(actual))
    assert all(needed <= count <= size for count in actual)
    assert all(count % STEP == 0 or count == size for count in actual)
    if needed:
        assert min(-(-needed // m) * m for m in FIXED) >= actual[0] or actual == [size]
        assert all(min(-(-needed // m) * m, size) in actual for m in FIXED)
    if needed + 1 <= size and needed:
        after = candidates(needed + 1, size)
        assert set(after) <= set(actual) or needed % BLOCK == 0


@settings(max_examples=40)
@given(st.integers(1, 70), st.lists(st.floats(0.01, 10), min_size=70, max_size=70))
def test_a_choice_never_falls_as_more_is_needed(size: int, times: list[float]) -> None:
    chosen = [
        fewest(counts, [times[c - 1] for c in counts])
        for needed in range(1, size + 1)
        for counts in [candidates(needed, size)]
    ]
    assert chosen == sorted(chosen)
    for needed, count in enumerate(chosen, start=1):
        least = min(times[c - 1] for c in candidates(needed, size))
        assert times[count - 1] <= least * (1 + MARGIN)


@pytest.mark.parametrize("seed", range(6))
def test_no_single_change_and_no_fixed_multiple_is_faster(seed: int) -> None:
    structure, groups = analysed(chain())
    generator = torch.Generator().manual_seed(seed)
    sizes = [len(group) for group in groups]
    needed = [int(torch.randint(1, size + 1, (), generator=generator)) for size in sizes]
    layers, measured = counted_layers(structure, groups), Measured(table(jagged(seed)))
    chosen = measured(structure, groups, needed)
    assert all(n <= c <= s for n, c, s in zip(needed, chosen, sizes, strict=True))
    whole = measured.whole(layers, chosen)
    slack = 1 + MARGIN
    for multiple in FIXED:
        fixed = list(in_multiples(multiple)(structure, groups, needed))
        assert whole <= measured.whole(layers, fixed) * slack**2
    every = [candidates(n, s) for n, s in zip(needed, sizes, strict=True)]
    best = min(measured.whole(layers, list(c)) for c in itertools.product(*every))
    assert whole <= best * 1.25  # one group at a time is no search over all of them
    for group, counts in enumerate(every):
        for count in counts:
            other = [*chosen[:group], count, *chosen[group + 1 :]]
            assert whole <= measured.whole(layers, other) * slack**2


def test_layers_stand_for_themselves() -> None:
    for module in (chain(), grouped()):
        structure, groups = analysed(module)
        layers = counted_layers(structure, groups)
        full = [len(group) for group in groups]
        assert [layer.at(full) for layer in layers] == [layer.whole for layer in layers]
        assert all(layer.at([0] * len(full)) is None for layer in layers[1:-1])
    flat = counted_layers(*analysed(chain()))[-1]
    assert flat.whole.inner == 24 * 36
    assert list(flat.inner.values()) == [36.0]


def cut(module: nn.Module, share: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    masks = {}
    for name, parameter in module.named_parameters():
        if parameter.dim() > 1 and parameter.shape[1] > 3:
            kept = torch.rand(parameter.shape[1], generator=generator) < share
            kept[0] = True
            masks[name] = kept.reshape(1, -1, *[1] * (parameter.dim() - 2)).expand_as(parameter)
    return masks


@pytest.mark.parametrize("make", [chain, grouped])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_with_measured_counts_computes_the_same(
    make: Callable[[], nn.Module], seed: int
) -> None:
    example = (EXAMPLE[0].double(),)
    module = make()
    masks = cut(module, 0.4)
    for name, mask in masks.items():
        module.get_parameter(name).data *= mask
    exact = compile_module(module, example, masks=masks)
    made = compile_module(module, example, masks=masks, round_to=Measured(table(jagged(seed))))
    for compiled in (exact, made):
        assert torch.allclose(compiled.module(*example), module(*example), rtol=0, atol=1e-10)
    for group in made.groups:
        left = [c.removed.get(group.name, 0) for c in (made, exact)]
        assert left[0] <= left[1]  # it may only keep more
    asked = any("the least time" in why for each in made.because.values() for why in each)
    assert asked
