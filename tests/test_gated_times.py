"""Latency over the counts of gates: against brute force over layers, and in train-gdp's search."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from gated_nets import DENSE, SELECT, gated_of, moment, nets, random_gates
from torch import nn
from training.small_training import small_context
from zoo import ZOO

from prunec.artifact import Artifact
from prunec.contract import Training
from prunec.deploy.layer_times import LayerTimes
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.errors import PassError, PrunecError
from prunec.graph.capture import capture
from prunec.graph.channels.analyse import analyse
from prunec.graph.channels.counted import LayerShape, counted_layers
from prunec.passes._gdp import Gdp
from prunec.passes.absorb_gates import AbsorbGates
from prunec.passes.remove_channels import RemoveChannels
from prunec.passes.train_gdp import TrainGdp
from prunec.passes.train_magnitude import TrainMagnitude
from prunec.sparsity.gated_macs import gated_channels
from prunec.sparsity.gated_times import LEAST, GatedTimes, gated_times
from prunec.sparsity.mac_budget import fewest, first_block, most_important_in_time

OPTIONS = {"dense_epochs": DENSE, "select_epochs": SELECT}


def products(shapes: Sequence[LayerShape]) -> list[float]:
    """Times that are bilinear in the counts, as MACs are: interpolation is exact for them."""
    return [shape.inner * shape.outer / shape.groups for shape in shapes]


def stairs(shapes: Sequence[LayerShape]) -> list[float]:
    """Times of a runtime that works on blocks of 16."""
    return [float(-(-s.inner // 16) * -(-s.outer // 16) * 3 / s.groups + 1) for s in shapes]


def table_of(name: str, times: object = products) -> GatedTimes:
    return gated_times(analyse(capture(*ZOO[name]())), gated_of(name), times)  # type: ignore[arg-type]


@nets
def test_bilinear_times_are_met_at_every_count(name: str) -> None:
    gated, table = gated_of(name), table_of(name)
    structure = analyse(capture(*ZOO[name]()))
    number = {int(c): int(g) for c, g in enumerate(gated.gate_of.tolist())}
    groups = [
        torch.tensor(
            [c for c, gate in number.items() if gate >= 0 and int(gated.group_of[gate]) == g]
        )
        for g in range(len(gated.sizes))
    ]
    layers = counted_layers(structure, groups)
    for seed in range(4):
        counts = gated.counts(random_gates(gated, seed).reshape(1, -1)).double()[0]
        each = [int(n) for n in counts * gated.widths]
        shapes = [layer.at(each) for layer in layers]
        expected = sum(products([shape for shape in shapes if shape is not None]))
        assert float(table.milliseconds(counts)) == pytest.approx(expected)
    assert float(table.milliseconds(gated.sizes.double() * 0)) >= 0


@nets
def test_time_rises_with_every_count_and_the_margin_is_its_difference(name: str) -> None:
    gated, table = gated_of(name), table_of(name, stairs)
    counts = gated.counts(random_gates(gated, 0).reshape(1, -1)).double()[0].clamp(min=1)
    margins = table.marginal(counts)
    for group in range(len(counts)):
        fewer = counts.clone()
        fewer[group] -= 1
        actual = float(table.milliseconds(counts) - table.milliseconds(fewer))
        assert actual >= -1e-9
        least = LEAST * float(table.milliseconds(gated.sizes.double()) / gated.sizes.sum())
        assert float(margins[group]) == pytest.approx(max(actual, least), abs=1e-9)


def test_gates_close_until_the_time_is_met() -> None:
    module, _ = ZOO["mobile-net-v2"]()
    gated, table = gated_of("mobile-net-v2"), table_of("mobile-net-v2", stairs)
    least = gated.shipped(torch.ones(len(gated.sizes)).double(), 4)
    least_ratio = float(table.milliseconds(least) / table.milliseconds(gated.sizes.double()))
    ratio = (1 + 2 * least_ratio) / 3
    options = TrainGdp(latency_ratio=ratio, round_to="measured", **OPTIONS)  # type: ignore[arg-type]
    method = Gdp(options, module, gated, table)
    generator = torch.Generator().manual_seed(0)
    method.square = torch.rand(len(method.a), generator=generator, dtype=torch.float64)
    method.a = torch.rand(len(method.a), generator=generator, dtype=torch.float64) + 0.1
    method.phase += 1
    method.advance(moment(DENSE + SELECT))
    metrics = method.after_epoch(moment(DENSE + SELECT))
    assert metrics["latency_ratio"] <= ratio
    assert 0 < metrics["macs_ratio"] < 1
    counts = gated.counts((method.a > 0).reshape(1, -1)).double()[0]
    assert torch.equal(gated.shipped(counts, 4), counts)
    assert float(table.milliseconds(counts) / method.dense_price) == metrics["latency_ratio"]


@nets
@pytest.mark.parametrize("round_to", [1, 4])
def test_channels_for_a_time_meet_it_in_whole_blocks_and_leave_the_fewest(
    name: str, round_to: int
) -> None:
    gated, table = gated_of(name), table_of(name, stairs)
    scores = torch.rand(len(gated.group_of), generator=torch.Generator().manual_seed(5)).double()
    scores[torch.rand(len(scores), generator=torch.Generator().manual_seed(6)) < 0.05] = -1.0
    scores[first_block(gated, scores, round_to)] += 2.0
    before, least = gated.counts(scores >= 0), fewest(gated, round_to)
    bounds = [float(table.milliseconds(n)) for n in (torch.minimum(least, before), before)]
    target = bounds[0] + 0.5 * (bounds[1] - bounds[0])
    kept = most_important_in_time(gated, table, scores, target, round_to)
    counts = gated.counts(kept)
    assert float(table.milliseconds(counts)) <= target + 1e-9
    assert torch.equal(gated.shipped(counts, round_to), counts)
    assert not bool((kept & (scores < 0)).any()), "removed channels stay removed"
    assert bool((counts >= torch.minimum(least, gated.shipped(before, round_to))).all())
    for group in range(len(counts)):  # within a group importance alone decides
        own = gated.group_of == group
        lost = own & ~kept & (scores >= 0)
        if bool(lost.any()) and bool((own & kept).any()):
            assert float(scores[own & kept].min()) >= float(scores[lost].max())


def test_for_a_time_channels_go_that_take_long_for_their_macs() -> None:
    """Two equal pairs of layers; those of one take ten times as long."""
    module = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 8, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Conv2d(8, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 8, 3, padding=1),
        nn.Flatten(), nn.Linear(128, 2),
    ).eval()  # fmt: skip
    structure = analyse(capture(module, (torch.randn(2, 1, 8, 8),)))
    gated = gated_channels(structure)

    def slow_where_large(shapes: Sequence[LayerShape]) -> list[float]:
        each = ((s, 10.0 if s.size and s.size[0] == 8 else 0.1) for s in shapes)
        return [s.inner * s.outer * factor for s, factor in each]

    table = gated_times(structure, gated, slow_where_large)
    scores = torch.ones(len(gated.group_of)).double()
    dense = gated.sizes.double()
    kept = most_important_in_time(gated, table, scores, 0.4 * float(table.milliseconds(dense)), 1)
    large, small = (float(gated.counts(kept)[g]) for g in torch.nonzero(dense == 32).flatten())
    assert large < 16 < small == 32


def test_budgets_and_runners_that_make_no_sense_are_refused() -> None:
    for wrong in ({}, {"macs_ratio": 0.5, "latency_ratio": 0.5}):
        with pytest.raises(PassError, match=r"no budget|two budgets"):
            TrainGdp(**OPTIONS, **wrong)  # type: ignore[arg-type]
        with pytest.raises(PassError, match=r"train-magnitude states (no budget|two budgets)"):
            TrainMagnitude(**wrong)  # type: ignore[arg-type]
    with pytest.raises(PassError, match=r"qemu-aarch64.*say nothing of a device"):
        TrainGdp(latency_ratio=0.5, runner="qemu-aarch64", **OPTIONS)  # type: ignore[arg-type]
    with pytest.raises(PassError, match=r"qemu-aarch64.*say nothing of a device"):
        TrainMagnitude(latency_ratio=0.5, runner="qemu-aarch64")
    with pytest.raises(PassError, match=r"qemu-aarch64.*say nothing of a device"):
        RemoveChannels(round_to="measured", runner="qemu-aarch64")
    with pytest.raises(PrunecError, match="there is no runner 'abacus'"):
        RemoveChannels(round_to="measured", runner="abacus")
    RemoveChannels(round_to=8, runner="qemu-aarch64")  # nothing is measured
    assert Onnxruntime().timeless == ""


@pytest.mark.parametrize(
    "options",
    [
        TrainGdp(dense_epochs=0, select_epochs=1, latency_ratio=0.9, round_to="measured"),
        TrainMagnitude(latency_ratio=0.9, round_to="measured"),
    ],
    ids=["gdp", "magnitude"],
)
def test_a_training_meets_a_time_and_its_cut_is_measured(
    options: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cut by times taken here, of a cache of its own; such small layers differ too little."""
    for name in ("train_gdp", "train_magnitude"):
        monkeypatch.setattr(f"prunec.passes.{name}.layer_times", lambda _: products)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3),
        nn.ReLU(), nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    artifact = Artifact(module.eval(), (torch.randn(2, 1, 8, 8),))
    result = options(artifact, small_context(tmp_path, epochs=2, batch_size=96))
    details = result.history[-1].details
    assert float(str(details["latency_ratio"])) <= 0.9
    assert "layers' times / dense" in details["targets"]  # type: ignore[operator]
    assert any("layers' times under onnxruntime" in note for note in result.history[-1].notes)
    before = AbsorbGates()(result) if "gated" in result.facts else result
    cut, unrounded = (
        RemoveChannels(round_to=r)(before)  # type: ignore[arg-type]
        for r in ("measured", 1)
    )
    assert cut.cost.macs >= unrounded.cost.macs
    assert any("counts by the layers' times" in note for note in cut.history[-1].notes)
    (table,) = (tmp_path / "cache" / "prunec" / "layer-times").iterdir()
    known = json.loads(table.read_text())["times"]
    assert all(value > 0 for value in known.values())
    times = LayerTimes(Onnxruntime())
    assert times([LayerShape(*map(as_tuple, json.loads(next(iter(known)))))])
    assert times.measured == 0
    table.write_text("{")  # a table that is no table is measured anew
    assert LayerTimes(Onnxruntime())([LayerShape("linear", 3, 3, size=(1,))])[0] > 0


def as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def flat(shapes: Sequence[LayerShape]) -> list[float]:
    """Times that do not fall with half of the channels, as measured ones may not."""
    return [float(max(s.outer, 24) * max(s.inner, 24) / s.groups) for s in shapes]


def test_gates_close_where_times_are_flat() -> None:
    module, _ = ZOO["mobile-net-v2"]()
    gated, table = gated_of("mobile-net-v2"), table_of("mobile-net-v2", flat)
    dense = float(table.milliseconds(gated.sizes.double()))
    least = float(table.milliseconds(gated.shipped(torch.ones(len(gated.sizes)).double(), 4)))
    ratio = 0.95 * least / dense + 0.05
    method = Gdp(
        TrainGdp(latency_ratio=ratio, round_to=4, **OPTIONS),  # type: ignore[arg-type]
        module, gated, table,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    method.a = torch.rand(len(method.a), generator=generator, dtype=torch.float64) + 0.1
    method.square = torch.ones_like(method.a)
    method.phase += 1
    method.advance(moment(DENSE + SELECT))
    assert method.after_epoch(moment(DENSE + SELECT))["latency_ratio"] <= ratio
