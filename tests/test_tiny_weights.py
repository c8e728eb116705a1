"""Weights too small for an output become zeros; those that an output depends on stay."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.passes.remove_channels import RemoveChannels
from prunec.passes.zero_tiny_weights import ZeroTinyWeights


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()


class Scaled(nn.Module):
    """Small weights that a division makes large."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)
        with torch.no_grad():
            self.layer.weight.mul_(1e-15)
            self.layer.bias.mul_(1e-15)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y / y.abs().amax(1, keepdim=True)


def filters(size: float) -> Callable[[nn.Sequential], int]:
    def change(module: nn.Sequential) -> int:
        module[3].weight.data[:3] *= size
        module[3].bias.data[:3] = 0
        return 3

    return change


def gates(module: nn.Sequential) -> int:
    """Two gates of 1e-20 in a row."""
    module[3].weight.data[2] *= 1e-20
    module[3].weight.data[2] *= 1e-20
    module[3].bias.data[2] = 0
    return 1


def norm(module: nn.Sequential) -> int:
    """A norm that weight decay has made small."""
    module[1].weight.data[5] = 1e-41
    module[1].bias.data[5] = -1e-39
    return 1


@pytest.mark.parametrize("change", [filters(1e-30), filters(1e-39), filters(1e-14), gates, norm])
def test_what_no_output_depends_on_goes_with_its_channels(
    change: Callable[[nn.Sequential], int],
) -> None:
    module, example = net(), (torch.randn(2, 3, 8, 8),)
    channels = change(module)
    before = copy.deepcopy(module.state_dict())
    artifact = ZeroTinyWeights()(Artifact(module, example))
    assert all(torch.equal(before[name], x) for name, x in module.state_dict().items())
    step = artifact.history[-1]
    assert step.details["zeroed"] > 0
    assert "not bit-exact" in step.notes[0]
    assert step.error is not None
    assert step.error <= 1e-6
    left = [w for p in artifact.module.parameters() for w in p[p != 0].abs()]
    assert min(left) > 1e-12
    cut = RemoveChannels()(artifact)
    assert sum(cut.history[-1].details["removed"].values()) == channels


def test_what_an_output_depends_on_stays() -> None:
    artifact = Artifact(Scaled().eval(), (torch.randn(2, 4),))
    kept = ZeroTinyWeights()(artifact)
    assert kept.module is artifact.module
    assert kept.history[-1].details == {"zeroed": 0, "kept": 15}


def test_the_floor_sinks_until_nothing_moves() -> None:
    """Weights of 1e-15 decide an output beside some of 1e-35 that do not."""
    module = Scaled().eval()
    with torch.no_grad():
        module.layer.weight[1, 2] = 1e-35
        module.layer.weight[2, 0] = -1e-40
    artifact = ZeroTinyWeights()(Artifact(module, (torch.randn(2, 4),)))
    details = artifact.history[-1].details
    assert details["zeroed"] == 2
    assert details["floor"] < 1e-16
    assert int((artifact.module.layer.weight == 0).sum()) == 2


def test_an_output_of_its_own_small_size_is_not_lost() -> None:
    """A head whose numbers are all small is judged by its own size, not by another's."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.large, self.small = nn.Linear(4, 3), nn.Linear(4, 3, bias=False)
            self.small.weight.data.mul_(1e-20)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.large(x), self.small(x)

    artifact = ZeroTinyWeights()(Artifact(Heads().eval(), (torch.randn(2, 4),)))
    assert artifact.history[-1].details["zeroed"] == 0


def test_nothing_small_costs_nothing() -> None:
    artifact = Artifact(net(), (torch.randn(2, 3, 8, 8),))
    same = ZeroTinyWeights()(artifact)
    assert same.module is artifact.module
    assert same.history[-1].notes == ("no weight is below 1e-12",)
