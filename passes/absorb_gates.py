"""absorb-gates: W'[:, c] = g_c·W[:, c].

Every gate goes into the kernel that it stands before; what a zero gate cut off becomes a mask. The
function does not change (GDP, arXiv 2109.02220).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from prunec.artifact import Artifact
from prunec.contract import Remarks, Rewrite
from prunec.models.gates import absorbed, gates_of


@dataclass(frozen=True)
class AbsorbGates(Rewrite):
    """Multiply gates into the kernels that read them."""

    needs: ClassVar[frozenset[str]] = frozenset({"gated"})
    drops: ClassVar[frozenset[str]] = frozenset({"gated"})
    adds: ClassVar[frozenset[str]] = frozenset({"masked"})

    def rewrite(self, artifact: Artifact) -> tuple[Artifact, Remarks]:
        """Return the network without gates, and the masks that they left."""
        gates = gates_of(artifact.module)
        module = absorbed(artifact.module)
        masks = dict(artifact.masks)
        for name, gate in gates.items():
            mask = (gate != 0).expand_as(module.get_parameter(name)).clone()
            masks[name] = mask & masks[name] if name in masks else mask
        zero = sum(int((gate == 0).sum()) for gate in gates.values())
        total = sum(gate.numel() for gate in gates.values())
        note = f"absorbed {total:,} gates into {len(gates)} kernels; {zero:,} gates are zero"
        return replace(artifact, module=module, masks=masks), Remarks((note,), {"zero_gates": zero})
