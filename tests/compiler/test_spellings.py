"""Layers and norms in functional spellings, with parameters of a module used apart from it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from masks import randomise
from random_networks.spellings import SPELLINGS, Rule
from sampling import sampled, slow_case
from torch import Tensor, nn

from prunec.graph.rewriting.compile import compile_module


class Spelled(nn.Module):
    """A convolution, a part used by a rule, a convolution."""

    def __init__(self, make: Callable[[int], nn.Module], rule: Rule) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem, self.part = nn.Conv2d(3, 6, 3, padding=1), make(6)
        self.head, self.rule = nn.Conv2d(6, 3, 1), rule
        randomise(self)
        with torch.no_grad():
            self.stem.weight[::3] = 0
            for parameter in self.part.parameters():
                if parameter.dim() > 1:
                    parameter[1::3] = 0
                    parameter[:, 2::3] = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rule(self.part, self.stem(x).relu()).relu())


def images(batch: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 3, 5, 4, dtype=torch.float64, generator=generator).to(dtype)


DOUBLE, SINGLE = torch.float64, torch.float32
CASES = [(name, (DOUBLE, SINGLE)[i // 4 % 2]) for i, name in enumerate(SPELLINGS)]
OTHERS = [(name, (SINGLE, DOUBLE)[i // 4 % 2]) for i, name in enumerate(SPELLINGS)]
"""By default a spelling meets one precision; with the other it is nightly."""


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*sampled(CASES, 8, 4), *(slow_case(case, nightly=True) for case in OTHERS)],
    ids=lambda value: {DOUBLE: "double", SINGLE: "single"}.get(value, value),
)
def test_a_spelling_is_exact(name: str, dtype: torch.dtype) -> None:
    module = Spelled(*SPELLINGS[name]).to(dtype)
    compact = compile_module(module, (images(2, dtype),)).module
    with torch.no_grad():
        for batch in (1, 2, 3, 5):
            given = images(batch, dtype)
            expected, actual = module(given), compact(given)
            bound = 1e-10 if dtype == torch.float64 else 1e-5
            assert (expected - actual).abs().max() <= bound * expected.abs().max()
