"""Outputs are judged by their own scale and by what rounding does to this very network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunec.deploy.checks.approximations import approximating
from prunec.deploy.checks.outputs import Bounds, compare_random
from prunec.deploy.checks.random_inputs import random_batches
from prunec.deploy.checks.reference import Reference
from prunec.deploy.checks.rounding import MARGIN
from prunec.deploy.runner import LoadedFile

BOUNDS = Bounds(1e-4, 1.0, 0.0, 0.0)


class Head(nn.Module):
    """A small convolutional network whose outputs another function makes of its own."""

    def __init__(self, last: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
        self.last = last

    def forward(self, x: Tensor) -> object:
        return self.last(self.body(x))  # type: ignore[operator]


class Other(LoadedFile):
    """A file that computes what another network does, in one order of rounding of its own."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        return []

    def run(self, batches: object) -> Iterator[list[np.ndarray]]:
        for inputs in batches:  # type: ignore[attr-defined]
            with torch.no_grad():
                actual = self.module(*map(torch.from_numpy, inputs))
            actual = actual if isinstance(actual, tuple) else (actual,)
            yield [x.numpy() for x in actual]


def verdict(ours: object, theirs: object, example: Tensor | None = None) -> tuple[bool, str]:
    x = torch.randn(2, 3, 6, 6) if example is None else example
    check, told = compare_random(
        Other(Head(theirs)), Reference(Head(ours)), (x,), batches=3, bounds=BOUNDS
    )
    return check.passed, f"{check.message} {told}"


@pytest.mark.parametrize("scale", [1e-20, 1e-8, 1.0, 1e5, 1e20])
def test_the_scale_of_outputs_does_not_matter(scale: float) -> None:
    assert verdict(lambda y: y * scale, lambda y: y * scale * (1 + 1e-7))[0]
    assert not verdict(lambda y: y * scale, lambda y: y * scale * (1 + 1e-4))[0]


def test_each_output_and_each_channel_has_its_own_scale() -> None:
    def outputs(wrong: float):  # type: ignore[no-untyped-def]
        def last(y: Tensor) -> tuple[Tensor, Tensor]:
            mixed = torch.cat([y * 640, y.sigmoid() + wrong], 1)
            return y * 1e6, mixed.flatten(2)

        return last

    assert verdict(outputs(0.0), outputs(0.0))[0]
    assert not verdict(outputs(0.0), outputs(1e-4))[0]


def test_infinity_is_right_where_torch_has_it() -> None:
    mask = torch.eye(4, dtype=torch.bool)

    def masked(at: Tensor):  # type: ignore[no-untyped-def]
        return lambda y: y.masked_fill(at, float("-inf"))

    passed, told = verdict(masked(mask), masked(mask))
    assert passed
    assert "output 0 is not finite in 25.0 % of its values" in told
    assert not verdict(masked(mask), masked(~mask))[0]
    assert not verdict(masked(mask), lambda y: y)[0]
    assert not verdict(lambda y: y * float("nan"), lambda y: y * float("nan"))[0]


def test_what_proves_nothing_is_reported() -> None:
    for last, word in ((lambda y: y * 0, "0"), (lambda y: y * 0 + 3, "the same")):
        passed, told = verdict(last, last)
        assert passed
        assert f"output 0 is {word} for every random input" in told
    assert not verdict(lambda y: y * 0, lambda y: y * 0 + 1e-3)[0]


def test_whole_numbers_are_equal_but_where_rounding_decides() -> None:
    assert verdict(lambda y: y.argmax(1), lambda y: y.argmax(1))[0]
    assert not verdict(lambda y: y.argmax(1), lambda y: y.argmin(1))[0]
    tied = verdict(lambda y: y - y.detach() + 1e-9 > 1e-9, lambda y: y > 9)
    assert tied[0]
    assert not verdict(lambda y: y > 0, lambda y: y > 0.1)[0]


def test_a_network_that_names_its_type_is_measured_too() -> None:
    assert verdict(lambda y: y @ torch.ones(4, 2), lambda y: (y @ torch.ones(4, 2)) * (1 + 1e-7))[0]
    assert not verdict(lambda y: y @ torch.ones(4, 2), lambda y: y @ torch.ones(4, 2) + 1e-3)[0]


def test_a_network_that_amplifies_rounding_is_told_to_do_so() -> None:
    def rough(y: Tensor) -> Tensor:
        return ((y + 1e4) - 1e4).sin()

    passed, told = verdict(rough, lambda y: ((y + 3e4) - 3e4).sin())
    assert not passed
    assert "The file is not to blame: this network amplifies rounding" in told
    passed, told = verdict(rough, rough)
    assert passed
    assert re.search(r"output 0 moves by up to \S+ % of its largest value by rounding alone", told)
    passed, told = verdict(rough, lambda y: rough(y) + 1)
    assert not passed
    assert "rounding explains" in told
    assert "not to blame" not in told


@pytest.mark.parametrize("flushing", [False, True])
def test_small_numbers_are_what_they_were_to_the_caller(flushing: bool) -> None:
    small = torch.tensor([1e-38], dtype=torch.float32)
    if not torch.set_flush_denormal(flushing):
        pytest.skip("this processor flushes no subnormal numbers")
    try:
        verdict(lambda y: y.log(), lambda y: y.relu().log())
        assert bool(small * 0.1) is not flushing
    finally:
        torch.set_flush_denormal(False)


def test_random_inputs_lie_in_the_range_of_the_example() -> None:
    pixels = torch.randint(0, 256, (2, 3, 6, 6)).float()
    ids, scale = torch.tensor([3, 9]), torch.tensor(0.5)
    for x, token, factor in random_batches((pixels, ids, scale), 4):
        assert 0 <= x.min() <= x.max() <= 255
        assert torch.equal(x, x.round())
        assert {*token.tolist()} <= {3, 9}
        assert factor.shape == ()
        assert 0 <= factor <= 1
    (x,) = next(random_batches((torch.zeros(1, 3, 8, 8),), 1))
    assert x.std() > 0.5
    (x,) = next(random_batches((pixels,), 1, (-2.0, -1.0)))
    assert -2 <= x.min() <= x.max() <= -1
    assert verdict(lambda y: y, lambda y: y, torch.rand(2, 3, 6, 6))[0]


def test_a_network_answers_the_same_inputs_once() -> None:
    """For nine files and five runners; other contents, sizes and types are computed anew."""

    class Counted(nn.Module):
        runs = 0

        def forward(self, x: Tensor) -> Tensor:
            self.runs += 1
            return 2 * x

    network = Counted()
    reference = Reference(network)
    x = torch.arange(6.0).reshape(2, 3)
    same = [x, x.clone(), x.t().contiguous().t()]
    assert all((reference.outputs((one,))[0] == 2 * x.numpy()).all() for one in same)
    assert network.runs == 1
    for other in (x + 1, x.reshape(3, 2), x.double(), x[:1]):
        assert (reference.outputs((other,))[0] == 2 * other.numpy()).all()
    assert network.runs == 5
    assert reference.noise((x,), [2 * x.numpy()]) is reference.noise((x,), [2 * x.numpy()])


@pytest.mark.parametrize("seed", range(6))
def test_a_part_of_the_rounding_bounds_no_wider_than_all_of_it(seed: int) -> None:
    """Outputs within the bounds of float64 alone need no run with moved weights."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Sigmoid() if seed % 2 else nn.ReLU(), nn.Conv2d(8, 5, 3)
    ).eval()
    kind = (torch.float32, torch.float16, torch.float64)[seed % 3]
    reference = Reference(network.to(kind))
    x = (10.0 ** (seed - 3) * torch.randn(3, 3, 9, 9)).to(kind)
    ours = reference.outputs((x,))
    (part,), (whole,) = (reference.noise((x,), ours, moved=moved) for moved in (False, True))
    for axis, relative in whole.relative.items():
        assert (part.relative[axis] <= relative).all()
        assert (part.bounds(ours[0], axis) <= whole.bounds(ours[0], axis)).all()
    assert reference.noise((x,), ours, moved=False) == [whole], "the whole serves for its part"


def test_later_batches_run_with_moved_weights_only_where_float64_explains_too_little() -> None:
    class Counted(Head):
        runs: ClassVar[list[torch.dtype]] = []

        def forward(self, x: Tensor) -> object:
            self.runs.append(x.dtype)
            return super().forward(x)

    check, _ = compare_random(
        Other(Head(lambda y: y)),
        Reference(Counted(lambda y: y)),
        (torch.randn(2, 3, 6, 6),),
        batches=3,
        bounds=BOUNDS,
    )
    assert check.passed
    assert Counted.runs.count(torch.float32) == 3
    assert Counted.runs.count(torch.float64) == 4, "two on the first batch, one on each other"


class Mean(nn.Module):
    """Classes by the mean of every channel, added by pairs, as torch does, or in plain order."""

    def __init__(self, seed: int, *, plain: bool, factor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.last, self.plain, self.factor = nn.Linear(8, 4), plain, factor

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3))
        if self.plain:
            added = np.add.accumulate(x.flatten(2).numpy(), axis=2, dtype=np.float32)[:, :, -1]
            mean = torch.from_numpy(added) / (x.shape[2] * x.shape[3])
        made: Tensor = self.last(self.factor * mean)
        return made


@pytest.mark.parametrize(("shift", "seed"), [(0.1, 5), (1.0, 2), (3.0, 0)])
def test_a_long_sum_may_be_added_in_plain_order_and_a_wrong_one_is_found(
    shift: float, seed: int
) -> None:
    """As OpenVINO does after a convolution; the seeds are those where other rounding is less."""
    x = shift + torch.randn(2, 8, 224, 224, generator=torch.Generator().manual_seed(seed))
    reference = Reference(Mean(seed, plain=False))
    for factor in (1.0, 1 + 2e-4):
        file = Other(Mean(seed, plain=True, factor=factor))
        check, _ = compare_random(file, reference, (x,), batches=2, bounds=BOUNDS)
        assert check.passed == (factor == 1), check.message


def test_the_bound_of_a_sum_is_eight_deviations_of_its_error_in_plain_order() -> None:
    """By a loop over the partial sums, in float64; too little to see for a short sum."""
    for size, axes in ((7, (2, 3)), (96, (3,)), (48, (-1, 1))):
        x = 1 + torch.randn(2, 3, size, size, dtype=torch.float64)
        with approximating(1.0):
            moved = [x.mean(axes), x.sum(axes), F.adaptive_avg_pool2d(x, 1)]
        plain = [x.mean(axes), x.sum(axes), F.adaptive_avg_pool2d(x, 1)]
        for number, (ours, theirs) in enumerate(zip(moved, plain, strict=True)):
            over = (2, 3) if number == 2 else axes
            terms = x.movedim(sorted(a % 4 for a in over), [*range(-len(over), 0)])
            terms = terms.flatten(-len(over))
            so_far, squares = torch.zeros_like(terms[..., 0]), torch.zeros_like(terms[..., 0])
            for term in terms.unbind(-1):
                so_far = so_far + term
                squares = squares + so_far**2
            length = 1 if number == 1 else terms.shape[-1]
            expected = 8 * 2.0**-24 * squares.sqrt() / length
            actual = MARGIN * (ours - theirs).reshape(expected.shape)
            torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-13)
            if size == 7:
                assert (actual / theirs.reshape(actual.shape).abs() < 64 * 2.0**-23).all()
