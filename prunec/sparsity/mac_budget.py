"""Choice of channels within a budget of MACs or time: whole blocks, the most important of each
group.

For a budget of MACs the channels with I_c > t stay, I_c the importance by its mean over the group
of the channel. They solve max Σ w_g·I_c under Σ m_g ≤ budget, m_g the MACs of a channel of group g,
if a group weighs w_g = m_g. For a budget of time the price changes and the weights do not: the
channels with I_c·m_g/t_g > t stay, t_g the time of a channel. Both prices depend on the other
groups, so the budget falls in `STEPS` equal factors. Ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from prunec.errors import PassError
from prunec.sparsity.gated_macs import Gated
from prunec.sparsity.gated_times import GatedTimes

STEPS = 16  # of a budget of time
FLOOR = 0.1
"""Share of a group that a budget of time leaves at least. Times of narrow layers hardly fall with
their channels, and importance by the group's mean does not say what the last channels are worth."""

Price = Callable[[Tensor], Tensor]
"""Kept counts per group, (B,) or (…, B) → cost of the network."""


def require_reachable(
    name: str,
    gated: Gated,
    ratio: float,
    round_to: int,
    price: Price | None = None,
    key: str = "macs_ratio",
    least: Tensor | None = None,
) -> None:
    """Refuse networks without gated channels, and budgets that cannot be met.

    Args:
        name: name of the pass.
        gated: channels and their MACs.
        ratio: budget, as a share of the dense network's cost.
        round_to: channels per block.
        price: bounded cost; MACs by default.
        key: option of the budget.
        least: counts that stay at least, (B,); one block of every group by default.

    Raises:
        PassError: the budget cannot be met; the message says which can.
    """
    if not len(gated.sizes):
        raise PassError(
            f"{name} found no channel that a gate could stand before",
            remedy="prunec inspect says what pins them; else train with a pass that masks.",
        )
    price = price or gated.macs
    dense = float(price(gated.sizes.double()))
    ones = torch.ones(len(gated.sizes)).double()
    reached = float(price(gated.shipped(ones, round_to) if least is None else least)) / dense
    if reached > ratio:
        what = key.removesuffix("_ratio").replace("macs", "MACs")
        kept = (
            f"one block of {round_to} channels" if least is None else f"{FLOOR:.0%} of the channels"
        )
        raise PassError(
            f"{name}: {key} {ratio:g} cannot be reached: with {kept} in every group "
            f"{reached:.3f} of the {what} {'are' if what == 'MACs' else 'is'} left",
            remedy=f"Set {key} above {reached:.3f}, or a smaller round_to.",
        )


def first_block(gated: Gated, strength: Tensor, round_to: int) -> Tensor:
    """Return the strongest block of each group, bool (G,), which stays if the group ships at
    all.
    """
    return strongest(gated, strength, gated.blocks(round_to))


def strongest(gated: Gated, strength: Tensor, counts: Tensor) -> Tensor:
    """Return the strongest channels of each group, bool (G,), ``counts`` (B,) of them."""
    by_strength = torch.argsort(strength, descending=True, stable=True)
    # Stable, after the sort by strength: group by group, the strongest first.
    order = by_strength[torch.argsort(gated.group_of[by_strength], stable=True)]
    starts = torch.cumsum(gated.sizes, 0) - gated.sizes
    place = torch.arange(len(order), device=order.device)
    rank = torch.empty_like(order)
    rank[order] = place - starts[gated.group_of[order]]
    return rank < counts[gated.group_of]


def in_whole_blocks(gated: Gated, strength: Tensor, kept: Tensor, round_to: int) -> Tensor:
    """Return ``kept`` without the weakest channels beyond whole blocks of a group, bool (G,)."""
    wanted = gated.shipped(gated.counts(kept), round_to).long()
    left = kept.clone()
    for group in range(len(wanted)):
        own = torch.nonzero(gated.group_of == group).flatten()
        order = torch.argsort(strength[own], descending=True, stable=True)
        left[own[order[int(wanted[group]) :]]] = False
    return left


def most_important(
    gated: Gated, scores: Tensor, target: float, round_to: int, price: Price | None = None
) -> Tensor:
    """Return the channels above the smallest threshold of importance that meets the budget.

    The first block of every group stays. The threshold is one of the scores, found by bisection,
    because the cost of what ships does not rise with it.

    Args:
        gated: channels and their MACs.
        scores: importance, shape (G,); below 0 for channels that are already removed, infinite for
            those that stay.
        target: allowed cost, at least that of one block in every group.
        round_to: channels per block.
        price: bounded cost; MACs by default.

    Returns:
        Kept channels, bool (G,), in whole blocks.
    """
    price = price or gated.macs
    scores = torch.where(first_block(gated, scores, round_to), torch.inf, scores)

    def above(threshold: Tensor) -> Tensor:
        return (scores > threshold) & (scores >= 0)

    def cost(threshold: Tensor) -> float:
        return float(price(gated.shipped(gated.counts(above(threshold)), round_to)))

    tried = torch.cat([scores.new_full((1,), -1.0), torch.unique(scores[scores.isfinite()])])
    low, high = 0, len(tried) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(tried[middle]) <= target else (middle + 1, high)
    return in_whole_blocks(gated, scores, above(tried[low]), round_to)


def fewest(gated: Gated, round_to: int) -> Tensor:
    """Return the counts, (B,), that a budget of time leaves at least, in whole blocks."""
    return gated.shipped(torch.ceil(FLOOR * gated.sizes.double()), round_to)


def most_important_in_time(
    gated: Gated, times: GatedTimes, scores: Tensor, target: float, round_to: int
) -> Tensor:
    """Return the channels that are worth their time most, within a budget of time.

    Args:
        gated: channels and their MACs.
        times: times of the layers.
        scores: importance, shape (G,); below 0 for channels that are already removed.
        target: allowed time in milliseconds, at least that of the `fewest` channels.
        round_to: channels per block.

    Returns:
        Kept channels, bool (G,), in whole blocks.
    """
    kept = scores >= 0
    stays = strongest(gated, scores, fewest(gated, round_to)) & kept
    before = float(times.milliseconds(gated.counts(kept)))
    for step in range(1, STEPS + 1):
        counts = gated.counts(kept)
        sums = torch.zeros_like(counts).index_add_(0, gated.group_of, scores * kept)
        worth = gated.marginal(counts) / times.marginal(counts)
        # 1e-300: a group of zeros keeps scores of 0 instead of NaN.
        factor = worth * counts / sums.clamp(min=1e-300)
        tried = torch.where(stays, torch.inf, scores * factor[gated.group_of])
        allowed = before * min(target / before, 1) ** (step / STEPS)
        # Blocks are counted at the end: groups fall by less than a block in most steps.
        block = round_to if step == STEPS else 1
        kept = most_important(
            gated, torch.where(kept, tried, -1.0), allowed, block, times.milliseconds
        )
    return kept


def target(asked: float, last: Mapping[str, Any], key: str = "macs_ratio") -> dict[str, object]:
    """Return requested and reached MACs, and the reason if they are too many.

    Args:
        asked: requested share of the dense network's.
        last: metrics of the last epoch.
        key: key of the bounded share among the metrics.
    """
    reached = float(last[key])
    # 1e-9: rounding of the ratio.
    missed = "" if reached <= asked + 1e-9 else "the training ended before the gates were chosen"
    return {"asked": f"≤ {asked:g}", "found": reached, "missed": missed}
