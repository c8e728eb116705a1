"""Nets awkward because their channels are features of a sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.parts import Net, block, head, linear_block, member


def _projections() -> dict[str, nn.Module]:
    """Parts of attention over the pixels of a stem; their order determines the random weights."""
    stem = block(3, 8, stride=2)
    named = {name: nn.Linear(8, 8) for name in ("q", "k", "v", "out")}
    return {"stem": stem, **named, "head": nn.Linear(8, 5)}


@member((3, 8, 8))
def attention() -> nn.Module:
    """Self-attention over the pixels, its heads cut out of the channels by a view."""

    def rule(m: Net, x: Tensor) -> Tensor:
        tokens = m.stem(x).flatten(2).transpose(1, 2)
        n, length, width = tokens.shape
        q, k, v = (p(tokens).view(n, length, 2, -1).transpose(1, 2) for p in (m.q, m.k, m.v))
        mixed = (q @ k.transpose(-1, -2) * 0.5).softmax(-1) @ v
        tokens = tokens + m.out(mixed.transpose(1, 2).reshape(n, length, width))
        return m.head(tokens.mean(1))

    return Net(rule, **_projections())


@member((3, 8, 8))
def attention_module() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        tokens = m.norm(m.stem(x).flatten(2).transpose(1, 2))
        mixed, _ = m.attention(tokens, tokens, tokens, need_weights=False)
        return m.head((tokens + m.mlp(mixed)).mean(1))

    return Net(
        rule,
        stem=block(3, 8, stride=2),
        norm=nn.LayerNorm(8),
        attention=nn.MultiheadAttention(8, 2, batch_first=True),
        mlp=nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8)),
        head=nn.Linear(8, 5),
    )


@member((3, 8, 8))
def channel_attention() -> nn.Module:
    """A matrix product whose two sides both carry channels."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x)
        flat = m.left(x).flatten(2)
        gram = torch.bmm(flat, m.right(x).flatten(2).transpose(1, 2)) / 64.0
        return m.head(x) + m.tail(gram.flatten(1))

    return Net(
        rule,
        stem=block(3, 8),
        left=linear_block(8, 4, 1),
        right=linear_block(8, 6, 1),
        tail=nn.Linear(24, 5),
        head=head(8),
    )


@member((3, 8, 8))
def class_token() -> nn.Module:
    """A learnt token and a learnt position are joined with what a convolution makes."""

    def rule(m: Net, x: Tensor) -> Tensor:
        tokens = m.stem(x).flatten(2).transpose(1, 2)
        first = m.token.expand(tokens.shape[0], -1, -1)
        tokens = m.position + torch.cat([first, tokens], 1)
        return m.head(tokens[:, 0] + m.mix(F.relu(tokens)).mean(1))

    return Net(
        rule,
        stem=block(3, 8, stride=2),
        token=nn.Parameter(torch.randn(1, 1, 8)),
        position=nn.Parameter(torch.randn(1, 17, 8)),
        mix=nn.Linear(8, 8),
        head=nn.Linear(8, 5),
    )


@member((6,))
def tied_embedding() -> nn.Module:
    """The table that looks words up also scores them, behind factors of which one is 0."""

    def rule(m: Net, numbers: Tensor) -> tuple[Tensor, Tensor]:
        x = m.table((numbers.abs() * 4).long().clamp(max=10))
        return m.scores(x * m.factor), m.last(F.relu(x))

    table, scores = nn.Embedding(11, 8), nn.Linear(8, 11, bias=False)
    scores.weight = table.weight
    factor = nn.Parameter(torch.tensor([1.0, 0.5, 0.0, 2.0, 0.7, 0.0, 1.0, 1.5]))
    return Net(rule, table=table, scores=scores, factor=factor, last=nn.Linear(8, 5))


@member((3, 8, 8))
def attention_of_one_projection() -> nn.Module:
    """Queries, keys and values from one linear layer, taken apart by a view, as in ViT."""

    def rule(m: Net, x: Tensor) -> Tensor:
        tokens = m.stem(x).flatten(2).transpose(1, 2)
        n, length, _ = tokens.shape
        q, k, v = m.three(tokens).reshape(n, length, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return m.head((tokens + m.out(mixed.reshape(n, length, 8))).mean(1))

    return Net(
        rule,
        stem=block(3, 8, stride=2),
        three=nn.Linear(8, 24),
        out=nn.Linear(8, 8),
        head=nn.Linear(8, 5),
    )


@member((3, 8, 8))
def attention_by_einsum() -> nn.Module:
    def rule(m: Net, x: Tensor) -> Tensor:
        tokens = m.stem(x).flatten(2).transpose(1, 2)
        q, k, v = (p(tokens).unflatten(-1, (2, 4)) for p in (m.q, m.k, m.v))
        share = torch.einsum("nqhd,nkhd->nhqk", q, k).softmax(-1)
        mixed = torch.einsum("nhqk,nkhd->nqhd", share, v).flatten(2)
        return m.head((tokens + m.out(mixed)).mean(1))

    return Net(rule, **_projections())


@member((3, 8, 8))
def position_bias() -> nn.Module:
    """Scores with a bias that a small network makes of a table of places, as in Swin V2."""

    def rule(m: Net, x: Tensor) -> Tensor:
        tokens = m.stem(x).flatten(2).transpose(1, 2)
        n, length, width = tokens.shape
        q, k, v = (p(tokens).view(n, length, 2, -1).transpose(1, 2) for p in (m.q, m.k, m.v))
        places = m.position(m.table).view(length, length, 2).permute(2, 0, 1).contiguous()
        mixed = (q @ k.transpose(-1, -2) + places.unsqueeze(0)).softmax(-1) @ v
        return m.head((tokens + m.out(mixed.transpose(1, 2).reshape(n, length, width))).mean(1))

    position = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 2, bias=False))
    net = Net(rule, position=position, **_projections())
    net.register_buffer("table", torch.randn(1, 16, 16, 2))
    return net


@member((3, 8, 8))
def shifted_windows() -> nn.Module:
    """Windows of 2×2 pixels become sequences, after a roll, and pixels again, as in Swin."""

    def rule(m: Net, x: Tensor) -> Tensor:
        x = m.stem(x).permute(0, 2, 3, 1)
        y = x.roll((-1, -1), (1, 2))
        n, h, w, c = y.shape
        y = y.view(n, h // 2, 2, w // 2, 2, c).transpose(2, 3).reshape(-1, 4, c)
        y = m.narrow(F.gelu(m.wide(y)))
        y = y.view(n, h // 2, w // 2, 2, 2, c).transpose(2, 3).reshape(n, h, w, c)
        x = x + y.roll((1, 1), (1, 2))
        return m.head(x.mean((1, 2)))

    return Net(
        rule,
        stem=block(3, 8, stride=2),
        wide=nn.Linear(8, 12),
        narrow=nn.Linear(12, 8),
        head=nn.Linear(8, 5),
    )


@member((3, 8, 8))
def mixer() -> nn.Module:
    """A map over the tokens, then one over the channels."""

    def rule(m: Net, x: Tensor) -> Tensor:
        tokens = m.stem(x).flatten(2)
        tokens = tokens + m.narrow(F.gelu(m.wide(tokens)))
        tokens = tokens.transpose(1, 2)
        return m.head((tokens + m.out(F.gelu(m.inner(tokens)))).mean(1))

    return Net(
        rule,
        stem=block(3, 8, stride=2),
        wide=nn.Linear(16, 10),
        narrow=nn.Linear(10, 16),
        inner=nn.Linear(8, 12),
        out=nn.Linear(12, 8),
        head=nn.Linear(8, 5),
    )


@member((7,))
def embedding() -> nn.Module:
    """Words and their places; a convolution over time reads both."""

    def rule(m: Net, x: Tensor) -> Tensor:
        words = (x * 3).long().clamp(-8, 7) + 8
        places = torch.arange(7, device=x.device)
        tokens = m.words(words) + m.places(places)
        return m.head(F.relu(m.body(tokens.transpose(1, 2))).mean(2))

    return Net(
        rule,
        words=nn.Embedding(16, 8),
        places=nn.Embedding(7, 8),
        body=nn.Conv1d(8, 6, 3, padding=1),
        head=nn.Linear(6, 3),
    )
