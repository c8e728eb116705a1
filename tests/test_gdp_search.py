"""The search for GDP's λ against every λ at which a gate closes."""

from __future__ import annotations

import pytest
import torch
from sampling import slow_case
from torch import Tensor
from zoo import ZOO

from prunec.graph.capture import capture
from prunec.graph.channels.analyse import analyse
from prunec.passes._gdp import Gdp
from prunec.passes.train_gdp import TrainGdp
from prunec.sparsity.gated_macs import gated_channels
from prunec.sparsity.mac_budget import first_block


class Problem:
    """One search: values v, how hard λ pulls at each, and what must not be exceeded."""

    def __init__(self, gdp: Gdp, v: Tensor, fisher: Tensor, target: Tensor) -> None:
        self.gdp, self.v, self.target = gdp, v, target
        cost = gdp.gated.marginal(gdp.gated.counts(v > 0))[gdp.gated.group_of]
        pull = cost / cost.mean() / fisher
        self.pull = torch.where(first_block(gdp.gated, v / pull, gdp.options.round_to), 0.0, pull)
        self.pulled = (self.pull > 0) & (v > 0)
        self.closing = (v / self.pull)[self.pulled]

    def fits(self, open_gates: Tensor) -> bool:
        gated = self.gdp.gated
        counts = gated.shipped(gated.counts(open_gates), self.gdp.options.round_to)
        return bool(gated.macs(counts) <= self.target)

    def smallest(self) -> float:
        """The smallest λ that fits, or the largest that changes anything: try them one by one."""
        strengths = [0.0, *self.closing.sort().values.tolist()]
        for strength in strengths:
            kept = self.v > 0
            kept[self.pulled] = self.closing > strength
            if self.fits(kept):
                return strength
        return strengths[-1]


@pytest.mark.parametrize("round_to", [1, 2])
@pytest.mark.parametrize("name", ["residual", "grouped", slow_case("mobile-net-v2"), "concat"])
def test_no_smaller_strength_fits(name: str, round_to: int) -> None:
    """Tolerance: the resolution of strengths after 24 bisections."""
    module, example = ZOO[name]()
    gated = gated_channels(analyse(capture(module.eval(), example)))
    options = TrainGdp(dense_epochs=1, select_epochs=1, macs_ratio=0.5, round_to=round_to)
    gdp = Gdp(options, module, gated)
    torch.manual_seed(3)
    told = set()
    for number in range(40):
        v = torch.rand(len(gated.group_of), dtype=torch.float64)
        v *= torch.rand(len(v)) > 0.1 * (number % 5)
        fisher = torch.rand(len(v), dtype=torch.float64) + 0.01
        problem = Problem(gdp, v, fisher, gdp.dense_macs * (number + 1) / 40)
        actual, smallest = gdp.proximal(v, fisher, problem.target), problem.smallest()
        width = max(problem.closing.tolist(), default=0.0) / 2**24
        low = (v - (smallest + width * 1.001) * problem.pull).clamp(min=0)
        high = (v - smallest * problem.pull).clamp(min=0)
        assert bool((low <= actual).all())
        assert bool((actual <= high * (1 + 1e-12)).all())
        told.add((smallest == 0, problem.fits(actual > 0)))
    assert {(True, True), (False, True)} <= told
