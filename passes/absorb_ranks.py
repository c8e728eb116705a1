"""absorb-ranks: W₂ ← 1·mᵀ ⊙ W₂, and a map whose factors cost more than one matrix becomes one.

What is left of m goes into W₂; its zeros become masks over columns of W₂, which `remove-channels`
cuts with the rows of W₁ that make them. Where r ranks are left and r·(n_in + n_out) ≥ n_in·n_out,
the factors are multiplied out, in float64: W = (1·mᵀ ⊙ W₂)W₁.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import ClassVar

from prunec.artifact import Artifact
from prunec.contract import Remarks, Rewrite
from prunec.models.low_rank import Form, maps_of, put, unscaled, whole


@dataclass(frozen=True)
class AbsorbRanks(Rewrite):
    """Multiply m into W₂, or both factors into one matrix."""

    needs: ClassVar[frozenset[str]] = frozenset({"low-rank"})
    forbids: ClassVar[frozenset[str]] = frozenset({"compact"})
    drops: ClassVar[frozenset[str]] = frozenset({"low-rank"})

    def rewrite(self, artifact: Artifact) -> tuple[Artifact, Remarks]:
        """Return the network without m, and masks where it was zero."""
        module = copy.deepcopy(artifact.module)
        masks, forms = dict(artifact.masks), dict(artifact.forms)
        notes, ranks = [], {}
        for name, low in maps_of(module).items():
            # m is no parameter of the result, so that a mask over it would name nothing.
            masks.pop(f"{name}.m", None)
            kept = low.get_parameter("m").detach() != 0
            ranks[name], into, out = int(kept.sum()), low.first.in_features, low.second.out_features
            if ranks[name] * (into + out) >= into * out:
                put(module, name, whole(low))
                masks = {n: mask for n, mask in masks.items() if not n.startswith(f"{name}.")}
                forms[name] = Form(0)
                notes.append(f"{name}: {ranks[name]} ranks cost more than {out}×{into}: one matrix")
                continue
            put(module, name, unscaled(low))
            forms[name] = Form(low.first.out_features)
            second = f"{name}.second.weight"
            columns = kept.expand(low.second.weight.shape).clone()
            masks[second] = columns & masks[second] if second in masks else columns
            notes.append(f"{name}: rank {ranks[name]} of {low.first.out_features}")
        note = f"{len(ranks)} maps, {sum(ranks.values())} ranks left: {'; '.join(notes)}"
        result = replace(artifact, module=module, masks=masks, forms=forms)
        return result, Remarks((note,), {"ranks": ranks})
