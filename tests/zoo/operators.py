"""Nets awkward in the operators between their kernels, each of which sees every channel alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.parts import Net, block, conv, head, linear_block, member


@member((3, 8, 8))
def pooled_with_places() -> nn.Module:
    """Maxima are put back where they stood; adaptive maxima, whose places nobody asks for."""

    def rule(m: Net, x: Tensor) -> Tensor:
        pooled, places = F.max_pool2d(m.stem(x), 2, return_indices=True)
        unpooled = F.max_unpool2d(F.relu(m.inner(pooled)), places, 2)
        return m.head(m.tail(F.adaptive_max_pool2d(unpooled, 5)).relu())

    return Net(rule, stem=block(3, 8), inner=conv(8, 8), tail=conv(8, 6), head=head(6))


@member((3, 8, 8))
def statistics_beside_means() -> nn.Module:
    """Statistics pooling of a speaker or style network: means, then deviations."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        variance, mean = torch.var_mean(x, (2, 3), keepdim=True)
        x = m.inner((x - mean) / (variance + 1e-3).sqrt()).sigmoid()
        summed = x.flatten(2)
        most = summed.topk(3, dim=2).values.mean(2)
        return m.classify(torch.cat([summed.mean(2), summed.std(2), most], 1))

    return Net(rule, stem=block(3, 8), inner=conv(8, 6), classify=nn.Linear(18, 5))


@member((3, 8, 8))
def compared_and_chosen() -> nn.Module:
    """Masks made of comparisons, flags of channels that are stored, a choice of two branches."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = torch.where((x > 0.2) & ~(x > 2.0), x, 0.1 * x)
        peaks = x * (x == F.max_pool2d(x, 3, 1, 1))
        left, right = m.left(peaks), m.right(x)
        x = torch.where(left > right, left, right).masked_fill(m.flags[None, :, None, None], 0.0)
        return m.head(m.tail(x).relu())

    net = Net(
        rule, stem=linear_block(3, 8), left=conv(8, 6), right=conv(8, 6), tail=conv(6, 6),
        head=head(6),
    )  # fmt: skip
    net.register_buffer("flags", torch.arange(6) == 2)
    return net


@member((3, 8, 8))
def multiplied_and_added() -> nn.Module:
    """addcmul, and activations of rarer names; in evaluation one of them draws no slopes."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = F.logsigmoid(m.stem(x))
        x = torch.addcmul(x, m.scale, m.inner(F.rrelu(x)), value=0.5)
        return m.head(m.tail(torch.addcdiv(x, x, x.abs() + 1.0)).relu())

    return Net(
        rule,
        stem=linear_block(3, 8),
        inner=conv(8, 8),
        scale=nn.Parameter(torch.rand(8, 1, 1)),
        tail=conv(8, 6),
        head=head(6),
    )


@member((3, 8, 8))
def sampled_by_a_flow() -> nn.Module:
    """A feature map looked at in other places, which it says itself; then made smaller."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x).sigmoid()
        flow = m.flow(x).permute(0, 2, 3, 1).tanh()
        x = F.grid_sample(x, flow, align_corners=False)
        return m.head(m.tail(F.interpolate(x, (5, 4), mode="bilinear", antialias=True)).relu())

    return Net(
        rule, stem=linear_block(3, 8), flow=nn.Conv2d(8, 2, 3, padding=1), tail=conv(8, 6),
        head=head(6),
    )  # fmt: skip


@member((3, 8, 8))
def written_at_fixed_places() -> nn.Module:
    """Channels put among zeros by steps, by numbers and by an expanded index."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        apart = torch.zeros_like(x)
        apart[:, ::2] = x[:, 1::2] * 2.0
        apart[:, 1::2] = x[:, ::2]
        wide = x.new_zeros(x.shape[0], 12, 8, 8)
        wide[:, torch.tensor([1, 2, 5, 7, 8, 11, 0, 4])] = apart
        order = torch.arange(11, -1, -1).view(1, 12, 1, 1).expand(x.shape[0], 12, 8, 8)
        return m.head(m.tail(wide.gather(1, order)).relu())

    return Net(rule, stem=block(3, 8), tail=conv(12, 6), head=head(6))


@member((3, 8, 8))
def one_group_norm() -> nn.Module:
    """A norm over all channels: what it reads stays, what it feeds does not have to."""
    norm = nn.GroupNorm(1, 6)
    return nn.Sequential(block(3, 8), conv(8, 6), norm, nn.ReLU(), block(6, 8), head(8))


@member((3, 8, 8))
def windows_put_together() -> nn.Module:
    """Unfolded, weighed and folded again; one triangle, turned, of what comes out."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.inner(F.unfold(m.stem(x), 2, stride=2)).relu()
        x = F.fold(x, (8, 8), 2, stride=2)
        return m.head(m.tail(torch.rot90(x.tril(), 1, (2, 3)).diff(dim=3)).relu())

    return Net(rule, stem=block(3, 4), inner=nn.Conv1d(16, 24, 1), tail=conv(6, 6), head=head(6))
