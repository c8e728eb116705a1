"""Report of a compile: counts that add up, reasons, layers that vanished."""

from __future__ import annotations

import json

import pytest
import torch
from api_nets import EXAMPLE, zeroed
from oracles import brute_macs, fresh_inputs, worst
from torch import Tensor, nn
from zoo import ZOO
from zoo.parts import block, head

import prunec
from prunec.inspection.groups import added_up


@pytest.mark.parametrize(
    ("name", "round_to"), [("residual", 1), ("grouped", 4), ("layer-norm-channels-last", 1)]
)
def test_the_report_adds_up(name: str, round_to: int) -> None:
    module, example = zeroed(name)
    compiled = prunec.compile(module, example, round_to=round_to)
    report = compiled.report
    for group in report.groups:
        assert group.kept + group.removed == group.size
        assert sum(group.because.values()) == group.kept
        assert not group.pinned or group.because == {f"pinned: {group.pinned}": group.size}
    assert sum(report.because.values()) == report.channels[1]
    assert report.before.macs == brute_macs(module, example)
    assert report.after.macs == brute_macs(compiled.module, example)
    assert report.after.params == sum(p.numel() for p in compiled.module.parameters())
    assert report.before.nonzero_params == sum(int(p.count_nonzero()) for p in module.parameters())
    told = json.loads(report.to_json())
    assert told["macs"] == {"before": report.before.macs, "after": report.after.macs}
    assert [g["name"] for g in told["groups"]] == [g.name for g in prunec.groups(module, example)]
    text = str(report)
    assert f"{report.after.macs:,}" in text
    assert all(group.name in text for group in report.groups)


def test_reasons_are_added_up_wherever_they_hold() -> None:
    reasons = [
        ("pinned: sort at sort_1 is not understood", 2),
        ("pinned: sort at sort_2 is not understood", 3),
        ("carries the constants that a.0.weight reads", 1),
        ("carries the constants that b.weight reads", 1),
        ("live", 9),
    ]
    assert added_up(reasons) == {
        "live": 9,
        "pinned: sort is not understood": 5,
        "carries the constants that a kernel reads": 2,
    }


def test_the_report_says_why_the_dead_stayed() -> None:
    """Seven of eight filters dead behind ReLU: one carries their constants, three round up."""
    module = nn.Sequential(block(3, 8), block(8, 12), head(12, 4)).eval()
    with torch.no_grad():
        module[0][0].weight[:7] = 0
        module[0][1].bias.fill_(0.5)
    tight, rounded = (prunec.compile(module, EXAMPLE, round_to=n).report for n in (1, 4))
    [carries] = [why for why in tight.groups[0].because if why != "live"]
    assert carries == "carries the constants that 1.0.weight reads"
    assert tight.groups[0].because == {"live": 1, carries: 1}
    assert sum(rounded.groups[0].because.values()) == rounded.groups[0].kept == 4
    assert rounded.groups[0].because["rounded up to a multiple of 4"] == 2
    assert "rounded up to a multiple of 4" in str(rounded)


def test_the_report_names_layers_that_vanished() -> None:
    module, example = ZOO["in-place"]()  # x + body(x)
    with torch.no_grad():
        for parameter in module.body.parameters():
            parameter.zero_()
    compiled = prunec.compile(module, example, round_to=4)
    assert compiled.report.gone == ("body.0",)
    assert not any(name.startswith("body") for name in compiled.module.state_dict())
    assert "Removed layers: body.0" in str(compiled.report)
    assert worst(module, compiled.module, fresh_inputs(example, 3, 1)) < 1e-10


def test_nothing_is_kept_of_a_group_whose_layers_vanished() -> None:
    class Branched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 2)
            self.branch = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(x + self.branch(x))

    module = Branched().eval()
    with torch.no_grad():
        for parameter in module.branch[2].parameters():
            parameter.zero_()
    compiled = prunec.compile(module, torch.zeros(1, 4), round_to=4)
    assert set(compiled.report.gone) == {"branch.0", "branch.2"}
    kept = {group.name: group.kept for group in compiled.report.groups}
    assert kept == {"stem": 6, "branch.0": 0, "head": 2}
    assert worst(module, compiled.module, (torch.randn(3, 4),)) < 1e-6


def test_a_report_is_printed_of_a_network_that_was_given_another_type() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    compiled = prunec.compile(model, torch.randn(2, 3, 6, 6))
    compiled.module.double()
    assert str(compiled.report)
    assert compiled.report.after.macs == compiled.report.before.macs
