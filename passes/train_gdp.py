"""train-gdp: Gates with Differentiable Polarization (Guo et al., ICCV 2021, arXiv 2109.02220).

A gate g(a) = a²/(a²+ε) stands on each input channel of every regular kernel, one for all readers of
a channel; conv_W(g ⊙ u) = conv_{W·g}(u), so it multiplies the kernel. The objective is
L(W, g(a)) + λ·F/F_dense, F the MACs, bilinear in the numbers n = ‖a‖₀ of open gates; with the other
counts held it is solved by a proximal step, c = ∂F/∂n:

    v = a − η·∂L/∂a,      a ← sign(v)·max(|v| − λ·c, 0),

in the metric of F̂ = E[(∂L/∂g)²], the diagonal of the empirical Fisher information: closing a gate
costs the loss about ½·F̂ and saves c MACs, so λ·c/F̂ pulls hardest where a MAC is worth least. Zero
is absorbing: g'(0) = 0.

The paper's: the gate, where it stands, F, the proximal step, the polarisation by ε, the absorption.
Ours, for want of its hyper-parameters: the metric; the controller, which takes at every step the
smallest λ that meets a cubic MAC schedule with counts in whole blocks, and 0 after that; ε held
while gates are chosen and lowered geometrically afterwards, the kernels rescaled so that the change
of ε does not change the function; the three phases. With ``latency_ratio`` F is the time of the
layers, interpolated between counts that were measured under a runner: ours as well.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.contract import Remarks, Training
from prunec.errors import PassError
from prunec.graph.capture import capture
from prunec.graph.channels.analyse import analyse
from prunec.models.gates import attach_gates
from prunec.passes._gdp import LENGTHS, Gdp
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
from prunec.sparsity.flat import give_own_memory
from prunec.sparsity.gated_macs import Gated, gated_channels
from prunec.sparsity.gated_times import GatedTimes, gated_times
from prunec.sparsity.mac_budget import require_reachable, target
from prunec.tasks.quality import measured
from prunec.training.context import Context
from prunec.training.dense_phase import dense_remarks
from prunec.training.loop import fit
from prunec.training.phases import Phases, divided


@dataclass(frozen=True)
class TrainGdp(Training):
    """Learn channel gates until the network meets a MAC budget."""

    forbids: ClassVar[frozenset[str]] = frozenset({"gated", "folded"})
    adds: ClassVar[frozenset[str]] = frozenset({"trained", "gated"})

    macs_ratio: MacsRatio = None
    latency_ratio: LatencyRatio = None
    dense: (
        Annotated[Share, Field(description="share of the training before gates close")] | None
    ) = None
    dense_epochs: Epochs | None = None
    select: (
        Annotated[Share, Field(gt=0, description="share of the training in which gates are chosen")]
        | None
    ) = None
    select_epochs: Annotated[Epochs, Field(gt=0)] | None = None
    round_to: Block = 8
    runner: TimedRunner = "onnxruntime"
    # Ours. A gate that starts at a = 1 is g = 0.91; its slope is largest at |a| = √(ε/3) = 0.18.
    epsilon: Annotated[
        float,
        Field(gt=0, description="width of a gate between closed and open, while gates are chosen"),
    ] = 0.1
    # Ours: g(1) = 1/(1 + ε) is 0.9999 then.
    epsilon_end: Annotated[
        float, Field(gt=0, description="and at the end, when every gate is 0 or 1")
    ] = 1e-4
    strength: Annotated[float, Field(ge=0, description="how hard MACs pull at the gates")] = 1.0

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if wrong := stated_wrong(self, *LENGTHS, needed=True):
            raise PassError(f"train-gdp {wrong}")
        stated_budget(self.pass_name(), self.macs_ratio, self.latency_ratio)
        require_timed(self.runner, self.latency_ratio is not None)

    @property
    def block(self) -> int:
        """How many channels a block has."""
        block: int = block_of(self.round_to)
        return block

    @property
    def budget(self) -> tuple[str, float]:
        """The key of what is bounded, and its share."""
        name, macs, latency = self.pass_name(), self.macs_ratio, self.latency_ratio
        stated: tuple[str, float] = stated_budget(name, macs, latency)
        return stated

    def phases(self, epochs: int) -> Phases:
        """See :meth:`Training.phases`."""
        parts = {name: in_epochs(self, name, epochs) for name in LENGTHS}
        return divided(self, "train-gdp", epochs, parts)

    def require_possible(self, artifact: Artifact, context: Context) -> None:
        """See :meth:`Training.require_possible`."""
        self._gated(copy.deepcopy(artifact.module), artifact.example)

    def _gated(
        self, module: nn.Module, example: tuple[Tensor, ...]
    ) -> tuple[Gated, GatedTimes | None]:
        """The gates of a network, and their latency where it is bounded.

        Raises:
            PassError: there are none, or the budget cannot be met.
        """
        structure = analyse(capture(module, example))
        gated, times, (key, ratio) = gated_channels(structure), None, self.budget
        if self.latency_ratio is not None and len(gated.sizes):
            times = gated_times(structure, gated, layer_times(self.runner))
        price = times.milliseconds if times else gated.macs
        require_reachable("train-gdp", gated, ratio, self.block, price, key)
        return gated, times

    def train(self, artifact: Artifact, context: Context) -> tuple[Artifact, Remarks]:
        """Return the gated network: raw kernels and the gates before them."""
        module = copy.deepcopy(artifact.module)
        gated, times = self._gated(module, artifact.example)
        device = context.device
        method = Gdp(self, module.to(device), gated.to(device), times.to(device) if times else None)
        history = fit(module, method, context)
        module = module.cpu().to(memory_format=torch.contiguous_format).eval()
        give_own_memory(module)
        attach_gates(module, {name: gate.cpu() for name, gate in method.kernel_gates().items()})
        notes, details = _told(history, method)
        return replace(artifact, module=module), Remarks(notes, details)


def _told(
    history: Sequence[Mapping[str, Any]], method: Gdp
) -> tuple[tuple[str, ...], dict[str, object]]:
    last, (aim, ratio) = history[-1], method.options.budget
    opened = int((method.a > 0).sum())
    key, name, value = measured(last)
    notes = [
        f"test {name} {value:.2f} % at the end, "
        f"{last['macs_ratio']:.3f} of the dense MACs, {opened} of {len(method.a)} gates open"
    ]
    if aim == "latency_ratio":
        notes.append(
            f"{last[aim]:.3f} of the dense time by the layers' times under {method.options.runner}"
        )
    details: dict[str, object] = {
        key: value,
        "macs_ratio": last["macs_ratio"],
        "gates_open": opened,
        "gates": len(method.a),
        "gates_between": last["gates_between"],
        aim: last[aim],
        "targets": {TARGETS[aim]: target(ratio, last, aim)},
    }
    dense_notes, dense_details = dense_remarks(history)
    return (*dense_notes, *notes), details | dense_details
