"""Patterns of masks: brute force, whole units at any time, densities to the unit, refusals."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from every_method import artifact
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling import sampled
from small_training import small_context
from torch import Tensor, nn

from prunec.errors import PassError
from prunec.passes.train_acdc import TrainAcdc
from prunec.passes.train_dpf import TrainDpf
from prunec.passes.train_gmp import TrainGmp
from prunec.passes.train_granet import TrainGranet
from prunec.passes.train_rigl import TrainRigl
from prunec.passes.train_set import TrainSet
from prunec.sparsity.flat import Flat
from prunec.sparsity.masks import Masks
from prunec.sparsity.patterns.blocks import Blocks
from prunec.sparsity.patterns.n_of_m import OfGroup
from prunec.sparsity.patterns.option import pattern_of

ACDC = {"warmup_epochs": 1, "phase_epochs": 2, "final_epochs": 3}
EVERY = {
    "gmp": lambda **o: TrainGmp(update_steps=5, **o),
    "rigl": lambda **o: TrainRigl(update_steps=4, **o),
    "set": lambda **o: TrainSet(update_steps=4, **o),
    "granet": lambda **o: TrainGranet(update_steps=4, **o),
    "dpf": lambda spread="", **o: TrainDpf(update_steps=4, **o),
    "acdc": lambda spread="", **o: TrainAcdc(**ACDC, **o),
}
SHAPES = ((8, 16, 3, 3), (12, 8), (4, 24, 1, 1))


def kernels(seed: int, *, layout: Any = torch.contiguous_format) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    drawn = [torch.randn(shape) for shape in SHAPES]
    parts = [w.contiguous(memory_format=layout) if w.dim() == 4 else w for w in drawn]
    return {str(i): nn.Parameter(part) for i, part in enumerate(parts)}


def blocks_by_hand(weight: Tensor, count: int, unit: int) -> Tensor:
    """The blocks of the largest sum of |w|, by sorting them."""
    sums = {}
    for b, *place in itertools.product(
        range(weight.shape[0] // unit), *(range(n) for n in weight.shape[1:])
    ):
        rows = [weight[(unit * b + r, *place)].abs() for r in range(unit)]
        sums[(b, *place)] = float(sum(rows))
    mask = torch.zeros_like(weight)
    for b, *place in sorted(sums, key=lambda key: -sums[key])[: count // unit]:
        for r in range(unit):
            mask[(unit * b + r, *place)] = 1
    return mask


def groups_by_hand(weight: Tensor, count: int, size: int) -> Tensor:
    """Rank by rank among M neighbours, the largest |w| of the last rank."""
    places = []
    for o, g, *place in itertools.product(
        range(weight.shape[0]), range(weight.shape[1] // size), *map(range, weight.shape[2:])
    ):
        own = [(float(weight[(o, g * size + i, *place)].abs()), i) for i in range(size)]
        ranked = sorted(own, key=lambda pair: -pair[0])
        places += [(r, -s, (o, g * size + i, *place)) for r, (s, i) in enumerate(ranked)]
    mask = torch.zeros_like(weight)
    for _, _, place in sorted(places)[:count]:
        mask[place] = 1
    return mask


@pytest.mark.parametrize("together", [False, True], ids=["each kernel", "all at once"])
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 999),
    share=st.floats(0.02, 1),
    text=st.sampled_from(["2x1", "4x1", "1:8", "1:4", "3:8"]),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
def test_masks_are_those_of_brute_force(
    together: bool, seed: int, share: float, text: str, layout: Any
) -> None:
    pattern = pattern_of(text)
    assert pattern is not None
    given_kernels = kernels(seed, layout=layout)
    masks = Masks(given_kernels, Flat(given_kernels, together=together), pattern)
    counts = [max(8, round(share * w.numel())) for w in given_kernels.values()]
    masks.keep_largest(counts)
    for mask, weight, count in zip(masks.values, given_kernels.values(), counts, strict=True):
        by_hand = (
            blocks_by_hand(weight.detach(), count, pattern.unit)
            if isinstance(pattern, Blocks)
            else groups_by_hand(weight.detach(), count, int(text.partition(":")[2]))
        )
        assert torch.equal(mask, by_hand)


def has_pattern(mask: Tensor, text: str, *, exact: bool = True) -> bool:
    pattern = pattern_of(text)
    if isinstance(pattern, Blocks):
        blocks = mask.unflatten(0, (-1, pattern.unit))
        return bool((blocks == blocks[:, :1]).all())
    assert isinstance(pattern, OfGroup)
    sums = mask.unflatten(1, (-1, pattern.size)).sum(2)
    return bool((sums == pattern.kept).all() if exact else sums.max() - sums.min() <= 1)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 999),
    text=st.sampled_from(["4x1", "2x1", "1:8", "2:8", "1:4"]),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=3),
)
def test_dropping_and_growing_leaves_the_pattern_and_the_number(
    seed: int, text: str, shares: list[float]
) -> None:
    pattern, own = pattern_of(text), kernels(seed)
    masks = Masks(own, pattern=pattern)
    assert pattern is not None
    density = pattern.density or 0.25
    start = [round(density * w.numel()) // pattern.unit * pattern.unit for w in own.values()]
    masks.draw(start, torch.Generator().manual_seed(seed))
    for share in shares:
        counts = [int(share * count) for count in masks.counts()]
        masks.drop_smallest(counts)
        masks.grow(counts, [torch.rand(w.shape) for w in own.values()])
        assert masks.counts() == start
        assert all(has_pattern(mask, text) for mask in masks.values)


@pytest.mark.parametrize("text", ["4x1", "1:8"])
@pytest.mark.parametrize("share", [0.1, 0.125, 0.4])
def test_a_choice_over_all_kernels_has_the_pattern_too(text: str, share: float) -> None:
    own = kernels(3)
    masks = Masks(own, pattern=pattern_of(text))
    wanted = round(share * masks.total)
    masks.keep_largest_of_all(wanted)
    assert 0 <= wanted - sum(masks.counts()) < 4
    assert all(has_pattern(m, text, exact=share == 0.125) for m in masks.values)
    masks.keep_largest_of_all(wanted // 2, active=True)
    assert all(has_pattern(m, text, exact=False) for m in masks.values)


def wide(outputs: int = 10) -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 16, 3, padding=1, groups=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, outputs),
    )  # fmt: skip


@pytest.mark.parametrize("text", ["4x1", "1:8"])
@pytest.mark.parametrize("name", sampled(EVERY, 3))
def test_a_training_ends_with_the_pattern(name: str, text: str, tmp_path: Path) -> None:
    """The density to one unit, layers that the pattern does not divide whole and named."""
    method = EVERY[name](sparsity=0.875, pattern=text, spread="uniform")
    start = replace(artifact(), module=wide(3).eval())
    result = method(start, small_context(tmp_path, epochs=8))
    chosen = {"4x1": {"0.weight", "4.weight"}, "1:8": {"4.weight", "8.weight"}}[text]
    if name == "rigl":  # uniform: its first layer stays whole
        assert set(result.masks) == chosen - {"0.weight"}
    else:
        assert set(result.masks) == chosen
    total = sum(mask.numel() for mask in result.masks.values())
    kept = 0
    for mask in result.masks.values():
        if name in {"rigl", "set", "granet"}:  # what grows in dead channels stays 0
            units = mask.unflatten(0, (-1, 4)) if text == "4x1" else mask.unflatten(1, (-1, 8))
            used = units.any(1 if text == "4x1" else 2)
            kept += int(used.sum()) * (4 if text == "4x1" else 1)
            assert text == "4x1" or units.sum(2).max() == 1
        else:
            assert has_pattern(mask, text)
            kept += int(mask.sum())
    assert kept <= 0.125 * total + 4
    assert kept >= (0.9 if name in {"rigl", "set", "granet"} else 1) * 0.125 * total - 4
    whole = [n for n in ("0", "3", "4", "8") if f"{n}.weight" not in chosen]
    assert result.history[-1].details["whole layers"] == whole
    note = f"pattern {text}; whole, because it does not divide their channels: {', '.join(whole)}"
    assert note in result.history[-1].notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "4by1"}, "'4by1' is not a pattern"),
        ({"pattern": "8:8"}, "'8:8' is not a pattern"),
        ({"pattern": "1x1"}, "'1x1' is not a pattern"),
        ({"pattern": "1:8"}, r"leaves 0.875 of the weights zero, but sparsity = 0.9"),
        ({"pattern": "1:10", "spread": "erk"}, "the same density in every layer"),
    ],
)
def test_what_a_pattern_excludes_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PassError, match=message) as refused:
        TrainGmp(sparsity=0.9, **options)
    assert refused.value.remedy


def test_a_network_that_no_pattern_divides_is_refused(tmp_path: Path) -> None:
    method = TrainGmp(sparsity=0.9, pattern="1:10")
    with pytest.raises(PassError, match="1:10: no kernel has channels that it divides"):
        method.kernels(wide())


def test_thirds_have_no_exact_sparsity_and_are_exact() -> None:
    method = TrainGmp(sparsity=0.6666667, pattern="2:6")
    own = {"w": nn.Parameter(torch.randn(700, 600))}
    masks = Masks(own, pattern=method.restriction())
    masks.keep_largest(method.counts(["w"], [(700, 600)]))
    assert has_pattern(masks.values[0], "2:6")
