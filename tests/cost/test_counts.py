"""MACs against published tables, against brute force, and against torch's own counter."""

from __future__ import annotations

import os

import pytest
import torch
from oracles import brute_macs, torch_macs
from published_resnet50 import shapes
from sampling import sampled
from torch import nn
from torchvision import models
from zoo import ZOO

from prunec.cost.torch_graph import count

IMAGE = (torch.zeros(2, 3, 224, 224),)
NOT_MODULES = {"lstm", "convolution-then-gru", "attention", "attention-module", "channel-attention"}
NOT_MODULES |= {"tied-weights", "functional-convolution", "dead-branch", "standardised-weight"}
NOT_MODULES |= {
    "product-with-a-parameter",
    "two-convolutions-one-weight",
    "einsum-with-a-parameter",
    "kernel-read-by-arithmetic",
    "layer-without-its-bias",
    "bias-partly-zeroed",
    "one-weight-two-strides",
}
RECURRENT = {name for name in ZOO if name.startswith(("lstm", "gru", "rnn"))}
FUSED = {"attention-module", "attention-of-one-projection"}  # torch's counter sees no product
NOT_MODULES |= RECURRENT | FUSED | {"attention-by-einsum"}
MODULES = [name for name in ZOO if name not in NOT_MODULES]
PRODUCTS = sorted(NOT_MODULES - RECURRENT - FUSED - {"convolution-then-gru", "dead-branch"})


def test_every_layer_agrees_with_the_published_shapes() -> None:
    rows = shapes("resnet18")
    layers = {layer.name: layer for layer in count(models.get_model("resnet18"), IMAGE).layers}
    assert len(layers) == len(rows) == 21
    for name, row in rows.items():
        assert (layers[name].macs, layers[name].params) == (int(row["macs"]), int(row["params"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "macs", "params"),
    [
        ("resnet18", 1_814_073_344, 11_689_512),
        ("mobilenet_v2", 300_774_272, 3_504_872),
    ],
)
def test_whole_networks_agree_with_known_totals(arch: str, macs: int, params: int) -> None:
    cost = count(models.get_model(arch), IMAGE)
    assert (cost.macs, cost.params) == (macs, params)


@pytest.mark.parametrize(
    "name", sampled(MODULES if os.environ.get("PRUNEC_EXAMPLES") else MODULES[::4], 4)
)
def test_macs_are_weights_times_visits(name: str) -> None:
    module, example = ZOO[name]()
    cost = count(module, example)
    assert cost.macs == brute_macs(module, example) == torch_macs(module, example)
    assert cost.params == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_whatever_torch_counts_too(name: str) -> None:
    module, example = ZOO[name]()
    assert count(module, example).macs == torch_macs(module, example)


def test_recurrent_layers_count_their_steps() -> None:
    """An LSTM of input 8 and width 6 has four gates of 6·(8+6) weights, used at each of 6 steps."""
    module, example = ZOO["lstm"]()
    macs = 6 * 5 * 8 + 6 * 4 * 6 * (8 + 6) + 6 * 8 + 8 * 3
    assert count(module, example).macs == macs


def test_zeros_are_not_counted_among_nonzero_macs() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten(), nn.Linear(4 * 16, 2))
    with torch.no_grad():
        net[0].weight[1] = 0.0
        net[0].weight[2, 0, 1, 1] = 0.0
        net[2].weight[:, :10] = 0.0
    cost = count(net, (torch.zeros(2, 3, 6, 6),))
    assert cost.macs == 16 * 108 + 128
    assert cost.nonzero_macs == 16 * (108 - 27 - 1) + 128 - 20
    assert cost.nonzero_params == (108 - 27 - 1) + (128 - 20) + 2


def test_the_count_does_not_depend_on_the_batch() -> None:
    module, example = ZOO["mobile-net-v2"]()
    wide = tuple(x.repeat(3, *[1] * (x.dim() - 1)) for x in example)
    assert count(module, wide) == count(module, example)
