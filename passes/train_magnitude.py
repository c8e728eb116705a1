"""train-magnitude: the least important channels go at once, or in rounds; what is left trains on.

For weights that are trained already. Every channel c has an importance I_c (``importance``), by its
mean over the channel's group. The channels above one threshold t stay,

    kept = {c : I_c > t},      F(kept) ≤ macs_ratio · F_dense,

with the smallest t that meets the budget, F the MACs of whole blocks (``train-gdp``'s), and one
block of every group at least. In ``rounds`` the budget falls by equal factors, one choice after the
other, with training between them; what is gone does not come back.

    l1          Σ|w|          Li et al., ICLR 2017 (theirs: of the filter that makes the channel)
    l2          √Σw²
    norm-scale  Σ|γ|          Liu et al., ICCV 2017 (theirs trains with a pull on γ)
    taylor      E[(Σw·∂L/∂w)²]  Molchanov et al., CVPR 2019

w are the weights that make and read the channel, of ``taylor`` those that read it, E over the
``batches`` before a choice. Mean, threshold over all groups, blocks and rounds are ours.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.contract import Remarks, Training
from prunec.errors import PassError
from prunec.graph.capture import capture
from prunec.graph.channels.analyse import analyse
from prunec.recipe.lengths import Epochs, Share, in_epochs, stated_wrong
from prunec.sparsity.channel_importance import IMPORTANCES, Importance
from prunec.sparsity.flat import give_own_memory
from prunec.sparsity.gated_macs import Gated, gated_channels
from prunec.sparsity.mac_budget import most_important, require_reachable, target
from prunec.sparsity.masked import Masked
from prunec.tasks.quality import measured
from prunec.training.context import Context
from prunec.training.dense_phase import dense_remarks
from prunec.training.loop import fit
from prunec.training.method import Moment
from prunec.training.phases import Phases, divided

LENGTHS = ("dense", "select")  # of the phases before the one that trains what is left


@dataclass(frozen=True)
class TrainMagnitude(Training):
    """Cut trained weights to a MAC budget; train the rest."""

    forbids: ClassVar[frozenset[str]] = frozenset({"gated", "masked", "folded"})
    adds: ClassVar[frozenset[str]] = frozenset({"trained", "masked"})

    macs_ratio: Annotated[
        float,
        Field(
            gt=0, lt=1, description="MACs of the network that is left, as a share of the dense one"
        ),
    ]
    importance: Annotated[
        Literal["l1", "l2", "norm-scale", "taylor"],
        Field(description="what makes a channel important"),
    ] = "taylor"
    dense: (
        Annotated[Share, Field(description="share of the training before the first choice")] | None
    ) = None
    dense_epochs: Epochs | None = None
    select: (
        Annotated[Share, Field(description="share of the training that the rounds take")] | None
    ) = None
    select_epochs: Epochs | None = None
    rounds: Annotated[int, Field(ge=1, description="how many choices lead to the budget")] = 1
    round_to: Annotated[int, Field(ge=1, description="channels are kept in blocks of so many")] = 8
    batches: Annotated[
        int, Field(ge=1, description="whose gradients taylor looks at before a choice")
    ] = 16

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if wrong := stated_wrong(self, *LENGTHS):
            raise PassError(f"train-magnitude {wrong}")
        if (self.rounds > 1) != bool(self.select or self.select_epochs):
            raise PassError(
                f"train-magnitude: rounds is {self.rounds}, select "
                f"{self.select or self.select_epochs or 0:g}",
                remedy="Several rounds need a length that they take (select = 0.3), one none.",
            )

    def phases(self, epochs: int) -> Phases:
        """See :meth:`Training.phases`."""
        parts = {name: in_epochs(self, name, epochs) for name in LENGTHS}
        return divided(self, "train-magnitude", epochs, parts)

    def require_possible(self, artifact: Artifact, context: Context) -> None:
        """See :meth:`Training.require_possible`."""
        self._method(copy.deepcopy(artifact.module), artifact, torch.device("cpu"))

    def train(self, artifact: Artifact, context: Context) -> tuple[Artifact, Remarks]:
        """Return the network whose cut channels nobody reads, and masks where they were read."""
        module = copy.deepcopy(artifact.module)
        method = self._method(module, artifact, context.device)
        history = fit(module, method, context)
        method.finish()
        module = module.cpu().to(memory_format=torch.contiguous_format).eval()
        give_own_memory(module)
        masks = {name: mask.bool().cpu().contiguous() for name, mask in method.kept_weights()}
        notes, details = _told(history, method)
        return replace(artifact, module=module, masks={**artifact.masks, **masks}), Remarks(
            notes, details
        )

    def _method(self, module: nn.Module, artifact: Artifact, device: torch.device) -> OneShot:
        structure = analyse(capture(module, artifact.example))
        gated = gated_channels(structure)
        require_reachable(self.pass_name(), gated, self.macs_ratio, self.round_to)
        gated = gated.to(device)
        module.to(device)
        importance = IMPORTANCES[self.importance](structure, gated, module)
        kernels = {name: module.get_parameter(name) for name in gated.readers}
        return OneShot(self, kernels, gated, importance)


class OneShot(Masked):
    """The kernels' columns that stay, while the network trains.

    Attributes:
        kept: which channels stay, bool (G,).
        chosen: how many choices were made.
        seen: batches that were looked at for the next one.
    """

    def __init__(
        self,
        options: TrainMagnitude,
        kernels: Mapping[str, Tensor],
        gated: Gated,
        importance: Importance,
    ) -> None:
        super().__init__(kernels)
        self.options, self.gated, self.importance = options, gated, importance
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
        share = self.options.macs_ratio ** (int(self.chosen) / self.options.rounds)
        scores = self.importance.scores(self.kept)
        self.kept &= most_important(
            self.gated, scores, share * self.dense_macs, self.options.round_to
        )
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

    def macs_ratio(self) -> float:
        """MACs as they ship by the dense ones."""
        counts = self.gated.shipped(self.gated.counts(self.kept), self.options.round_to)
        return float(self.gated.macs(counts)) / self.dense_macs

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
            "macs_ratio": self.macs_ratio(),
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


def _told(
    history: Sequence[Mapping[str, Any]], method: OneShot
) -> tuple[tuple[str, ...], dict[str, object]]:
    last = history[-1]
    key, name, value = measured(last)
    kept, total = int(method.kept.sum()), len(method.kept)
    note = (
        f"test {name} {value:.2f} % at the end, {method.macs_ratio():.3f} of the dense MACs, "
        f"{kept} of {total} channels kept by {method.options.importance}"
    )
    details: dict[str, object] = {
        key: value,
        "macs_ratio": method.macs_ratio(),
        "channels_kept": kept,
        "channels": total,
        "targets": {
            "MACs / dense": target(method.options.macs_ratio, {"macs_ratio": method.macs_ratio()})
        },
    }
    dense_notes, dense_details = dense_remarks(history)
    return (*dense_notes, note), details | dense_details
