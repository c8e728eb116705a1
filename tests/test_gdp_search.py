"""The search for GDP's λ against one bisection after the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from zoo import ZOO

from prunec.graph.atoms import analyse
from prunec.graph.capture import capture
from prunec.graph.macs import gated_channels
from prunec.passes.train_gdp import Gdp, TrainGdp


def bisected(gdp: Gdp, v: Tensor, fisher: Tensor, target: Tensor, round_to: int) -> Tensor:
    gated = gdp.gated
    cost = gated.marginal(gated.counts(v > 0))[gated.group_of]
    pull = cost / cost.mean() / fisher
    pull = torch.where(gdp.first_block(v / pull), 0.0, pull)

    def fits(strength: float) -> bool:
        counts = gated.counts(v > strength * pull)
        return bool(gated.macs(gated.shipped(counts, round_to)) <= target)

    if fits(0.0):
        return v
    low, high = 0.0, float(torch.where(pull > 0, v / pull, 0.0).max())
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return (v - high * pull).clamp(min=0)


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("name", ["residual", "grouped", "mobile-net-v2", "concat"])
def test_the_search_is_a_bisection_bit_for_bit(name: str, round_to: int) -> None:
    module, example = ZOO[name]()
    gated = gated_channels(analyse(capture(module.eval(), example)))
    options = TrainGdp(dense_epochs=1, select_epochs=1, macs_ratio=0.5, round_to=round_to)
    gdp = Gdp(options, module, gated)
    torch.manual_seed(3)
    ends = set()
    for number in range(40):
        v = torch.rand(len(gated.group_of), dtype=torch.float64)
        v *= torch.rand(len(v)) > 0.1 * (number % 5)
        fisher = torch.rand(len(v), dtype=torch.float64) + 0.01
        target = gdp.dense_macs * (number + 1) / 40
        found = gdp.proximal(v, fisher, target)
        assert torch.equal(found, bisected(gdp, v, fisher, target, round_to))
        ends.add(torch.equal(found, v))
    assert ends == {True, False}
