"""Nets awkward in what they do with the channel axis."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.parts import Net, block, conv, head, linear_block, member


@member((3, 8, 8))
def multiplied_into_groups() -> nn.Module:
    """A channel stands several times in one group of the kernel that reads it."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(F.relu(m.mixed(m.twice(torch.cat([x, m.cheap(x)], 1)))))

    return Net(
        rule,
        stem=block(3, 8),
        cheap=block(8, 8, groups=8),
        twice=conv(16, 32, groups=16, bias=True),
        mixed=conv(32, 12, 1, groups=4, bias=True),
        head=head(12),
    )


@member((3, 8, 8))
def depthwise() -> nn.Module:
    deep = nn.Sequential(block(8, 8, groups=8), linear_block(8, 12, 1), block(12, 12, groups=12))
    return nn.Sequential(block(3, 8), deep, block(12, 8, 1), head(8))


@member((3, 8, 8))
def depthwise_multiplier() -> nn.Module:
    return nn.Sequential(block(3, 6), block(6, 18, groups=6), block(18, 8, 1), head(8))


@member((3, 8, 8))
def grouped() -> nn.Module:
    return nn.Sequential(
        block(3, 12), block(12, 16, groups=4, stride=2), block(16, 12, groups=2), head(12)
    )


@member((3, 8, 8))
def grouped_in_residual() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(F.relu(x + m.body(x)))

    body = nn.Sequential(block(12, 12, 1), block(12, 12, groups=3), linear_block(12, 12, 1))
    return Net(rule, stem=block(3, 12), body=body, head=head(12))


@member((3, 8, 8))
def grouped_reads_concat() -> nn.Module:
    """Groups of the reader do not fall together with the producers."""

    def rule(m: Net, x: Tensor) -> Tensor:
        return m.head(m.tail(torch.cat([m.left(x), m.right(x)], 1)))

    return Net(rule, left=block(3, 4), right=block(3, 8), tail=block(12, 6, groups=2), head=head(6))


@member((3, 8, 8))
def shuffle() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.first(m.stem(x))
        n, c, h, w = x.shape
        x = x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
        return m.head(m.second(x))

    return Net(
        rule,
        stem=block(3, 6),
        first=block(6, 12, groups=3),
        second=block(12, 12, groups=3),
        head=head(12),
    )


@member((3, 8, 8))
def channel_shuffle() -> nn.Module:
    """The operator, of a choice of channels that its groups do not divide."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = F.channel_shuffle(torch.cat([m.body(x), x], 1), 3)
        return m.head(nn.ChannelShuffle(2)(m.tail(x)) + 1)

    return Net(rule, stem=block(3, 9), body=block(9, 9), tail=block(18, 12), head=head(12))


@member((3, 8, 8))
def shuffle_between_groups() -> nn.Module:
    """Every channel stands in a group of what makes it and in one of what reads it."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.body(m.stem(x))
        b, c, h, w = x.shape
        return m.head(m.tail(x.view(b, 3, c // 3, h, w).transpose(1, 2).reshape(b, c, h, w)))

    return Net(
        rule,
        stem=block(3, 24),
        body=nn.Conv2d(24, 36, 1, groups=3),
        tail=nn.Conv2d(36, 24, 1, groups=3),
        head=head(24),
    )


@member((3, 8, 8))
def split() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        a, b, c = torch.split(m.stem(x), [4, 8, 2], 1)
        return m.head(torch.cat([m.body(b), a, c], 1))

    return Net(rule, stem=block(3, 14), body=block(8, 6), head=head(12))


@member((3, 8, 8))
def chunk() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        a, b = m.stem(x).chunk(2, dim=1)
        return m.head(m.tail(torch.cat([a, m.body(b)], 1)))

    return Net(rule, stem=block(3, 16), body=block(8, 8), tail=block(16, 8), head=head(8))


@member((3, 8, 8))
def gated_halves() -> nn.Module:
    """A gated linear unit multiplies one half of the channels by the sigmoid of the other."""
    return nn.Sequential(linear_block(3, 16), nn.GLU(1), block(8, 10), head(10))


@member((3, 8, 8))
def strided_slice() -> nn.Module:
    """Every second channel, one single channel, and a reversed order."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(m.tail(torch.cat([x[:, ::2], x[:, 5:6], x.flip(1), x.roll(3, 1)], 1)))

    return Net(rule, stem=block(3, 8), tail=block(21, 8), head=head(8))


@member((3, 8, 8))
def permuted_by_index() -> nn.Module:
    """A table of channel numbers, as mixing layers use."""

    def rule(m: Net, x: Tensor) -> Tensor:
        return m.head(m.tail(m.stem(x)[:, m.order]))

    net = Net(rule, stem=block(3, 8), tail=block(8, 8), head=head(8))
    net.register_buffer("order", torch.tensor([3, 1, 7, 5, 0, 2, 6, 4]))
    return net


@member((3, 4, 4))
def flatten_linear() -> nn.Module:
    return nn.Sequential(
        block(3, 6), nn.Flatten(), nn.Linear(6 * 16, 10), nn.ReLU(), nn.Linear(10, 5)
    )


@member((3, 8, 8))
def squeeze_excite() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        scale = m.excite(F.relu(m.squeeze(x.mean((2, 3), keepdim=True))))
        return m.head(m.tail(x * torch.sigmoid(scale)))

    return Net(
        rule,
        stem=block(3, 12),
        squeeze=conv(12, 4, 1, bias=True),
        excite=conv(4, 12, 1, bias=True),
        tail=block(12, 8),
        head=head(8),
    )


@member((3, 8, 8))
def squeeze_excite_by_linear() -> nn.Module:
    """The scale is a matrix until a view gives it back its place."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        n, c = x.shape[:2]
        scale = F.hardsigmoid(m.excite(F.relu(m.squeeze(F.adaptive_avg_pool2d(x, 1).view(n, c)))))
        return m.head(x * scale.view(n, c, 1, 1))

    return Net(
        rule,
        stem=block(3, 12),
        squeeze=nn.Linear(12, 4),
        excite=nn.Linear(4, 12),
        head=head(12),
    )


@member((3, 8, 8))
def spatial_gate() -> nn.Module:
    """A map of one channel multiplies all channels."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(m.tail(x * torch.sigmoid(m.gate(x))))

    return Net(rule, stem=block(3, 8), gate=conv(8, 1, bias=True), tail=block(8, 6), head=head(6))


@member((3, 8, 8))
def gate_of_mean_and_largest() -> nn.Module:
    """A map of the mean and of the largest channel says where to look."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        seen = torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], 1)
        return m.head(m.tail(x * torch.sigmoid(m.gate(seen))))

    gate = nn.Conv2d(2, 1, 7, padding=3)
    return Net(rule, stem=block(3, 8), gate=gate, tail=block(8, 6), head=head(6))


@member((3, 8, 8))
def response_over_channels() -> nn.Module:
    """Each channel by its size among the sizes of all."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        size = x.norm(p=2, dim=(2, 3), keepdim=True)
        x = x * (size / (size.mean(dim=1, keepdim=True) + 1e-3)) + x
        return m.head(m.tail(x))

    return Net(rule, stem=block(3, 8), tail=block(8, 6), head=head(6))


@member((3, 8, 8))
def mean_over_channels() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.body(m.stem(x))
        return m.head(x - x.mean(1, keepdim=True))

    return Net(rule, stem=block(3, 8), body=block(8, 10), head=head(10))


@member((3, 8, 8))
def softmax_over_channels() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        return m.head(m.tail(m.body(m.stem(x)).softmax(1)))

    return Net(rule, stem=block(3, 8), body=linear_block(8, 10), tail=block(10, 8), head=head(8))


@member((3, 8, 8))
def group_norm() -> nn.Module:
    return nn.Sequential(
        block(3, 8), conv(8, 12), nn.GroupNorm(3, 12), nn.ReLU(), block(12, 8), head(8)
    )


@member((3, 8, 8))
def layer_norm_channels_last() -> nn.Module:
    """A layer norm between two permutations, as ConvNeXt has it."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        y = m.wide(m.norm(x.permute(0, 2, 3, 1)))
        return m.head(x + m.narrow(F.gelu(y)).permute(0, 3, 1, 2))

    return Net(
        rule,
        stem=block(3, 8),
        norm=nn.LayerNorm(8),
        wide=nn.Linear(8, 16),
        narrow=nn.Linear(16, 8),
        head=head(8),
    )


@member((3, 8, 8))
def instance_norm() -> nn.Module:
    return nn.Sequential(
        conv(3, 8), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), block(8, 10), head(10)
    )


@member((3, 8, 8))
def literal_view() -> nn.Module:
    """A view that spells out its channel count."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x).view(-1, 8, 64).relu()
        return m.head(m.tail(x.view(-1, 8, 8, 8)))

    return Net(rule, stem=linear_block(3, 8), tail=block(8, 8), head=head(8))


@member((3, 8, 8))
def pixel_shuffle() -> nn.Module:
    """Four channels become one channel of twice the height and width."""
    return nn.Sequential(block(3, 16), nn.PixelShuffle(2), block(4, 8), head(8))


@member((3, 8, 8))
def prelu() -> nn.Module:
    return nn.Sequential(linear_block(3, 8), nn.PReLU(8), linear_block(8, 10), nn.PReLU(), head(10))


@member((3, 8, 8))
def repeated_channels() -> nn.Module:
    return Net(
        lambda m, x: m.head(m.tail(m.stem(x).repeat(1, 2, 1, 1))),
        stem=block(3, 6),
        tail=block(12, 8),
        head=head(8),
    )


@member((3, 8, 8))
def maximum_of_halves() -> nn.Module:
    """Max-feature-map: the larger of two channels survives."""

    def rule(m: Net, x: Tensor) -> Tensor:
        a, b = m.stem(x).chunk(2, 1)
        return m.head(m.tail(torch.maximum(a, b)))

    return Net(rule, stem=linear_block(3, 16), tail=block(8, 8), head=head(8))


@member((3, 8, 8))
def unflatten() -> nn.Module:
    """A linear layer's outputs become channels of images."""

    def rule(m: Net, x: Tensor) -> Tensor:
        code = F.relu(m.encode(m.stem(x).flatten(1)))
        return m.tail(F.relu(m.decode(code)).unflatten(1, (6, 4, 4)))

    return Net(
        rule,
        stem=block(3, 4, stride=2),
        encode=nn.Linear(4 * 16, 10),
        decode=nn.Linear(10, 6 * 16),
        tail=nn.Sequential(block(6, 8), conv(8, 3)),
    )


@member((3, 8, 8))
def zeros_beside_channels() -> nn.Module:
    """Zero channels before and behind a shortcut, and one at a place in between."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        wide = F.pad(x, (0, 0, 0, 0, 1, 3)) + m.body(x)
        gap = torch.cat([wide[:, :4], torch.zeros_like(wide[:, :1]), wide[:, 4:]], 1)
        return m.head(m.tail(F.relu(gap)))

    return Net(rule, stem=block(3, 6), body=linear_block(6, 10), tail=block(11, 8), head=head(8))


@member((3, 8, 8))
def selected_by_number() -> nn.Module:
    """index_select, narrow, select, take one channel away from all others."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        some = x.index_select(1, m.order)
        one = x.select(1, 2).unsqueeze(1)
        return m.head(m.tail(torch.cat([some, x.narrow(1, 4, 3) * 0.5, one], 1)))

    net = Net(rule, stem=linear_block(3, 8), tail=block(8, 6), head=head(6))
    net.register_buffer("order", torch.tensor([7, 0, 3, 3]))
    return net


@member((3, 8, 8))
def running_instance_norm() -> nn.Module:
    """An instance norm that keeps statistics is a batch norm when it is evaluated."""
    norm = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
    return nn.Sequential(conv(3, 8), norm, nn.ReLU(), block(8, 10), head(10))


@member((3, 8, 8))
def group_norm_of_concat() -> nn.Module:
    """A norm's groups lie across two producers."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(m.tail(F.relu(m.norm(torch.cat([m.left(x), m.right(x)], 1)))))

    return Net(
        rule,
        stem=block(3, 6),
        left=conv(6, 4),
        right=conv(6, 8),
        norm=nn.GroupNorm(4, 12),
        tail=block(12, 8),
        head=head(8),
    )
