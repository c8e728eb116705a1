"""Reductions over channels: zeros that go change nothing, whatever is made of the result."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import prunec

Rule = Callable[[Tensor], Tensor]


class Net(nn.Module):
    """Five of eight channels are zero throughout; a rule over all is added to what reads them."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.made, self.read = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3)
        self.rule = rule
        with torch.no_grad():
            self.made.weight[:5] = 0
            assert self.made.bias is not None
            self.made.bias[:5] = 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.made(x).relu()
        return self.read(y * 0.5) + self.rule(y).mean((2, 3), keepdim=True)


RULES: dict[str, tuple[Rule, int]] = {  # rule → how many channels stay
    "mean": (lambda y: y.mean(1, keepdim=True), 3),
    "mean of rows too": (lambda y: y.mean((1, 2), keepdim=True), 3),
    "largest": (lambda y: y.amax(1, keepdim=True), 3),
    "largest of all": (lambda y: y.amax((1, 2, 3), keepdim=True), 3),
    "smallest of negatives": (lambda y: (-y).amin(1, keepdim=True), 3),
    "norm of absolutes": (lambda y: y.norm(1, dim=1, keepdim=True), 3),
    "largest absolute": (lambda y: y.norm(float("inf"), dim=1, keepdim=True), 3),
    "channels last": (lambda y: y.permute(0, 2, 3, 1).mean(-1)[:, None], 3),
    "count": (lambda y: (y > 0).sum(1, keepdim=True).to(y.dtype), 3),
    # what zeros count in, or what a bound would give another type
    "smallest absolute": (lambda y: y.norm(float("-inf"), dim=1, keepdim=True), 8),
    "not zero": (lambda y: (y + 1).amin(1, keepdim=True), 8),
    "spread": (lambda y: y.var(1, keepdim=True), 8),
    "flags": (lambda y: torch.where((y > 0.1).amax(1, keepdim=True), y.sum(1)[:, None], -1.0), 8),
    "flags, not": (lambda y: (~(y > 0.1).amax(1, keepdim=True)).to(y.dtype), 8),
    "whole numbers": (lambda y: ((y > 0.1).int().amax(1, keepdim=True) & 1).to(y.dtype), 8),
}


@pytest.mark.parametrize("name", RULES)
def test_outputs_stay(name: str) -> None:
    rule, left = RULES[name]
    net = Net(rule).double().eval()
    example = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    compact = prunec.compile(net, (example,)).module
    assert compact.made.out_channels == left
    for batch in (1, 2, 3):
        x = torch.randn(batch, 3, 8, 8, dtype=torch.float64)
        torch.testing.assert_close(compact(x), net(x), rtol=0, atol=1e-12)
