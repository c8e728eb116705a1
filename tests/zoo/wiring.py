"""Nets awkward in how their layers are wired."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.parts import Net, Net2, block, conv, head, linear_block, member


@member((3, 8, 8))
def chain() -> nn.Module:
    return nn.Sequential(block(3, 8), block(8, 12, stride=2), block(12, 10), head(10))


@member((3, 8, 8))
def chain_with_bias_no_norm() -> nn.Module:
    layers = (conv(3, 8, bias=True), nn.ReLU(), conv(8, 12, bias=True), nn.ReLU())
    return nn.Sequential(*layers, conv(12, 6, bias=True), nn.ReLU(), head(6))


@member((3, 8, 8))
def norm_without_relu() -> nn.Module:
    return nn.Sequential(linear_block(3, 8), linear_block(8, 10), linear_block(10, 8), head(8))


@member((3, 8, 8))
def residual() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = F.relu(x + m.first(x))
        return m.head(F.relu(x + m.second(x)))

    return Net(
        rule,
        stem=block(3, 8),
        first=nn.Sequential(block(8, 12), linear_block(12, 8)),
        second=nn.Sequential(block(8, 6), linear_block(6, 8)),
        head=head(8),
    )


@member((3, 8, 8))
def projection() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(F.relu(m.body(x) + m.shortcut(x)))

    return Net(
        rule,
        stem=block(3, 8),
        body=nn.Sequential(block(8, 10, stride=2), linear_block(10, 16)),
        shortcut=linear_block(8, 16, 1, stride=2),
        head=head(16),
    )


@member((3, 8, 8))
def residual_before_activation() -> nn.Module:
    """The stream is read both raw (by the sum) and after norm and ReLU (by the branch)."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        x = x + m.first(F.relu(m.norm1(x)))
        x = x + m.second(F.relu(m.norm2(x)))
        return m.head(F.relu(x))

    return Net(
        rule,
        stem=conv(3, 8),
        norm1=nn.BatchNorm2d(8),
        first=nn.Sequential(block(8, 10), conv(10, 8)),
        norm2=nn.BatchNorm2d(8),
        second=nn.Sequential(block(8, 6), conv(6, 8)),
        head=head(8),
    )


@member((3, 8, 8))
def concat() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(m.tail(torch.cat([m.left(x), x, m.right(x)], 1)))

    return Net(
        rule,
        stem=block(3, 6),
        left=block(6, 8),
        right=linear_block(6, 10, 1),
        tail=block(24, 8),
        head=head(8),
    )


@member((3, 8, 8))
def nested_concat() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        a = m.a(x)
        b = m.b(torch.cat([x, a], 1))
        inner = torch.cat([b, a], 1)
        c = m.c(inner)
        return m.head(torch.cat([c, inner, torch.cat([a, c], 1)], 1))

    return Net(rule, a=block(3, 6), b=block(9, 8), c=block(14, 6), head=head(32))


@member((3, 8, 8))
def concat_added() -> nn.Module:
    """A concatenation meets a sum: its two producers are joined with halves of a third."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(F.relu(torch.cat([m.left(x), m.right(x)], 1) + m.whole(x)))

    return Net(
        rule,
        stem=block(3, 6),
        left=linear_block(6, 4),
        right=linear_block(6, 8),
        whole=linear_block(6, 12),
        head=head(12),
    )


@member((8, 8, 8))
def shared_module() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        return m.head(m.same(m.same(m.stem(x))))

    return Net(rule, stem=block(8, 8), same=block(8, 8), head=head(8))


@member((6, 8, 8))
def shared_on_two_branches() -> nn.Module:
    """One convolution reads two different producers, which are thereby joined."""

    def rule(m: Net, x: Tensor) -> Tensor:
        return m.head(torch.cat([m.same(m.left(x)), m.same(m.right(x))], 1))

    return Net(rule, left=block(6, 8), right=linear_block(6, 8, 1), same=block(8, 6), head=head(12))


@member((3, 8, 8))
def two_heads() -> nn.Module:
    def rule(m: Net, x: Tensor) -> tuple[Tensor, Tensor]:
        x = m.stem(x)
        return m.classes(m.body(x)), m.pixels(x)

    return Net(rule, stem=block(3, 8), body=block(8, 8), classes=head(8), pixels=conv(8, 4, 1))


@member((3, 8, 8), (5, 8, 8))
def two_inputs() -> nn.Module:
    def rule(m: Net, x: Tensor, y: Tensor) -> Tensor:
        return m.head(m.tail(m.left(x) + m.right(y)))

    return Net2(rule, left=block(3, 8), right=linear_block(5, 8), tail=block(8, 10), head=head(10))


@member((3, 8, 8))
def dict_output() -> nn.Module:
    def rule(m: Net, x: Tensor) -> dict[str, object]:
        x = m.stem(x)
        deep = m.body(x)
        return {"logits": m.head(deep), "features": [x, deep.mean((2, 3))]}

    return Net(rule, stem=block(3, 8), body=nn.Sequential(block(8, 10), block(10, 6)), head=head(6))


@member((3, 8, 8))
def dead_branch() -> nn.Module:
    """A branch whose result nobody uses, and one multiplied by zero."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        m.unused(x)
        return m.head(m.tail(x) + 0.0 * m.zeroed(x))

    return Net(
        rule,
        stem=block(3, 8),
        unused=block(8, 12),
        zeroed=block(8, 6),
        tail=block(8, 6),
        head=head(6),
    )


@member((3, 8, 8))
def output_is_hidden() -> nn.Module:
    """The feature map itself is an output: none of its channels may go."""

    def rule(m: Net, x: Tensor) -> Tensor:
        return m.tail(m.stem(x))

    return Net(rule, stem=nn.Sequential(block(3, 8), block(8, 10)), tail=linear_block(10, 6))


@member((3, 8, 8), (3, 4, 4))
def two_inputs_dict_output() -> nn.Module:
    """A siamese pair: one trunk for both inputs, whose sizes differ."""

    def rule(m: Net, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        a, b = m.trunk(x).mean((2, 3)), m.trunk(y).mean((2, 3))
        return {"same": m.same((a - b).abs()), "first": m.first(a)}

    return Net2(
        rule,
        trunk=nn.Sequential(block(3, 8), block(8, 10)),
        same=nn.Linear(10, 1),
        first=nn.Linear(10, 4),
    )
