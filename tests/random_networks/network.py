"""The module of a wiring."""

from __future__ import annotations

from typing import Any

import torch
from masks import randomise
from torch import Tensor, nn
from torch.nn import functional as F

from random_networks.modules import part_of
from random_networks.moves import moved
from random_networks.outputs import FORMS
from random_networks.pads import PADS
from random_networks.wiring import Step, Wiring


class RandomNet(nn.Module):
    """The module of a wiring: float64, eval, seeded, norms randomised."""

    def __init__(self, wiring: Wiring) -> None:
        super().__init__()
        self.wiring = wiring
        shapes = wiring.shapes()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(wiring.seed)
            self.parts = nn.ModuleDict(
                {
                    str(n): part
                    for n, step in enumerate(wiring.steps, wiring.inputs)
                    if (part := part_of(step, shapes[step.sources[0]][0])) is not None
                }
            )
            self.heads = nn.ModuleList(nn.Linear(shapes[i][0], 3) for i in wiring.heads)
            self.flat = nn.ModuleList(
                nn.Linear(shapes[i][0] * shapes[i][1] ** 2, 3) for i in wiring.flat
            )
            self.register_buffer("prior", torch.rand(3))
            randomise(self.double())
            self.eval()
            if wiring.ran:
                with torch.no_grad():
                    self(*wiring.example(4))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        return self.of(x) if y is None else self.of(x, y)

    def of(self, *inputs: Tensor) -> Any:
        """The outputs for one or two inputs."""
        values = list(inputs)
        for number, step in enumerate(self.wiring.steps, self.wiring.inputs):
            values.append(self._compute(str(number), step, [values[i] for i in step.sources]))
        pairs = zip(self.heads, self.wiring.heads, strict=True)
        classes = tuple(head(values[i].mean((2, 3))) for head, i in pairs)
        flat = zip(self.flat, self.wiring.flat, strict=True)
        classes += tuple(head(torch.flatten(values[i], 1)) for head, i in flat)
        outputs = classes + tuple(values[i] for i in self.wiring.raw)
        return FORMS[self.wiring.form](outputs, inputs, self.prior)

    def _compute(self, number: str, step: Step, given: list[Tensor]) -> Tensor:
        x = given[0]
        match step.kind:
            case "again":
                return self.parts[str(step.options[0])](x)
            case "linear" | "layer-norm":
                return self.parts[number](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            case "padded":
                pad = F.pad(x, (1, 0, 2, 1), **PADS[str(step.options[2])])
                return self.parts[number](pad[:, :, 1:])
            case _ if number in self.parts:
                return self.parts[number](x)
            case _:
                return moved(step, given)


class StarredNet(RandomNet):
    """The same with all inputs as one argument."""

    def forward(self, *inputs: Tensor) -> Any:
        return self.of(*inputs)


def network_of(wiring: Wiring) -> RandomNet:
    """A new module of a wiring."""
    return StarredNet(wiring) if wiring.starred else RandomNet(wiring)
