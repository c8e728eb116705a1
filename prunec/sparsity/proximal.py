"""Proximal step of gates under a budget: max(v − λ·c/F̂, 0) with the smallest λ that meets it."""

from __future__ import annotations

import torch
from torch import Tensor

from prunec.sparsity.gated_macs import Gated
from prunec.sparsity.mac_budget import Price, first_block

ROUNDS, PARTS = 8, 8  # 2²⁴ parts of λ's range: what float32 weights can tell apart
ROUNDS_AT_ONCE, PARTS_AT_ONCE = 4, 64  # as many, by half the launches and four times the sums
LEAST = 1e-30  # in place of 0 where it divides: far below any cost or gradient


def proximal(
    gated: Gated,
    v: Tensor,
    fisher: Tensor,
    target: Tensor,
    price: Price,
    marginal: Price,
    block: int,
) -> Tensor:
    """Return max(v − λ·c/F̂, 0), [gates], with the smallest λ ≥ 0 that meets the target.

    Closing a gate costs the loss about ½·F̂ and saves c, so gates whose cost is worth least close
    first; the strongest block of every group is never pulled. λ is found by bisection, without a
    wait for the device.

    Args:
        gated: the gates.
        v: gates after their gradient step, at least 0, float64 [gates].
        fisher: F̂ of each gate, mean square of its gradient.
        target: cost that is allowed, a number.
        price: cost of the network by its counts.
        marginal: cost of one more channel of each group by counts, c.
        block: channels are kept in blocks of so many.
    """
    cost = marginal(gated.counts(v > 0))[gated.group_of]
    pull = cost / cost.mean().clamp(min=LEAST) / fisher
    pull = torch.where(first_block(gated, v / pull, block), 0.0, pull)

    shipped = gated.shipping(block, gated.positions.dtype)

    def costs(strengths: Tensor) -> Tensor:
        return price(shipped(gated.counts(v > strengths[:, None] * pull)))

    # Several bisections at once, by all they might try: launches take the time, not sums.
    on_cpu = v.device.type == "cpu"
    rounds, count = (ROUNDS, PARTS) if on_cpu else (ROUNDS_AT_ONCE, PARTS_AT_ONCE)
    parts = torch.arange(count + 1, dtype=v.dtype, device=v.device) / count
    low, high = torch.zeros_like(target), torch.where(pull > 0, v / pull, 0.0).max()
    met = costs(low[None])[0] <= target
    for _ in range(rounds):
        tried = torch.lerp(low, high, parts)
        above = (costs(tried[1:-1]) > target).sum()  # costs fall as λ grows
        pair = torch.stack([above, above + 1])  # tried[above] would wait for the device
        low, high = tried.index_select(0, pair).unbind()
    return torch.where(met, v, (v - high * pull).clamp(min=0))
