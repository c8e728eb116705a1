"""The families that people prune: exact, and smaller.

With ``PRUNEC_EXAMPLES`` set, more of torchvision than the families that must always pass.
"""

from __future__ import annotations

import os

import pytest
import torch
from masks import masked, randomise
from modes import MODES
from oracles import brute_macs, fresh_inputs, worst
from sampling import slow_case
from torch import Tensor, nn
from torchvision import models

from prunec.graph.channels.groups import channel_groups
from prunec.graph.rewriting.compile import compile_module

# name → side of the image and the mode that is hardest for it
ALWAYS = {
    "resnet18": (32, "filters"),
    "vgg11_bn": (32, "producers"),
    "mobilenet_v2": (32, "producers"),
    "shufflenet_v2_x0_5": (32, "filters"),
    "squeezenet1_1": (32, "producers"),
}
NIGHTLY = {
    "mobilenet_v3_small": (32, "producers"),
    "alexnet": (64, "producers"),
    "resnext50_32x4d": (32, "both"),
    "regnet_y_400mf": (32, "readers"),
    "mnasnet0_5": (32, "both"),
    "efficientnet_b0": (32, "producers"),
    "densenet121": (32, "producers"),
    "googlenet": (32, "filters"),
}
FAMILIES = ALWAYS | NIGHTLY if os.environ.get("PRUNEC_EXAMPLES") else ALWAYS
OPTIONS: dict[str, dict[str, bool]] = {"googlenet": {"aux_logits": False, "init_weights": False}}
Family = tuple[nn.Module, tuple[Tensor, ...]]


def _family(name: str, side: int) -> Family:
    torch.manual_seed(0)
    module = models.get_model(name, num_classes=10, **OPTIONS.get(name, {}))
    if name == "vgg11_bn":  # its classifier alone would fill most of a gigabyte
        module.avgpool = nn.AdaptiveAvgPool2d(2)
        module.classifier[0], module.classifier[3] = nn.Linear(2048, 64), nn.Linear(64, 64)
        module.classifier[6] = nn.Linear(64, 10)
    example = (torch.randn(2, 3, side, side, dtype=torch.float64),)
    return randomise(module.double()).eval(), example


def _small_densenet() -> Family:
    torch.manual_seed(0)
    module = models.DenseNet(8, (3, 4, 3), 16, num_classes=10).double()
    return randomise(module).eval(), (torch.randn(2, 3, 32, 32, dtype=torch.float64),)


def _is_cut_exactly(family: Family, mode: str) -> None:
    module, example = family
    original = masked(module, MODES[mode](module, channel_groups(module, example), 0.5, 1))
    compiled = compile_module(original, example)
    assert worst(original, compiled.module, fresh_inputs(example, 3, 1)) < 1e-10
    assert brute_macs(compiled.module, example) < 0.75 * brute_macs(original, example)


@pytest.mark.parametrize("name", [slow_case(n, nightly=n == "vgg11_bn") for n in FAMILIES])
def test_a_family_is_cut_exactly(name: str) -> None:
    side, mode = FAMILIES[name]
    _is_cut_exactly(_family(name, side), mode)


@pytest.mark.slow
def test_a_densenet_of_three_blocks_is_cut_exactly() -> None:
    _is_cut_exactly(_small_densenet(), "producers")


FREE = {
    # every convolution, and the two hidden linear layers
    "vgg11_bn": 64 + 128 + 2 * 256 + 4 * 512 + 2 * 64,
    # a stage has one stream, and two blocks with one convolution inside
    "resnet18": 3 * (64 + 128 + 256 + 512),
}


@pytest.mark.parametrize("name", [slow_case("vgg11_bn", nightly=True), "resnet18"])
def test_as_many_channels_are_free_as_the_architecture_says(name: str) -> None:
    module, example = _family(name, 32)
    free = sum(group.size for group in channel_groups(module, example) if not group.pinned)
    assert free == FREE[name]
