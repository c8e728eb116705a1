"""Networks of the zoo with gates, for the laws of GDP."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import pytest
import torch
from sampling import sampled, slow_but
from torch import Tensor, nn
from zoo import ZOO

from prunec.graph.capture import capture
from prunec.graph.channels.analyse import analyse
from prunec.passes._gdp import Gdp
from prunec.passes.train_gdp import TrainGdp
from prunec.sparsity.gated_macs import Gated, gated_channels
from prunec.training.method import Moment

NETS = ("mobile-net-v2", "resnet-with-free-shortcuts", "residual", "dense-net", "shuffle-net-v2",
        "projection", "concat", "vgg", "squeeze-excite")  # fmt: skip
EVERY_KIND = (*NETS, "grouped", "transposed-grouped", "shared-module")
DENSE, SELECT, EPOCHS, STEPS = 1, 2, 5, 10
OPTIONS = TrainGdp(dense_epochs=DENSE, select_epochs=SELECT, macs_ratio=0.4, round_to=4)
Gates = Mapping[str, Tensor]

nets = pytest.mark.parametrize("name", sampled(NETS, 2))
a_few = pytest.mark.parametrize(
    "name",
    slow_but(
        ["mobile-net-v2", "resnet-with-free-shortcuts", "dense-net", "shuffle-net-v2"], "dense-net"
    ),
)
kinds = pytest.mark.parametrize("name", sampled(EVERY_KIND, 2))


@cache
def gated_of(name: str) -> Gated:
    return gated_channels(analyse(capture(*ZOO[name]())))


def method_of(name: str, options: TrainGdp = OPTIONS) -> tuple[nn.Module, tuple[Tensor, ...], Gdp]:
    module, example = ZOO[name]()
    return module, example, Gdp(options, module, gated_of(name))


def moment(progress: float, learning_rate: float = 0.1) -> Moment:
    epoch = int(progress)
    return Moment(epoch, round((progress - epoch) * STEPS), STEPS, EPOCHS, learning_rate)


def random_gates(gated: Gated, seed: int, density: float = 0.6) -> Tensor:
    """Open or not; at least one gate of every group is."""
    generator = torch.Generator().manual_seed(seed)
    is_open = torch.rand(len(gated.group_of), generator=generator) < density
    starts = torch.cumsum(gated.sizes, 0) - gated.sizes
    is_open[starts + (torch.rand(len(starts), generator=generator) * gated.sizes).long()] = True
    return is_open


def closed_columns(module: nn.Module, gated: Gated, is_open: Tensor) -> dict[str, Tensor]:
    """The readers' masks that closed gates mean."""
    weights = dict(module.named_parameters())
    spread = torch.cat([is_open, torch.ones(1, dtype=torch.bool)])
    return {
        name: spread[index].reshape(gated.shapes[name]).expand_as(weights[name]).clone()
        for name, index in gated.readers.items()
    }
