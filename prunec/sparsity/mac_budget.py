"""Choice of channels within a budget of MACs: whole blocks, the most important of each group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from prunec.errors import PassError
from prunec.sparsity.gated_macs import Gated

Price = Callable[[Tensor], Tensor]
"""Kept counts per group, (B,) or (…, B) → cost of the network."""


def require_reachable(
    name: str,
    gated: Gated,
    ratio: float,
    round_to: int,
    price: Price | None = None,
    key: str = "macs_ratio",
) -> None:
    """Refuse networks without gated channels, and budgets that cannot be met.

    Args:
        name: name of the pass.
        gated: channels and their MACs.
        ratio: budget, as a share of the dense network's cost.
        round_to: channels per block.
        price: bounded cost; MACs by default.
        key: option of the budget.

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
    least = float(price(gated.shipped(torch.ones(len(gated.sizes)).double(), round_to)))
    if least > ratio * dense:
        what = key.removesuffix("_ratio").replace("macs", "MACs")
        raise PassError(
            f"{name}: {key} {ratio:g} cannot be reached: with one block of {round_to} channels in "
            f"every group {least / dense:.3f} of the {what} {'are' if what == 'MACs' else 'is'} "
            "left",
            remedy=f"Set {key} above {least / dense:.3f}, or a smaller round_to.",
        )


def first_block(gated: Gated, strength: Tensor, round_to: int) -> Tensor:
    """Return the strongest block of each group, bool (G,), which stays if the group ships at
    all.
    """
    by_strength = torch.argsort(strength, descending=True, stable=True)
    # Stable, after the sort by strength: group by group, the strongest first.
    order = by_strength[torch.argsort(gated.group_of[by_strength], stable=True)]
    starts = torch.cumsum(gated.sizes, 0) - gated.sizes
    place = torch.arange(len(order), device=order.device)
    rank = torch.empty_like(order)
    rank[order] = place - starts[gated.group_of[order]]
    return rank < gated.blocks(round_to)[gated.group_of]


def in_whole_blocks(gated: Gated, strength: Tensor, kept: Tensor, round_to: int) -> Tensor:
    """Return ``kept`` without the weakest channels beyond whole blocks of a group, bool (G,)."""
    wanted = gated.shipped(gated.counts(kept), round_to).long()
    left = kept.clone()
    for group in range(len(wanted)):
        own = torch.nonzero(gated.group_of == group).flatten()
        order = torch.argsort(strength[own], descending=True, stable=True)
        left[own[order[int(wanted[group]) :]]] = False
    return left


def most_important(gated: Gated, scores: Tensor, target: float, round_to: int) -> Tensor:
    """Return the channels above the smallest threshold of importance that meets the budget.

    The first block of every group stays. The threshold is one of the scores, found by bisection,
    because shipped MACs do not rise with it.

    Args:
        gated: channels and their MACs.
        scores: importance, shape (G,); below 0 for channels that are already removed.
        target: allowed MACs, at least those of one block in every group.
        round_to: channels per block.

    Returns:
        Kept channels, bool (G,), in whole blocks.
    """
    scores = torch.where(first_block(gated, scores, round_to), torch.inf, scores)

    def above(threshold: Tensor) -> Tensor:
        return (scores > threshold) & (scores >= 0)

    def macs(threshold: Tensor) -> float:
        return float(gated.macs(gated.shipped(gated.counts(above(threshold)), round_to)))

    tried = torch.cat([scores.new_full((1,), -1.0), torch.unique(scores[scores.isfinite()])])
    low, high = 0, len(tried) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if macs(tried[middle]) <= target else (middle + 1, high)
    return in_whole_blocks(gated, scores, above(tried[low]), round_to)


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
