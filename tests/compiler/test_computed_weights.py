"""Weights that are computed from parameters alone are constants: evaluated, and cut as others."""

from __future__ import annotations

import pytest
import torch
from random_networks.computed import COMPUTED, Blur, Make
from sampling import sampled
from torch import Tensor, nn
from torch.nn import functional as F

import prunec

PARTS = {name: make for name, make in COMPUTED.items() if name not in ("mixture", "of low rank")}
HALF = {"masks still on", "parametrised", "spectral norm"}


class Body(nn.Module):
    """A convolution, half of whose filters are zero, a part, a convolution."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.part, self.last = nn.Conv2d(3, 8, 3), make(8), nn.Conv2d(8, 4, 1)
        if isinstance(self.part, Blur):
            self.part.padding = 0  # behind one that pads a constant is none
        with torch.no_grad():
            self.first.weight[::2] = 0
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.part(self.first(x).relu()).relu())


def images(batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 3, 7, 6, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", sampled(PARTS, 2))
def test_it_is_exact_and_cut(name: str) -> None:
    model = Body(PARTS[name])
    compiled = prunec.compile(model, images(2))
    rebuilt = compiled.plan.apply(Body(PARTS[name]))
    rebuilt.load_state_dict(compiled.module.state_dict())
    for batch in (1, 2, 3, 5):
        expected = model(images(batch))
        for compact in (compiled.module, rebuilt):
            assert (compact(images(batch)) - expected).abs().max() < 1e-10 * expected.abs().max()
    assert compiled.plan.computed == (("computed_expand",) if name == "blur" else ("part.weight",))
    assert prunec.Plan.from_json(compiled.plan.to_json()) == compiled.plan
    share = compiled.report.after.macs / compiled.report.before.macs
    assert share < (0.5 if name in HALF else 0.8)
    again = prunec.compile(compiled.module, images(2))
    assert again.report.after == compiled.report.after


def test_masks_go_with_what_is_made_of_them() -> None:
    model = Body(PARTS["standardised"])
    mask = torch.ones_like(model.part.weight, dtype=torch.bool)
    mask[:, 3] = False
    compiled = prunec.compile(model, images(2), masks={"part.weight": mask})
    with torch.no_grad():
        model.part.weight[:, 3] = 0
    assert (compiled.module(images(3)) - model(images(3))).abs().max() < 1e-12
    left = dict(compiled.module.named_parameters())
    assert all(mask.shape == left[name].shape for name, mask in compiled.masks.items())


def test_a_parameter_that_is_read_otherwise_too_stays() -> None:
    class Tied(Body):
        def forward(self, x: Tensor) -> Tensor:
            y = self.part(self.first(x).relu())
            return self.last(F.conv2d(y.relu(), self.part.weight, padding=1))

    compiled = prunec.compile(Tied(PARTS["standardised"]), images(2))
    assert compiled.plan.computed == ()
    assert "part.weight" in dict(compiled.module.named_parameters())


def test_groups_are_those_that_are_cut() -> None:
    model = Body(PARTS["standardised"])
    groups, compiled = prunec.groups(model, images(2)), prunec.compile(model, images(2))
    assert [group.members for group in groups] == [g.members for g in compiled.report.groups]
    assert {group.pinned for group in groups if "part.weight" in group.members} == {""}


def test_the_report_names_them() -> None:
    report = prunec.compile(Body(PARTS["parametrised"]), images(2)).report
    assert report.to_dict()["computed"] == ["part.weight"]
    assert "Weights computed once: part.weight" in str(report)
