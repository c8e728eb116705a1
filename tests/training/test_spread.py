"""Choice of weights, spread over layers, protection: published tables and brute force."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from prunec.models.resnet_cifar import resnet20
from prunec.passes.train_two_of_four import TrainTwoOfFour, TwoOfFour
from prunec.sparsity.kernels import sparse_kernels
from prunec.sparsity.largest import bound_of_largest, largest, largest_of_all, two_of_four_
from prunec.sparsity.masks import Masks
from prunec.sparsity.schedules import cosine, cubic
from prunec.sparsity.spread import (
    erdos_renyi,
    erdos_renyi_kernel,
    exact_total,
    shared_out,
    uniform,
)
from prunec.training.method import Moment


def moment(number: int, steps: int = 100, rate: float = 0.1) -> Moment:
    return Moment(0, number, steps, 1, rate)


TABLES = Path(__file__).parents[1] / "tables"


def resnet50() -> dict[str, Tensor]:
    with torch.device("meta"):
        return sparse_kernels(models.resnet50())


def test_the_kernels_of_resnet50_are_its_54_layers() -> None:
    kernels = resnet50()
    assert len(kernels) == 54
    assert sum(w.numel() for w in kernels.values()) == 25_502_912


@pytest.mark.parametrize("percent", ["80", "90", "95", "96.5", "98", "99"])
def test_erk_is_the_published_spread(percent: str) -> None:
    kernels = resnet50()
    shapes = [tuple(w.shape) for w in kernels.values()]
    counts = erdos_renyi_kernel(shapes, 1 - float(percent) / 100)
    with (TABLES / "erk_resnet50_computed.csv").open(newline="") as lines:
        rows = {r["layer"]: float(r[f"sparsity_pct_S={percent}"]) for r in csv.DictReader(lines)}
    for (name, weight), count in zip(kernels.items(), counts, strict=True):
        actual = 100 * (1 - count / weight.numel())
        assert actual == pytest.approx(rows[name.removesuffix(".weight")], abs=0.5)
    total = sum(w.numel() for w in kernels.values())
    assert sum(counts) == round((1 - float(percent) / 100) * total)


def test_er_leaves_the_kernels_sides_out() -> None:
    shapes = [(8, 4, 3, 3), (8, 8, 1, 1), (10, 8)]
    counts = erdos_renyi(shapes, 0.1)
    raw = [12 / 32, 16 / 64, 18 / 80]
    epsilon = 0.1 * (288 + 64 + 80) / (12 * 9 + 16 + 18)
    wanted = [epsilon * r * math.prod(s) for r, s in zip(raw, shapes, strict=True)]
    assert sum(counts) == round(0.1 * 432)
    assert all(abs(c - w) < 1 for c, w in zip(counts, wanted, strict=True))
    assert uniform(shapes, 0.25) == [72, 16, 20]


@pytest.mark.parametrize("seed", range(20))
def test_rounded_counts_have_the_total_and_respect_bounds(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    most = torch.randint(1, 50, (12,), generator=generator).tolist()
    wanted = [float(torch.rand((), generator=generator)) ** 4 * m for m in most]
    counts = exact_total(wanted, most)
    assert all(1 <= c <= m for c, m in zip(counts, most, strict=True))
    assert sum(counts) == max(round(sum(wanted)), len(most))


def test_no_spread_leaves_a_layer_without_weights() -> None:
    """A layer of none is a network that learns nothing, at 99.99 % too."""
    kernels = [tuple(w.shape) for w in sparse_kernels(resnet20(10)).values()]
    total = sum(math.prod(shape) for shape in kernels)
    for spread in (uniform, erdos_renyi, erdos_renyi_kernel):
        for sparsity in (0.995, 0.999, 0.9999):
            counts = spread(kernels, 1 - sparsity)
            assert min(counts) >= 1
            assert sum(counts) == round((1 - sparsity) * total)


def test_weights_are_counted_beyond_the_integers_of_float32() -> None:
    many = 2**24 + 3
    masks = Masks({"w": torch.empty(many)})
    assert masks.counts() == [many]


def test_choices_are_those_of_sorting() -> None:
    torch.manual_seed(0)
    scores = torch.rand(6, 8, 3, 3).contiguous(memory_format=torch.channels_last)
    kept = largest(scores, 40)
    assert kept.stride() == scores.stride()
    assert set(scores[kept > 0].tolist()) == set(scores.flatten().sort().values[-40:].tolist())
    for dtype in (torch.float32, torch.float64, torch.bfloat16):  # the last is torch's, not numpy's
        own = scores.to(dtype)
        for guess in (-1.0, 0.0, 0.5, 0.9, 2.0):
            bound = bound_of_largest(own, 40, guess)
            assert bound == float(own.flatten().sort().values[-41])
    assert bound_of_largest(scores, scores.numel(), 0.5) == -1
    assert bound_of_largest(torch.tensor([1.0, 2.0, 2.0, 3.0]), 2, 0.0) == 2
    parts = [torch.rand(5, 4), torch.rand(7)]
    masks = largest_of_all(parts, 9)
    flat = torch.cat([p.flatten() for p in parts])
    actual = torch.cat([m.flatten() for m in masks]) > 0
    assert torch.equal(flat[actual].sort().values, flat.sort().values[-9:])


def test_bounds_are_those_of_sorting_however_many_scores_are_equal() -> None:
    torch.manual_seed(0)
    for case in range(240):
        size = int(torch.randint(1, 20_000 if case % 8 == 0 else 3000, (1,)))
        scores = torch.rand(size)
        if case % 3 == 1:
            scores = (scores * 4).floor() / 4
        elif case % 3 == 2:
            scores[torch.rand(size) < torch.rand(1)] = -1  # of masked weights
            scores[torch.rand(size) < torch.rand(1)] = 0  # of weights that grew just now
        count = int(torch.randint(0, size + 2, (1,)))
        guess = None if case % 2 else float(torch.rand(1))
        expected = -1.0 if count >= size else float(scores.sort(descending=True).values[count])
        assert bound_of_largest(scores, count, guess) == expected


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_two_of_four_keeps_the_two_largest_along_the_inputs(
    layout: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunec.passes.train_two_of_four.ROWS", 7)  # of 29 fours
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(3, 8, 2, 2).contiguous(memory_format=layout))
    method = TwoOfFour(TrainTwoOfFour(), {"linear": nn.Parameter(torch.randn(5, 4)), "w": kernel})
    raw = kernel.detach().clone()
    method.before_forward(moment(0))
    assert kernel.stride() == raw.stride()
    assert all(int((row != 0).sum()) == 2 for row in method.weights[0])
    for o, first, y, x in itertools.product(range(3), (0, 4), range(2), range(2)):
        four = raw[o, first : first + 4, y, x]
        kept = set(four.abs().sort().values[2:].tolist())
        expected = [w if abs(w) in kept else 0.0 for w in four.tolist()]
        assert kernel[o, first : first + 4, y, x].tolist() == expected


def test_equals_of_the_third_largest_fall_together() -> None:
    scores = torch.tensor([[1.0, 1, 1, 1], [0, 0, 2, 2], [3, 1, 1, 2], [1, 2, 2, 2]])
    two_of_four_(scores, torch.empty(3, 4))
    assert scores.tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0]]


def test_schedules_begin_and_end_where_they_should() -> None:
    assert [cubic(p, 0.2, 0.9) for p in (-1, 0, 1, 2)] == pytest.approx([0.2, 0.2, 0.9, 0.9])
    assert cubic(0.5, 0.0, 0.8) == pytest.approx(0.8 * 7 / 8)
    assert [cosine(p, 0.3) for p in (0, 0.5, 1)] == pytest.approx([0.3, 0.15, 0.0])


def test_what_drops_is_shared_out_by_momentum_as_far_as_there_is_room() -> None:
    assert shared_out(10, [3.0, 1.0, 1.0], [100, 100, 100]) == [6, 2, 2]
    assert shared_out(10, [3.0, 1.0, 1.0], [2, 100, 100]) == [2, 4, 4]
    assert shared_out(4, [0.0, 0.0], [3, 3]) == [2, 2]
