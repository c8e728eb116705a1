"""Kernels in one memory: all at once, as a GPU does it, or one by one, the choice is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from every_method import METHODS, artifact
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import small_context
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.errors import PassError
from prunec.sparsity import flat as flat_module
from prunec.sparsity.effective_weights import ShownKernels
from prunec.sparsity.flat import ROW, Flat, Values, give_own_memory, hardshrink, softshrink
from prunec.sparsity.largest import bounds_of_largest, choose, choose_of_all
from prunec.sparsity.masks import Masks

DTYPES = [torch.float32, torch.float64, torch.bfloat16]
SHAPES = [(7, 3, 3, 3), (40, 30), (5, 4, 1, 1), (2, 3, 5)]


def kernels(dtype: torch.dtype = torch.float32, steps: int = 0, seed: int = 0) -> dict[str, Tensor]:
    """Kernels in both layouts; with ``steps`` many of equal size."""
    torch.manual_seed(seed)
    collected = {}
    for number, shape in enumerate(SHAPES):
        w = torch.randn(shape, dtype=torch.float64)
        w = (w * steps).round() / steps if steps else w
        w = w.to(dtype)
        last = len(shape) == 4 and number % 2 == 0
        collected[f"{number}.weight"] = nn.Parameter(
            w.contiguous(memory_format=torch.channels_last) if last else w
        )
    return collected


def both(given: dict[str, Tensor]) -> tuple[Flat, Flat]:
    pair = tuple(
        Flat({k: w.detach().clone() for k, w in given.items()}, together=t) for t in (False, True)
    )
    for one in pair:
        one.settle()
    assert len(pair[0].spans) == len(given)
    assert len(pair[1].spans) == 1
    return pair  # type: ignore[return-value]


def sizes(flat: Flat) -> Values:
    room = flat.room()
    torch.abs(flat.raw.memory, out=room.memory)
    return room


def test_parameters_are_views_and_keep_shape_layout_and_values() -> None:
    own = kernels()
    before = {name: (w.detach().clone(), w.stride()) for name, w in own.items()}
    flat = Flat(own)
    flat.settle()
    for name, w in own.items():
        assert torch.equal(w, before[name][0])
        assert w.stride() == before[name][1]
        assert w.untyped_storage().data_ptr() == flat.raw.memory.untyped_storage().data_ptr()
    flat.raw.memory.mul_(2)
    assert all(torch.equal(w, 2 * before[name][0]) for name, w in own.items())
    moves = flat.moves
    flat.settle()
    assert flat.moves == moves  # nothing moved


def test_a_change_of_the_layout_brings_them_together_again() -> None:
    module = nn.Conv2d(4, 6, 3)
    masks = Masks({"weight": module.weight})
    masks.draw([50], torch.Generator().manual_seed(0))
    before = masks.values[0].clone()
    shown = ShownKernels({"weight": module.weight})
    module.to(memory_format=torch.channels_last)
    masks.align()
    assert masks.values[0].stride() == module.weight.stride()
    assert torch.equal(masks.values[0], before)
    shown.fetch()
    assert shown.shown[0].stride() == module.weight.stride()


def test_kernels_of_several_dtypes_are_refused() -> None:
    with pytest.raises(PassError, match="several dtypes"):
        Flat({"a": torch.zeros(3), "b": torch.zeros(3, dtype=torch.float64)})


def test_parameters_get_memory_of_their_own_back() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5))
    Flat({n: p for n, p in module.named_parameters() if p.dim() > 1}).settle()
    before = [p.detach().clone() for p in module.parameters()]
    give_own_memory(module)
    for parameter, value in zip(module.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.untyped_storage().nbytes() == parameter.nbytes


@given(st.integers(0, 10**6), st.sampled_from(DTYPES), st.sampled_from([0, 2, 40]), st.data())
@settings(max_examples=25, deadline=None)
def test_all_at_once_chooses_what_one_by_one_does(
    seed: int, dtype: torch.dtype, steps: int, data: Any
) -> None:
    pair = both(kernels(dtype, steps, seed))
    counts = [data.draw(st.integers(0, n)) for n in pair[0].sizes]
    total = data.draw(st.integers(0, sum(pair[0].sizes)))
    chosen: list[tuple[list[int], list[float]]] = []
    for one in pair:
        scores, each, all_ = sizes(one), one.room(), one.room()
        choose(one, scores, counts, each)
        assert one.counts(each) == counts
        choose_of_all(one, scores, total, all_)
        assert sum(one.counts(all_)) == total
        for room, wanted in ((each, counts), (all_, one.counts(all_))):
            for size, mask, count in zip(scores.parts, room.parts, wanted, strict=True):
                kept, rest = size[mask > 0], size[mask == 0]
                assert len(kept) == count
                assert not len(kept) or not len(rest) or kept.min() >= rest.max()
        sums = [
            float((s * m).double().sum()) for s, m in zip(scores.parts, each.parts, strict=True)
        ]
        # Equal scores, which numbers of few bits have too, may stay in either kernel.
        ties = steps or dtype.itemsize < 4
        chosen.append((counts if ties else one.counts(all_), sums))
    assert chosen[0][0] == chosen[1][0]
    assert chosen[0][1] == pytest.approx(chosen[1][1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_to_be_chosen_never_is(dtype: torch.dtype) -> None:
    """Zeros that are free are chosen before what is barred, and rests of rows never."""
    for one in both({"a": torch.zeros(30, 40, dtype=dtype), "b": torch.ones(3, dtype=dtype)}):
        scores, out = one.room(), one.room()
        scores.parts[0][0, :5] = -1
        choose(one, scores, [1195, 0], out)
        assert not out.parts[0][0, :5].any()
        assert one.counts(out) == [1195, 0]
        assert int(out.memory.sum(dtype=torch.float64)) == 1195


@pytest.mark.parametrize("dtype", DTYPES)
def test_thresholds_and_sums_all_at_once(dtype: torch.dtype) -> None:
    pair = both(kernels(dtype))
    counts = [n // 3 for n in pair[0].sizes]
    collected = []
    for one in pair:
        scores, soft, hard = sizes(one), one.room(), one.room()
        near = one.raw.memory.new_zeros(len(counts))
        for span in one.spans:
            here = span.kernels
            near[here] = bounds_of_largest(span, scores.memory, counts[here], near[here])
            softshrink(span, one.raw.memory, near[here], soft.memory)
            hardshrink(span, one.raw.memory, near[here], hard.memory)
        sums = torch.cat([s.sums(s.of(scores.memory).double()) for s in one.spans])
        assert dtype == torch.bfloat16 or one.counts(hard) == counts  # equals fall together
        collected.append((near, sums, *soft.parts, *hard.parts))
    for a, b in zip(*collected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12 if dtype != torch.bfloat16 else 0, atol=0)


def test_a_threshold_that_is_no_number_leaves_none() -> None:
    for one in both(kernels()):
        out = one.room()
        for span in one.spans:
            bounds = torch.full((len(SHAPES),), torch.nan)[span.kernels]
            softshrink(span, one.raw.memory, bounds, out.memory)
        assert all(part.isnan().all() for part in out.parts)


def trained(name: str, folder: Path) -> Artifact:
    return METHODS[name](artifact(), small_context(folder, epochs=4))


@pytest.mark.parametrize("name", ["rigl", "granet", "str", "dnw", "st3", "dpf", "gmp"])
def test_methods_learn_the_same_all_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Computation in a GPU's order, on the CPU: sums differ in order, choices do not."""
    alone = trained(name, tmp_path / "alone")
    own = Flat.__init__

    def together(self: Flat, given: Any, *, together: bool | None = None) -> None:
        own(self, given, together=True)

    monkeypatch.setattr(flat_module.Flat, "__init__", together)
    at_once = trained(name, tmp_path / "at once")
    for key, mask in alone.masks.items():
        a, b = alone.module.get_parameter(key), at_once.module.get_parameter(key)
        assert int(mask.sum()) == pytest.approx(int(at_once.masks[key].sum()), abs=3)
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_rows_hold_one_kernel_each() -> None:
    flat = Flat(kernels(), together=True)
    flat.settle()
    assert all(start % ROW == 0 for start in flat.starts)
    assert len(flat.rests) == flat.length - sum(flat.sizes)
    assert not flat.raw.memory[flat.rests].any()
