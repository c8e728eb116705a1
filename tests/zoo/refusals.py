"""Nets whose operators mix channels in ways that a cut would change: what they mix must stay."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.parts import Net, block, conv, head, linear_block, member


def _between(rule: object) -> nn.Module:
    """A rule over 10 channels between two convolutions; those before and after it are free."""

    def forward(m: Net, x: Tensor) -> Tensor:
        return m.head(m.tail(rule(m.body(m.stem(x)))))  # type: ignore[operator]

    parts = {"stem": block(3, 8), "body": linear_block(8, 10), "tail": block(10, 8)}
    return Net(forward, **parts, head=head(8))


@member((3, 8, 8))
def local_response_norm() -> nn.Module:
    """A window that runs over neighbouring channels, as the first AlexNet has it."""
    return _between(lambda x: F.local_response_norm(x, 3, alpha=0.5))


@member((3, 8, 8))
def unit_length_over_channels() -> nn.Module:
    return _between(lambda x: F.normalize(x, dim=1))


@member((3, 8, 8))
def running_sum_over_channels() -> nn.Module:
    return _between(lambda x: x.cumsum(1))


@member((3, 8, 8))
def largest_channel() -> nn.Module:
    return _between(lambda x: x - x.amax(1, keepdim=True))


@member((3, 8, 8))
def sorted_channels() -> nn.Module:
    return _between(lambda x: x.sort(1).values)


@member((3, 8, 8))
def window_over_channels() -> nn.Module:
    """Channels become the depth of a volume that is pooled."""
    return _between(lambda x: F.max_pool3d(x.unsqueeze(1), 3, 1, 1).squeeze(1))


@member((3, 8, 8))
def channels_as_pixels() -> nn.Module:
    """The channel axis changes place with the height, and a convolution runs along it."""
    return Net(
        lambda m, x: m.head(m.tail(m.body(m.stem(x)).transpose(1, 2))),
        stem=block(3, 6),
        body=block(6, 8),
        tail=block(8, 6),
        head=head(6),
    )


@member((3, 8, 8))
def product_with_a_parameter() -> nn.Module:
    """A linear map written as a product, its weight stored the other way round."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x).mean((2, 3))
        return m.last(F.relu(x @ m.weight + m.shift))

    return Net(
        rule,
        stem=nn.Sequential(block(3, 6), block(6, 8)),
        weight=nn.Parameter(torch.randn(8, 10) * 0.4),
        shift=nn.Parameter(torch.randn(10) * 0.3),
        last=nn.Linear(10, 5),
    )


@member((3, 8, 8))
def einsum_with_a_parameter() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        return m.head(F.relu(torch.einsum("nchw,oc->nohw", m.stem(x), m.weight)))

    weight = nn.Parameter(torch.randn(10, 8) * 0.4)
    return Net(rule, stem=block(3, 8), weight=weight, head=head(10))


@member((3, 8, 8))
def weight_norm() -> nn.Module:
    """The kernel is computed from a direction and a length."""
    body = nn.utils.parametrizations.weight_norm(conv(8, 10, bias=True))
    return nn.Sequential(block(3, 8), body, nn.ReLU(), block(10, 8), head(8))


@member((3, 8, 8))
def standardised_weight() -> nn.Module:
    """The kernel loses its mean and spread before every use: its zeros are not zeros."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        w = m.body.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-3)
        return m.head(F.relu(F.conv2d(x, w * 0.1, padding=1)))

    return Net(rule, stem=block(3, 8), body=conv(8, 10), head=head(10))


@member((3, 8, 8))
def interleaved_by_stack() -> nn.Module:
    """Two producers' channels alternate."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(m.tail(torch.stack([m.left(x), m.right(x)], 2).flatten(1, 2)))

    return Net(
        rule,
        stem=block(3, 6),
        left=block(6, 8),
        right=linear_block(6, 8),
        tail=block(16, 8),
        head=head(8),
    )


@member((3, 8, 8))
def unbound_channels() -> nn.Module:
    """Single channels by name, some used twice and one not at all."""

    def rule(m: Net, x: Tensor) -> Tensor:
        a, b, _, d, e, f = m.stem(x).unbind(1)
        return m.head(m.tail(torch.stack([f, a, b * d, a, e.sigmoid()], -3)))

    return Net(rule, stem=linear_block(3, 6), tail=block(5, 8), head=head(8))


@member((3, 8, 8))
def preprocessing_inside() -> nn.Module:
    """Means and deviations of the input's channels as buffers."""

    def rule(m: Net, x: Tensor) -> Tensor:
        return m.head(m.body((x - m.mean) / m.deviation))

    net = Net(rule, body=nn.Sequential(block(3, 8), block(8, 8)), head=head(8))
    net.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
    net.register_buffer("deviation", torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1))
    return net


@member((3, 8, 8))
def shared_norm() -> nn.Module:
    """One batch norm behind two convolutions, which are thereby joined."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        a, b = m.norm(m.left(x)), m.norm(m.right(x))
        return m.head(m.tail(torch.cat([F.relu(a), b], 1)))

    return Net(
        rule,
        stem=block(3, 6),
        left=conv(6, 8),
        right=conv(6, 8, 1),
        norm=nn.BatchNorm2d(8),
        tail=block(16, 8),
        head=head(8),
    )


@member((3, 8, 8))
def overwritten_shortcut() -> nn.Module:
    """The first ReLU writes in place, so that the shortcut adds what it left behind."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x) * 1.0
        y = m.body(F.relu_(x))
        return m.head(F.relu(y + x))

    return Net(rule, stem=linear_block(3, 8), body=linear_block(8, 8), head=head(8))


@member((3, 8, 8))
def outer_sum() -> nn.Module:
    """Every channel of one meets every channel of another."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x).mean((2, 3))
        pairs = F.relu(m.left(x).unsqueeze(2) + m.right(x).unsqueeze(1))
        return m.last(pairs.flatten(1))

    return Net(
        rule,
        stem=block(3, 8),
        left=nn.Linear(8, 4),
        right=nn.Linear(8, 5),
        last=nn.Linear(20, 5),
    )


@member((3, 8, 8))
def two_convolutions_one_weight() -> nn.Module:
    """The same kernel at two dilations."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        near = F.conv2d(x, m.body.weight, padding=1)
        far = F.conv2d(x, m.body.weight, padding=2, dilation=2)
        return m.head(F.relu(m.norm(near) + far))

    return Net(rule, stem=block(3, 8), body=conv(8, 10), norm=nn.BatchNorm2d(10), head=head(10))


@member((3, 8, 8))
def weighted_sum_of_stages() -> nn.Module:
    """A softmax over a few learnt numbers mixes whole maps, as feature pyramids do."""

    def rule(m: Net, x: Tensor) -> Tensor:
        a = m.first(x)
        b = m.second(a)
        share = m.share.softmax(0)
        return m.head(m.tail(share[0] * a + share[1] * b))

    share = nn.Parameter(torch.tensor([0.3, -0.2]))
    return Net(
        rule,
        first=block(3, 8),
        second=linear_block(8, 8),
        share=share,
        tail=block(8, 6),
        head=head(6),
    )


@member((3, 8, 8))
def kernel_read_by_arithmetic() -> nn.Module:
    """A kernel whose weight is summed up as well, as a penalty is."""

    def rule(m: Net, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.conv2d(torch.sigmoid(m.stem(x)), m.weight, padding=1)
        return m.head(y), m.weight.square().mean((0, 2, 3)) * x.mean()

    weight = nn.Parameter(torch.randn(10, 8, 3, 3) * 0.2)
    return Net(rule, stem=linear_block(3, 8), weight=weight, head=head(10))


@member((3, 8, 8))
def layer_without_its_bias() -> nn.Module:
    """A linear map of a layer's weight alone; its bias is nobody's."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = torch.sigmoid(m.stem(x)).mean((2, 3))
        return m.last(F.relu(F.linear(x, m.hidden.weight)))

    return Net(rule, stem=linear_block(3, 8), hidden=nn.Linear(8, 10), last=nn.Linear(10, 5))


@member((3, 8, 8))
def bias_partly_zeroed() -> nn.Module:
    """Swin V2: a layer's bias enters with a part of it set to zero, so it is not the layer's."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = torch.sigmoid(m.stem(x)).mean((2, 3))
        bias = m.hidden.bias.clone()
        bias[3:6].zero_()
        return m.last(torch.sigmoid(F.linear(x, m.hidden.weight, bias)))

    return Net(rule, stem=linear_block(3, 8), hidden=nn.Linear(8, 10), last=nn.Linear(10, 5))


@member((3, 9, 9))
def one_weight_two_strides() -> nn.Module:
    """Two convolutions without a bias or a border share a weight, and are called differently."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = torch.sigmoid(m.stem(x))
        near, far = m.body(x), F.conv2d(x, m.body.weight, stride=2)
        return m.head(F.relu(near)) + m.other(F.relu(far))

    body = conv(8, 8, padding=0)
    return Net(rule, stem=linear_block(3, 8), body=body, head=head(8), other=head(8))
