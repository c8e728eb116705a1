"""Choice of channels of train-magnitude while a network trains: when, which, and their masks.

Formulas and symbols are those of :mod:`prunec.passes.train_magnitude`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from prunec.recipe.lengths import in_epochs
from prunec.sparsity.channel_importance import Importance
from prunec.sparsity.gated_macs import Gated
from prunec.sparsity.gated_times import GatedTimes
from prunec.sparsity.mac_budget import most_important, most_important_in_time
from prunec.sparsity.masked import Masked
from prunec.training.method import Moment

LENGTHS = ("dense", "select")  # of the phases before the one that trains what is left


class Options(Protocol):
    """Options of the pass that are read here, beside the lengths of its phases."""

    @property
    def budget(self) -> tuple[str, float]: ...
    @property
    def block(self) -> int: ...
    @property
    def rounds(self) -> int: ...
    @property
    def batches(self) -> int: ...


class OneShot(Masked):
    """The kernels' columns that stay, while the network trains.

    Attributes:
        kept: which channels stay, bool (G,).
        chosen: how many choices were made.
        seen: batches that were looked at for the next one.
    """

    def __init__(
        self,
        options: Options,
        kernels: Mapping[str, Tensor],
        gated: Gated,
        importance: Importance,
        times: GatedTimes | None = None,
    ) -> None:
        super().__init__(kernels)
        self.options, self.gated, self.importance = options, gated, importance
        self.times = times
        self.kept = torch.ones_like(gated.group_of, dtype=torch.bool)
        self.chosen, self.seen = (
            torch.zeros((), dtype=torch.long),
            torch.zeros((), dtype=torch.long),
        )
        self.dense_macs = float(gated.macs(gated.sizes.double()))
        self.batches = options.batches if importance.looks else 0

    def due(self, moment: Moment) -> float:
        """Epochs after which the next choice is made."""
        dense, select = (in_epochs(self.options, name, moment.epochs) for name in LENGTHS)
        return dense + select * int(self.chosen) / max(self.options.rounds - 1, 1)

    def settled(self, moment: Moment) -> bool:
        """Say whether the last choice was made."""
        return int(self.chosen) == self.options.rounds

    def kind(self, moment: Moment) -> Hashable | None:
        """Steps after the last choice are alike."""
        return () if self.settled(moment) else None

    def before_forward(self, moment: Moment) -> None:
        """Choose when it is time and enough batches were seen."""
        super().before_forward(moment)
        while not self.settled(moment) and self._ready(moment):
            self.choose()

    def _ready(self, moment: Moment) -> bool:
        return moment.progress >= self.due(moment) and (
            # At the last step whatever was seen must do.
            int(self.seen) >= self.batches or moment.last
        )

    def gradient(self, moment: Moment) -> None:
        """∂L/∂W ← M ⊙ ∂L/∂W; look at it where a choice is near."""
        super().gradient(moment)
        # taylor averages over `batches` steps, so that looking begins so many before the choice.
        near = self.due(moment) - self.batches / moment.steps_per_epoch
        if not self.settled(moment) and self.batches and moment.progress >= near:
            self.importance.observe()
            self.seen += 1

    @torch.no_grad()
    def choose(self) -> None:
        """Let the channels go that are least important, for the budget of this round."""
        self.chosen += 1
        # Equal factors: after r of R rounds the budget is ratio^(r/R) of the dense MACs.
        share = self.options.budget[1] ** (int(self.chosen) / self.options.rounds)
        scores, gated, block = self.importance.scores(self.kept), self.gated, self.options.block
        if self.times:
            allowed = share * self._milliseconds(gated.sizes.double())
            self.kept &= most_important_in_time(gated, self.times, scores, allowed, block)
        else:
            self.kept &= most_important(gated, scores, share * self.dense_macs, block)
        self.seen.zero_()
        # A channel without a gate has the number of gates in `readers`: the last place, kept.
        spread = torch.cat([self.kept, self.kept.new_ones(1)])
        pairs = zip(self.masks.values, self.gated.readers.items(), strict=True)
        for mask, (name, gates) in pairs:
            mask.mul_(spread[gates].reshape(self.gated.shapes[name]))
        self.masks.apply()
        if self.optimizer is not None:
            self.mask_momentum()

    def kept_weights(self) -> list[tuple[str, Tensor]]:
        """The masks by their kernels' names."""
        return list(zip(self.masks.names, self.masks.values, strict=True))

    def shares(self) -> dict[str, float]:
        """Return MACs as they ship divided by the dense ones; if the budget is one of time, also
        the times.
        """
        counts = self.gated.shipped(self.gated.counts(self.kept), self.options.block)
        shares = {"macs_ratio": float(self.gated.macs(counts)) / self.dense_macs}
        if self.times:
            dense = self._milliseconds(self.gated.sizes.double())
            shares["latency_ratio"] = self._milliseconds(counts) / dense
        return shares

    def _milliseconds(self, counts: Tensor) -> float:
        assert self.times is not None
        return float(self.times.milliseconds(counts))

    def after_epoch(self, moment: Moment) -> dict[str, Any]:
        """MACs as they would ship, by the dense ones; channels that are left, before each kernel.

        A choice that no step may follow is made here: this epoch's weights may be those that ship.
        """
        while moment.number >= moment.epochs * moment.steps_per_epoch and not self.settled(moment):
            self.choose()
        shares = {
            name.removesuffix(".weight"): float(mask.mean()) for name, mask in self.kept_weights()
        }
        return {
            **self.shares(),
            "channels_kept": int(self.kept.sum()),
            "layers": {"inputs kept": shares},
        }

    def tensors(self) -> dict[str, Tensor]:
        """Masks, what is kept, and how far the choice is."""
        own = {"kept": self.kept, "chosen": self.chosen, "seen": self.seen}
        return {**super().tensors(), **own, **self.importance.tensors()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the same back."""
        super().load_tensors(tensors)
        for name in ("kept", "chosen", "seen"):
            getattr(self, name).copy_(tensors[name])
        self.importance.load_tensors(tensors)
