"""Nets awkward at the borders of their images, where a constant stops being uniform."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.parts import Net, block, conv, head, linear_block, member


def _activated(activation: nn.Module) -> nn.Module:
    """The activation gives constants that are not 0 to a reader that pads with 0."""
    first = nn.Sequential(linear_block(3, 10), activation)
    return nn.Sequential(first, linear_block(10, 8), activation, conv(8, 6, bias=True), head(6))


@member((3, 8, 8))
def sigmoid_border() -> nn.Module:
    return _activated(nn.Sigmoid())


@member((3, 8, 8))
def softplus_border() -> nn.Module:
    return _activated(nn.Softplus())


@member((3, 8, 8))
def hardsigmoid_border() -> nn.Module:
    return _activated(nn.Hardsigmoid())


@member((3, 8, 8))
def swish_border() -> nn.Module:
    return _activated(nn.Hardswish())


@member((3, 8, 8))
def border_not_padded() -> nn.Module:
    """Readers that do not pad: constants fold into biases that were not there."""
    first = nn.Sequential(linear_block(3, 10), nn.Sigmoid(), conv(10, 8, padding=0))
    return nn.Sequential(first, nn.ReLU(), conv(8, 6, padding=0), nn.Softplus(), head(6))


def _padded(mode: str) -> nn.Module:
    return nn.Sequential(
        linear_block(3, 10), nn.Sigmoid(), conv(10, 8, padding_mode=mode), nn.ReLU(), head(8)
    )


@member((3, 8, 8))
def reflect_padding() -> nn.Module:
    return _padded("reflect")


@member((3, 8, 8))
def replicate_padding() -> nn.Module:
    return _padded("replicate")


@member((3, 8, 8))
def circular_padding() -> nn.Module:
    return _padded("circular")


@member((3, 8, 8))
def asymmetric_padding() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        x = torch.sigmoid(m.stem(x))
        return m.head(m.tail(F.pad(x, (0, 1, 2, 1))))

    return Net(rule, stem=linear_block(3, 8), tail=block(8, 8, padding=0, stride=2), head=head(8))


@member((3, 8, 8))
def padding_by_one() -> nn.Module:
    """A border of ones: uniform only for a channel that is constantly 1."""

    def rule(m: Net, x: Tensor) -> Tensor:
        return m.head(m.tail(F.pad(m.stem(x), (1, 1, 1, 1), value=1.0)))

    return Net(rule, stem=block(3, 8), tail=block(8, 8, padding=0), head=head(8))


@member((3, 8, 8))
def same_padding() -> nn.Module:
    """padding="same", which leaves the amount to the operator."""
    return nn.Sequential(
        linear_block(3, 8),
        nn.Sigmoid(),
        conv(8, 8, 4, padding="same", dilation=2),
        nn.ReLU(),
        conv(8, 6, 5, padding="same"),
        head(6),
    )


def _pooled(pool: nn.Module) -> nn.Module:
    """Constants that are not 0 (of either sign) pass a pooling before the reader."""
    first = nn.Sequential(linear_block(3, 8), nn.Softplus(), pool)
    second = nn.Sequential(linear_block(8, 10), pool)
    return nn.Sequential(first, second, conv(10, 6, padding=0, bias=True), head(6))


@member((3, 9, 9))
def average_counting_padding() -> nn.Module:
    return _pooled(nn.AvgPool2d(3, stride=1, padding=1))


@member((3, 9, 9))
def average_not_counting_padding() -> nn.Module:
    return _pooled(nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False))


@member((3, 16, 16))
def average_with_ceiling() -> nn.Module:
    return _pooled(nn.AvgPool2d(3, stride=2, ceil_mode=True))


@member((3, 16, 16))
def average_with_ceiling_and_padding() -> nn.Module:
    return _pooled(nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True))


@member((3, 8, 8))
def average_with_divisor() -> nn.Module:
    return _pooled(nn.AvgPool2d(2, stride=1, divisor_override=3))


@member((3, 12, 12))
def max_pool_with_ceiling() -> nn.Module:
    """Max pooling pads with −∞: negative constants stay what they are."""
    return _pooled(nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True))


@member((3, 10, 10))
def adaptive_pool() -> nn.Module:
    return nn.Sequential(
        linear_block(3, 8), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(8 * 16, 5)
    )


@member((3, 8, 8))
def transposed() -> nn.Module:
    return nn.Sequential(
        block(3, 8, stride=2),
        nn.ConvTranspose2d(8, 10, 3, stride=2, padding=1, output_padding=1),
        nn.BatchNorm2d(10),
        nn.Sigmoid(),
        nn.ConvTranspose2d(10, 6, 2, stride=2),
        nn.ReLU(),
        conv(6, 4),
        head(4),
    )


@member((3, 8, 8))
def transposed_grouped() -> nn.Module:
    return nn.Sequential(
        block(3, 8),
        nn.ConvTranspose2d(8, 12, 3, stride=2, padding=1, groups=4),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 12, 2, groups=12),
        nn.ReLU(),
        head(12),
    )


@member((3, 8, 8))
def bilinear() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        low = m.low(F.avg_pool2d(x, 2))
        up = F.interpolate(low, scale_factor=2, mode="bilinear", align_corners=False)
        return m.head(m.tail(x + up))

    return Net(rule, stem=block(3, 8), low=linear_block(8, 8), tail=block(8, 6), head=head(6))


@member((3, 8, 8))
def nearest() -> nn.Module:
    return nn.Sequential(
        block(3, 8, stride=2), nn.Upsample(scale_factor=2, mode="nearest"), block(8, 8), head(8)
    )


@member((3, 12))
def one_dimension() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 8, 3, padding=1),
        nn.BatchNorm1d(8),
        nn.Sigmoid(),
        nn.Conv1d(8, 10, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(10, 5),
    )


@member((2, 6, 6, 6))
def three_dimensions() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 6, 3, padding=1),
        nn.BatchNorm3d(6),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(6, 6, 3, padding=1, groups=2),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    )


@member((3, 9, 9))
def pooling_branch() -> nn.Module:
    """Inception: a branch averages, counting the padding, what another one convolves."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = torch.sigmoid(m.stem(x))
        pooled = m.pooled(F.avg_pool2d(x, 3, 1, 1))
        return m.head(torch.cat([m.straight(x), pooled], 1))

    return Net(
        rule, stem=linear_block(3, 10), straight=block(10, 6), pooled=block(10, 6, 1), head=head(12)
    )


@member((3, 8, 8))
def global_extremes() -> nn.Module:
    """The largest and the smallest of each channel, their places not asked for."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x).flatten(2)
        large, small = x.max(2)[0], x.min(dim=2, keepdim=True).values
        return m.last(torch.cat([large, small.squeeze(2)], 1))

    return Net(rule, stem=linear_block(3, 8), last=nn.Linear(16, 5))


@member((3, 8, 8))
def patches() -> nn.Module:
    """Unfold: a channel becomes nine rows of a matrix."""

    def rule(m: Net, x: Tensor) -> Tensor:
        columns = F.unfold(m.stem(x), 3, padding=1)
        return m.head(F.relu(m.mix(columns.transpose(1, 2))).mean(1))

    return Net(rule, stem=block(3, 6), mix=nn.Linear(54, 10), head=nn.Linear(10, 5))


@member((3, 8, 8))
def pixel_unshuffle() -> nn.Module:
    """Each channel becomes four of half the height and width."""
    return nn.Sequential(block(3, 4), nn.PixelUnshuffle(2), block(16, 8), head(8))


@member((3, 8, 8))
def pooled_context() -> nn.Module:
    """The mean of every channel, expanded over the image again beside what it is the mean of."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        context = m.context(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        small = F.interpolate(m.body(F.avg_pool2d(x, 2)), size=x.shape[2:], mode="bicubic")
        return m.head(m.tail(torch.cat([context, small], 1)))

    return Net(
        rule,
        stem=block(3, 8),
        context=nn.Conv2d(8, 6, 1),
        body=block(8, 6),
        tail=block(12, 8),
        head=head(8),
    )


@member((2, 4, 6, 6))
def space_then_time() -> nn.Module:
    """A volume's kernel taken apart into one of space and one of time, then depthwise."""
    return nn.Sequential(
        nn.Conv3d(2, 7, (1, 3, 3), padding=(0, 1, 1), bias=False),
        nn.BatchNorm3d(7),
        nn.ReLU(),
        nn.Conv3d(7, 6, (3, 1, 1), padding=(1, 0, 0)),
        nn.Sigmoid(),
        nn.Conv3d(6, 6, 3, padding=1, groups=6),
        nn.AvgPool3d(2),
        nn.Flatten(),
        nn.Linear(6 * 18, 5),
    )


@member((3, 12))
def transposed_in_one_dimension() -> nn.Module:
    """A codec: strided down and up again, dilated in between, depthwise with a multiplier."""
    return nn.Sequential(
        nn.Conv1d(3, 6, 4, stride=2, padding=1),
        nn.ELU(),
        nn.Conv1d(6, 12, 3, padding=2, dilation=2, groups=6),
        nn.Softplus(),
        nn.Conv1d(12, 8, 1),
        nn.ELU(),
        nn.ConvTranspose1d(8, 6, 4, stride=2, padding=1, dilation=1),
        nn.Tanh(),
        nn.Conv1d(6, 2, 3, padding=1),
    )


@member((2, 3, 5, 5))
def transposed_volume() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 6, 3, padding=1),
        nn.BatchNorm3d(6),
        nn.Sigmoid(),
        nn.ConvTranspose3d(6, 4, (1, 2, 2), stride=(1, 2, 2)),
        nn.ReLU(),
        nn.Conv3d(4, 2, 1),
    )


@member((3, 8, 8))
def dilated_and_transposed() -> nn.Module:
    return nn.Sequential(
        linear_block(3, 8, dilation=2, padding=2),
        nn.Softplus(),
        nn.ConvTranspose2d(8, 6, 3, stride=2, padding=2, dilation=2, output_padding=1),
        nn.Sigmoid(),
        conv(6, 8, padding=3, dilation=3, stride=2),
        nn.ReLU(),
        head(8),
    )
