"""The networks people ship, small enough for a test."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.parts import Net, block, conv, head, linear_block, member


class DenseLayer(nn.Module):
    """Batch norm, ReLU and convolution over everything so far; its output is appended."""

    def __init__(self, i: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(i), conv(i, 2 * growth, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(2 * growth), conv(2 * growth, growth)

    def forward(self, parts: list[Tensor]) -> Tensor:
        x = self.conv1(F.relu(self.norm1(torch.cat(parts, 1))))
        return self.conv2(F.relu(self.norm2(x)))


@member((3, 8, 8))
def dense_net() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        parts = [m.stem(x)]
        for layer in m.layers:
            parts.append(layer(parts))
        x = m.transition(F.relu(m.norm(torch.cat(parts, 1))))
        return m.head(F.avg_pool2d(x, 2))

    layers = nn.ModuleList(DenseLayer(8 + 4 * i, 4) for i in range(3))
    return Net(
        rule,
        stem=conv(3, 8),
        layers=layers,
        norm=nn.BatchNorm2d(20),
        transition=conv(20, 10, 1),
        head=head(10),
    )


def _inverted(i: int, o: int, stride: int) -> nn.Sequential:
    wide = 2 * i
    deep = nn.Sequential(
        conv(wide, wide, groups=wide, stride=stride), nn.BatchNorm2d(wide), nn.ReLU6()
    )
    return nn.Sequential(
        conv(i, wide, 1), nn.BatchNorm2d(wide), nn.ReLU6(), deep, linear_block(wide, o, 1)
    )


@member((3, 16, 16))
def mobile_net_v2() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = m.first(x)
        x = x + m.second(x)
        x = m.third(x)
        x = x + m.fourth(x)
        return m.head(m.last(x))

    return Net(
        rule,
        stem=block(3, 8, stride=2),
        first=_inverted(8, 6, 1),
        second=_inverted(6, 6, 1),
        third=_inverted(6, 10, 2),
        fourth=_inverted(10, 10, 1),
        last=block(10, 16, 1),
        head=nn.Sequential(head(16), nn.Dropout(0.2)),
    )


def _shuffled(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.size()
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


def _shuffle_branch(i: int, o: int, stride: int) -> nn.Sequential:
    deep = linear_block(o, o, groups=o, stride=stride)
    return nn.Sequential(block(i, o, 1), deep, block(o, o, 1))


@member((3, 16, 16))
def shuffle_net_v2() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = _shuffled(torch.cat([m.down_left(x), m.down_right(x)], 1), 2)
        for unit in m.units:
            a, b = x.chunk(2, 1)
            x = _shuffled(torch.cat([a, unit(b)], 1), 2)
        return m.head(m.last(x))

    left = nn.Sequential(linear_block(8, 8, groups=8, stride=2), block(8, 6, 1))
    return Net(
        rule,
        stem=nn.Sequential(block(3, 8), nn.MaxPool2d(3, 2, 1)),
        down_left=left,
        down_right=_shuffle_branch(8, 6, 2),
        units=nn.ModuleList(_shuffle_branch(6, 6, 1) for _ in range(2)),
        last=block(12, 10, 1),
        head=head(10),
    )


@member((3, 16, 16))
def vgg() -> nn.Module:
    features = nn.Sequential(
        block(3, 8), nn.MaxPool2d(2), block(8, 12, bias=True), block(12, 8), nn.MaxPool2d(2)
    )
    classifier = nn.Sequential(
        nn.Linear(8 * 4, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(16, 5)
    )
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), classifier)


@member((3, 16, 16))
def resnet_with_free_shortcuts() -> nn.Module:
    """The CIFAR ResNet: a shortcut takes every second pixel and adds channels of zeros."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = F.relu(x + m.same(x))
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        x = F.relu(shortcut + m.down(x))
        return m.head(F.relu(x + m.deep(x)))

    return Net(
        rule,
        stem=block(3, 8),
        same=nn.Sequential(block(8, 8), linear_block(8, 8)),
        down=nn.Sequential(block(8, 12, stride=2), linear_block(12, 12)),
        deep=nn.Sequential(block(12, 10), linear_block(10, 12)),
        head=head(12),
    )


@member((3, 16, 16))
def u_net() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        a = m.down1(x)
        b = m.down2(F.max_pool2d(a, 2))
        c = m.bottom(F.max_pool2d(b, 2))
        b = m.up2(torch.cat([m.grow2(c), b], 1))
        return m.last(m.up1(torch.cat([m.grow1(b), a], 1)))

    return Net(
        rule,
        down1=block(3, 6),
        down2=block(6, 8),
        bottom=block(8, 12),
        grow2=nn.ConvTranspose2d(12, 8, 2, stride=2),
        up2=block(16, 8),
        grow1=nn.ConvTranspose2d(8, 6, 2, stride=2),
        up1=block(12, 6),
        last=conv(6, 2, 1, bias=True),
    )
