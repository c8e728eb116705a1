"""fold-batchnorm: γ(Wx + b − μ)/√(σ²+ε) + β as one kernel and one bias."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from prunec.artifact import Artifact
from prunec.contract import Remarks, Rewrite
from prunec.graph.rewriting.fold_batch_norms import fold_captured


@dataclass(frozen=True)
class FoldBatchnorm(Rewrite):
    """Fold each batch norm into the kernel before it."""

    forbids: ClassVar[frozenset[str]] = frozenset({"gated"})
    adds: ClassVar[frozenset[str]] = frozenset({"folded"})

    def rewrite(self, artifact: Artifact) -> tuple[Artifact, Remarks]:
        """Return the network with fewer batch norms, the plan added to the artifact's."""
        module, plan, refusals = fold_captured(artifact.captured())
        masks = {n: m for n, m in artifact.masks.items() if n in dict(module.named_parameters())}
        result = replace(artifact, module=module, masks=masks, plans=(*artifact.plans, plan))
        note = f"folded {len(plan.folded)} batch norms"
        return result, Remarks((note, *refusals), {"folded": len(plan.folded)})
