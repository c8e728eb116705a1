"""remove-channels: what nobody reads, and what is known to be constant, goes; exactly.

Liveness and constants over channels, `prunec.graph.removal.decide`; the network is written anew
with what stays. Zeros in the weights and the masks alone say what is dead, whoever put them there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from pydantic import Field

from prunec.artifact import Artifact
from prunec.contract import Remarks, Rewrite
from prunec.graph.rewriting.compile import Compiled, compile_captured, under_every_name
from prunec.passes._measured_counts import MEASURED, RoundTo, require_timed, rounding


@dataclass(frozen=True)
class RemoveChannels(Rewrite):
    """Remove unread and constant channels, exactly."""

    forbids: ClassVar[frozenset[str]] = frozenset({"gated"})
    adds: ClassVar[frozenset[str]] = frozenset({"compact"})

    round_to: Annotated[
        RoundTo,
        Field(
            description="multiple that kept channels are rounded up to; measured: the near count "
            "with which the layers take the least time under the runner"
        ),
    ] = 1
    runner: Annotated[
        str, Field(description="what is measured: onnxruntime here, or ssh://user@board")
    ] = "onnxruntime"

    def __post_init__(self) -> None:
        """Refuse a runner whose times say nothing."""
        require_timed(self.runner, self.round_to == MEASURED)

    def rewrite(self, artifact: Artifact) -> tuple[Artifact, Remarks]:
        """Return the compact network, its plan added to the artifact's."""
        round_to, times = rounding(self.round_to, self.runner)
        compiled = compile_captured(
            artifact.captured(),
            artifact.example,
            masks=under_every_name(artifact.module, artifact.masks),
            round_to=round_to,
        )
        result = replace(
            artifact,
            module=compiled.module,
            masks=compiled.masks,
            plans=(*artifact.plans, compiled.plan),
        )
        notes = (*_notes(compiled), *([f"counts by {times.description}"] if times else []))
        return result, Remarks(notes, {"removed": compiled.removed})


def _notes(compiled: Compiled) -> tuple[str, ...]:
    free = [group for group in compiled.groups if not group.pinned]
    total, gone = sum(g.size for g in free), sum(compiled.removed.values())
    of = f"{len(compiled.removed)} of {len(free)} groups"
    notes = [f"removed {gone:,} of {total:,} channels in {of}"]
    # Every network pins its outputs: that is no finding.
    refused = [g for g in compiled.groups if g.pinned and g.pinned != "network output"]
    notes += [f"kept {g.size} channels of {g.name}: {g.pinned}" for g in refused[:8]]
    if len(refused) > 8:
        notes.append(f"and {len(refused) - 8} more groups; `prunec inspect` lists all")
    return tuple(notes)
