"""Scaled dot-product attention; a head is kept or removed as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from prunec.graph.capture.node import Node
from prunec.graph.channels.builder import Builder
from prunec.graph.channels.family import Family
from prunec.graph.channels.layouts import broadcast, one_value
from prunec.graph.channels.operator import Known, Mark, Writer, Written
from prunec.graph.channels.operators.letters import channels, tie
from prunec.graph.channels.weights import Weights


@dataclass(frozen=True, eq=False)
class Attention(Family):
    """softmax(scale·query·keyᵀ)·values for each head (Vaswani et al., 2017)."""

    names = ("scaled_dot_product_attention",)

    node: Node
    query: Node
    key: Node
    values: Node
    scale: float

    @classmethod
    def visit(cls, builder: Builder, node: Node) -> None:
        """Tie the heads of all operands; without heads, tie queries and keys entry by entry."""
        named = node.arguments
        query, key, values = named["query"], named["key"], named["value"]
        rank = len(query.shape)
        heads = {n.shape[:-2] for n in (query, key, values)}
        # Grouped queries share keys between heads, so heads cannot be cut one by one.
        if len(heads) > 1 or named.get("enable_gqa"):
            why = f"attention at {node.name} shares its keys"
            builder.refuse(node, [query, key, values], why)
            return
        depth = query.shape[-1]
        # 1/√d: Vaswani et al. 2017 (arXiv:1706.03762), and torch's default
        scale = depth**-0.5 if named.get("scale") is None else float(named["scale"])
        met = _tie_heads(builder, (query, key, values))
        if any(set(builder.axes(operand)) - set(met) for operand in (query, key)):
            _tie_depth(builder, query, key)
        why = f"attention at {node.name} runs over channels"
        seen = builder.outside(values, [rank - 2], why)
        if seen is None:
            builder.refuse(node, [query, key, values], why)
            return
        mask = named.get("attn_mask")
        if isinstance(mask, Node) and met:
            _tie_mask(builder, mask, seen, met)
        builder.bind(cls(node, query, key, values, scale), seen)

    def value(self, known: Known, weights: Weights) -> Tensor:
        """Return values that are the same at all positions: attention weights sum to 1."""
        value = known[self.values]
        return value if value.shape[-2] == 1 else one_value(value, value.dim() - 2)

    def read(self, live: Tensor, known: Known, weights: Weights, mark: Mark) -> None:
        """Mark every head with a live position as a whole."""
        mark(self.values, live.any(-2, keepdim=True))
        heads = live.flatten(-2).any(-1)[..., None, None]
        mark(self.query, heads)
        mark(self.key, heads)

    def emit(self, writer: Writer) -> Written:
        """Write the scale as a literal: its default, depth^−½, would change with the cut depth."""
        return writer.call(self.node, scale=self.scale)


def _tie_heads(builder: Builder, operands: tuple[Node, Node, Node]) -> list[int]:
    """Join the operands' channels along their batch axes; return these axes."""
    rank = len(operands[0].shape)
    met = [i for i in range(rank - 2) if any(i in builder.axes(n) for n in operands)]
    if met:
        layouts = [builder.coarsen(builder.layout(n), met) for n in operands]
        shape = broadcast(*[tuple(layout.shape) for layout in layouts])
        for layout in layouts[1:]:
            builder.join(layouts[0].expand(shape), layout.expand(shape))
    return met


def _tie_mask(builder: Builder, mask: Node, layout: Tensor, met: list[int]) -> None:
    """Join a mask that differs by head with the heads."""
    lead = [1] * (layout.dim() - len(mask.shape))
    real = lead + list(mask.shape)
    if any(real[i] > 1 for i in met):
        theirs = builder.layout(mask)
        theirs = builder.coarsen(theirs.reshape(lead + list(theirs.shape)), met)
        mine = builder.coarsen(layout, met)
        shape = broadcast(tuple(mine.shape), tuple(theirs.shape))
        builder.join(mine.expand(shape), theirs.expand(shape))


def _tie_depth(builder: Builder, query: Node, key: Node) -> None:
    """Join the entries of queries and keys along their last axis."""
    letters = "abcdefgh"[: len(query.shape) - 2]
    sides = ((query, letters + "yz"), (key, letters + "xz"))
    met = sorted({c for side in sides for c in channels(builder, side) & {"z"}})
    if met:
        tie(builder, sides, met)
