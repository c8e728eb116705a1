"""Nets awkward in how their forward pass is written."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from zoo.parts import Net, block, conv, head, linear_block, member


@member((3, 8, 8))
def stochastic_depth() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(F.relu(x + m.drop(m.body(x))))

    body = nn.Sequential(block(8, 10), linear_block(10, 8))
    return Net(rule, stem=block(3, 8), body=body, drop=StochasticDepth(0.3, "row"), head=head(8))


@member((3, 8, 8))
def dropout() -> nn.Module:
    return nn.Sequential(block(3, 8), nn.Dropout2d(0.2), block(8, 10), nn.Dropout(0.3), head(10))


@member((3, 8, 8))
def in_place() -> nn.Module:
    """Sums and activations that overwrite what others have read."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        y = m.body(x)
        y += x
        y.mul_(2.0).relu_()
        return m.head(F.hardtanh_(m.tail(y), -1.0, 1.0))

    return Net(
        rule, stem=block(3, 8), body=linear_block(8, 8), tail=linear_block(8, 6), head=head(6)
    )


@member((3, 8, 8))
def in_place_on_view() -> nn.Module:
    """A slice of the channels is overwritten through a view."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x).clone()
        x[:, 2:6].mul_(3.0).add_(0.5)
        x.narrow(1, 6, 2).sigmoid_()
        return m.head(m.tail(x))

    return Net(rule, stem=linear_block(3, 8), tail=block(8, 8), head=head(8))


@member((3, 8, 8))
def functional_norm() -> nn.Module:
    """Batch norm as a function of buffers and parameters that belong to no norm module."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = F.batch_norm(x, m.mean, m.var, m.gamma, m.beta, m.training, 0.1, 1e-5)
        return m.head(m.tail(F.relu(x)))

    net = Net(
        rule,
        stem=conv(3, 8),
        gamma=nn.Parameter(torch.rand(8) + 0.5),
        beta=nn.Parameter(torch.randn(8) * 0.3),
        tail=block(8, 8),
        head=head(8),
    )
    net.register_buffer("mean", torch.randn(8) * 0.2)
    net.register_buffer("var", torch.rand(8) + 0.5)
    return net


@member((3, 8, 8))
def functional_convolution() -> nn.Module:
    """A kernel that is a plain parameter, scaled before it is used."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(m.stem(x), m.kernel * m.scale, m.shift, padding=1))
        return m.head(x)

    return Net(
        rule,
        stem=block(3, 8),
        kernel=nn.Parameter(torch.randn(10, 8, 3, 3) * 0.2),
        scale=nn.Parameter(torch.rand(10, 1, 1, 1) + 0.5),
        shift=nn.Parameter(torch.randn(10) * 0.3),
        head=head(10),
    )


@member((3, 8, 8))
def scaled_branch() -> nn.Module:
    """Layer scale: a parameter per channel that multiplies a branch, and one that is added."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = x + m.scale * m.body(x) + m.shift.view(1, -1, 1, 1)
        return m.head(m.tail(x))

    return Net(
        rule,
        stem=block(3, 8),
        body=linear_block(8, 8),
        scale=nn.Parameter(torch.rand(8, 1, 1) + 0.5),
        shift=nn.Parameter(torch.randn(8) * 0.3),
        tail=block(8, 6),
        head=head(6),
    )


@member((3, 8, 8))
def scalar_parameter() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(x + m.scale * m.body(x))

    scale = nn.Parameter(torch.tensor(0.7))
    return Net(rule, stem=block(3, 8), body=linear_block(8, 8), scale=scale, head=head(8))


@member((3, 8, 8))
def arithmetic() -> nn.Module:
    """Constants through scalars: subtraction from one, division, powers, clamps, where."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = (1.0 - x) / 2.0 + x.clamp(min=-0.5) ** 2
        x = torch.where(x > 0.2, x, x * 0.1).abs() + 0.25
        return m.head(m.tail(x))

    return Net(rule, stem=linear_block(3, 10), tail=block(10, 8), head=head(8))


@member((3, 8, 8))
def frozen_norm() -> nn.Module:
    """A norm without learnt scale and shift, and one that keeps no statistics of its own scale."""
    return nn.Sequential(
        conv(3, 8, bias=True),
        nn.BatchNorm2d(8, affine=False),
        nn.ReLU(),
        conv(8, 10),
        nn.BatchNorm2d(10, affine=False),
        head(10),
    )


@member((3, 8, 8))
def conv_as_norm_reader() -> nn.Module:
    """Two norms in a row, then one before any convolution has read."""
    twice = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(nn.BatchNorm2d(3), twice, nn.BatchNorm2d(8), conv(8, 6), head(6))


@member((3, 8, 8))
def tied_weights() -> nn.Module:
    """The decoder's kernel is the encoder's, transposed."""

    def rule(m: Net, x: Tensor) -> Tensor:
        code = F.relu(m.encode(x))
        return F.conv_transpose2d(code, m.encode.weight, padding=1) + m.head(code)

    return Net(rule, encode=conv(3, 8, bias=True), head=conv(8, 3, 1, bias=True))


@member((3, 8, 8))
def two_layers_one_weight() -> nn.Module:
    """Two modules own the same parameter, each with a bias of its own."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.first(m.stem(x))
        return m.head(F.relu(m.second(F.relu(x))))

    first, second = conv(8, 8, bias=True), conv(8, 8, bias=True)
    second.weight = first.weight
    return Net(rule, stem=block(3, 8), first=first, second=second, head=head(8))


@member((3, 8, 8))
def writes_through_views() -> nn.Module:
    """Parts of a tensor are written one after another: slices, one channel, a slice of a slice."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x).clone()
        x[:, 0].mul_(2.0)
        part = x[:, 2:8]
        part[:, 1:3].sub_(0.5).abs_()
        x[:, 5:] += 1.0
        return m.head(m.tail(x))

    return Net(rule, stem=linear_block(3, 8), tail=block(8, 8), head=head(8))
