"""train-magnitude: the least important channels go at once, or in rounds; what is left trains on.

For weights that are trained already. Every channel c has an importance I_c (``importance``), by its
mean over the channel's group. The channels above one threshold t stay,

    kept = {c : I_c > t},      F(kept) ≤ macs_ratio · F_dense,

with the smallest t that meets the budget, F the MACs of whole blocks (``train-gdp``'s), and one
block of every group at least. With ``latency_ratio`` F is the time of the layers, interpolated
between counts that were measured under a runner, and channels that take much time for their MACs
go first (:mod:`prunec.sparsity.mac_budget`). In ``rounds`` the budget falls by equal factors, one
choice after the other, with training between them; what is gone does not come back.

    l1          Σ|w|          Li et al., ICLR 2017 (theirs: of the filter that makes the channel)
    l2          √Σw²
    norm-scale  Σ|γ|          Liu et al., ICCV 2017 (theirs trains with a pull on γ)
    taylor      E[(Σw·∂L/∂w)²]  Molchanov et al., CVPR 2019

w are the weights that make and read the channel, of ``taylor`` those that read it, E over the
``batches`` before a choice. Mean, threshold over all groups, blocks and rounds are ours.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from prunec.artifact import Artifact
from prunec.contract import Remarks, Training
from prunec.errors import PassError
from prunec.graph.capture import capture
from prunec.graph.channels.analyse import analyse
from prunec.passes._magnitude import LENGTHS, OneShot
from prunec.passes._measured_counts import (
    TARGETS,
    Block,
    LatencyRatio,
    MacsRatio,
    TimedRunner,
    block_of,
    layer_times,
    require_timed,
    stated_budget,
)
from prunec.recipe.lengths import Epochs, Share, in_epochs, stated_wrong
from prunec.sparsity.channel_importance import IMPORTANCES
from prunec.sparsity.flat import give_own_memory
from prunec.sparsity.gated_macs import gated_channels
from prunec.sparsity.gated_times import gated_times
from prunec.sparsity.mac_budget import fewest, require_reachable, target
from prunec.tasks.quality import measured
from prunec.training.context import Context
from prunec.training.dense_phase import dense_remarks
from prunec.training.loop import fit
from prunec.training.phases import Phases, divided


@dataclass(frozen=True)
class TrainMagnitude(Training):
    """Cut trained weights to a MAC budget; train the rest."""

    forbids: ClassVar[frozenset[str]] = frozenset({"gated", "masked", "folded"})
    adds: ClassVar[frozenset[str]] = frozenset({"trained", "masked"})

    macs_ratio: MacsRatio = None
    latency_ratio: LatencyRatio = None
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
    round_to: Block = 8
    runner: TimedRunner = "onnxruntime"
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
        stated_budget(self.pass_name(), self.macs_ratio, self.latency_ratio)
        require_timed(self.runner, self.latency_ratio is not None)

    @property
    def block(self) -> int:
        """Channels per block."""
        block: int = block_of(self.round_to)
        return block

    @property
    def budget(self) -> tuple[str, float]:
        """Option of the budget, and its share of the dense network."""
        name, macs, latency = self.pass_name(), self.macs_ratio, self.latency_ratio
        stated: tuple[str, float] = stated_budget(name, macs, latency)
        return stated

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
        gated, times, (key, ratio) = gated_channels(structure), None, self.budget
        if self.latency_ratio is not None and len(gated.sizes):
            times = gated_times(structure, gated, layer_times(self.runner))
        price = times.milliseconds if times else gated.macs
        least = fewest(gated, self.block) if times else None
        require_reachable(self.pass_name(), gated, ratio, self.block, price, key, least)
        gated, times = gated.to(device), times.to(device) if times else None
        module.to(device)
        importance = IMPORTANCES[self.importance](structure, gated, module)
        kernels = {name: module.get_parameter(name) for name in gated.readers}
        return OneShot(self, kernels, gated, importance, times)


def _told(
    history: Sequence[Mapping[str, Any]], method: OneShot
) -> tuple[tuple[str, ...], dict[str, object]]:
    last, options, shares = history[-1], method.options, method.shares()
    key, name, value = measured(last)
    aim, ratio = options.budget
    kept, total = int(method.kept.sum()), len(method.kept)
    notes = [
        f"test {name} {value:.2f} % at the end, {shares['macs_ratio']:.3f} of the dense MACs, "
        f"{kept} of {total} channels kept by {options.importance}"
    ]
    if aim == "latency_ratio":
        notes.append(
            f"{shares[aim]:.3f} of the dense time by the layers' times under {options.runner}"
        )
    details: dict[str, object] = {
        key: value,
        **shares,
        "channels_kept": kept,
        "channels": total,
        "targets": {TARGETS[aim]: target(ratio, shares, aim)},
    }
    dense_notes, dense_details = dense_remarks(history)
    return (*dense_notes, *notes), details | dense_details
