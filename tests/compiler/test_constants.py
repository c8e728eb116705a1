"""Constant channels: they go exactly, and no more of them is carried than the border demands."""

from __future__ import annotations

import pytest
import torch
from masks import channel_masks, masked, randomise
from oracles import fresh_inputs, worst
from sampling import sampled
from torch import nn
from zoo import ZOO
from zoo.parts import Net, conv, head, linear_block

from prunec.cost.torch_graph import count
from prunec.graph.channels.groups import channel_groups
from prunec.graph.rewriting.compile import compile_module

BORDERS = [
    "sigmoid-border",
    "softplus-border",
    "hardsigmoid-border",
    "swish-border",
    "border-not-padded",
    "reflect-padding",
    "replicate-padding",
    "circular-padding",
    "asymmetric-padding",
    "padding-by-one",
    "same-padding",
    "average-counting-padding",
    "average-not-counting-padding",
    "average-with-ceiling",
    "average-with-ceiling-and-padding",
    "average-with-divisor",
    "max-pool-with-ceiling",
    "adaptive-pool",
    "transposed",
    "bilinear",
    "nearest",
    "arithmetic",
    "one-dimension",
    "scaled-branch",
    "in-place-on-view",
]
EXAMPLE = (
    torch.randn(2, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
)


@pytest.mark.parametrize("name", sampled(BORDERS, 8))
def test_constants_reach_the_border_exactly(name: str) -> None:
    module, example = ZOO[name]()
    masks = channel_masks(module, channel_groups(module, example), 0.4, "producers", 3)
    original = masked(module, masks)
    compiled = compile_module(original, example)
    assert worst(original, compiled.module, fresh_inputs(example, 4, 1)) < 1e-12


def _constants(shifts: list[float], reader: nn.Module, activation: nn.Module) -> nn.Module:
    """Eight channels; as many as there are shifts are constant, with those values before the
    activation; one reader whose width is counted.
    """
    torch.manual_seed(0)
    net = nn.Sequential(linear_block(3, 8), activation, reader, nn.ReLU(), head(6)).double()
    randomise(net).eval()
    with torch.no_grad():
        for channel, shift in enumerate(shifts):
            net[0][0].weight[channel] = 0.0
            net[0][1].running_mean[channel] = 0.0
            net[0][1].bias[channel] = shift
    return net


def _read(net: nn.Module) -> tuple[int, float]:
    """Channels that the reader reads after compilation, and the error."""
    compiled = compile_module(net, EXAMPLE)
    weights = compiled.module.state_dict()
    error = worst(net, compiled.module, fresh_inputs(EXAMPLE, 4, 1))
    return weights["2.weight"].shape[1], error


@pytest.mark.parametrize(
    ("shifts", "activation", "reader", "left"),
    [
        ([0.3, -0.7, 1.1], nn.Identity(), conv(8, 6), 6),  # one of three is carried
        ([0.3, 0.0, 0.0], nn.Identity(), conv(8, 6), 6),  # zeros go, the third stays as it is
        ([0.0, 0.0, 0.0], nn.Identity(), conv(8, 6), 5),
        ([-0.3, -0.7, -1.1], nn.ReLU(), conv(8, 6), 5),  # ReLU makes zeros of them
        ([-0.3, 0.7, 1.1], nn.ReLU(), conv(8, 6), 6),
        ([-0.3, 0.7, 1.1], nn.Sigmoid(), conv(8, 6), 6),
        ([-4.0, 0.7], nn.Hardsigmoid(), conv(8, 6), 7),  # one is 0, the other the carrier
        ([-0.3, 0.7, 1.1], nn.Sigmoid(), conv(8, 6, padding=0), 5),  # folded into a new bias
        ([-0.3, 0.7, 1.1], nn.Sigmoid(), conv(8, 6, padding=0, bias=True), 5),
        ([-0.3, 0.7, 1.1], nn.Sigmoid(), conv(8, 6, 1), 5),
        ([0.3, 0.7], nn.Sigmoid(), conv(8, 6, padding=1, padding_mode="replicate"), 6),
        ([0.3, 0.7], nn.Sigmoid(), conv(8, 6, groups=1, stride=2), 7),
    ],
)
def test_as_many_are_carried_as_the_reader_needs(
    shifts: list[float], activation: nn.Module, reader: nn.Module, left: int
) -> None:
    channels, error = _read(_constants(shifts, reader, activation))
    assert channels == left
    assert error < 1e-12


def test_tiny_and_huge_constants_make_a_good_carrier() -> None:
    """The largest constant carries: dividing by the smallest would multiply rounding errors."""
    channels, error = _read(_constants([1e-12, 3e5, -1e-3], conv(8, 6), nn.Identity()))
    assert channels == 6
    assert error < 1e-12


def test_a_dead_block_goes_with_its_convolutions() -> None:
    def rule(m: Net, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(m.stem(x))
        return m.head(torch.relu(x + m.body(x)))

    body = nn.Sequential(linear_block(8, 8), nn.ReLU(), linear_block(8, 8))
    net = randomise(Net(rule, stem=linear_block(3, 8), body=body, head=head(8)).double()).eval()
    with torch.no_grad():
        net.body[2][0].weight.zero_()
    compiled = compile_module(net, EXAMPLE)
    assert worst(net, compiled.module, fresh_inputs(EXAMPLE, 4, 1)) < 1e-12
    stem_and_head = 81 * 27 * 8 + 8 * 5
    smallest_body = 81 * 9 * (8 + 8)  # one channel inside, which nothing varies
    assert count(compiled.module, EXAMPLE).macs <= stem_and_head + smallest_body


def test_a_network_that_is_constant_stays_that_constant() -> None:
    module, example = ZOO["chain"]()
    with torch.no_grad():
        module[1][0].weight.zero_()
    compiled = compile_module(module, example)
    assert worst(module, compiled.module, fresh_inputs(example, 3, 1)) < 1e-12
    assert count(compiled.module, example).macs < count(module, example).macs / 4


def test_everything_zero_still_compiles() -> None:
    module, example = ZOO["residual"]()
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()
    compiled = compile_module(module, example)
    assert worst(module, compiled.module, fresh_inputs(example, 3, 1)) == 0.0


@torch.no_grad()
def test_a_kernel_that_no_input_is_left_for_is_compiled_again() -> None:
    """Nobody reads the small network of Swin V2's bias, nor it the table of places."""
    net, example = ZOO["position-bias"]()
    net.position[2].weight.zero_()  # type: ignore[index, union-attr]
    compiled = compile_module(net, example)
    assert compiled.module.get_parameter("position.0.weight").shape[1] == 0
    again = compile_module(compiled.module, example)
    assert worst(net, again.module, fresh_inputs(example, 3, 1)) < 1e-10
