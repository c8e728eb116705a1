"""compact-masks: a mask says only what the shapes do not.

After channels went, most masks are true throughout and go; of the others the zeros are written into
the weights, so that file and mask agree.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from prunec.artifact import Artifact
from prunec.contract import Remarks, Rewrite


@dataclass(frozen=True)
class CompactMasks(Rewrite):
    """Turn masks into zero weights; drop masks that mask nothing."""

    forbids: ClassVar[frozenset[str]] = frozenset({"gated"})
    drops: ClassVar[frozenset[str]] = frozenset({"masked"})

    def rewrite(self, artifact: Artifact) -> tuple[Artifact, Remarks]:
        """Return the network with the masks that are left."""
        left = {name: mask for name, mask in artifact.masks.items() if not bool(mask.all())}
        module = copy.deepcopy(artifact.module) if left else artifact.module
        with torch.no_grad():
            for name, mask in left.items():
                module.get_parameter(name).masked_fill_(~mask.bool(), 0.0)
        note = f"dropped {len(artifact.masks) - len(left)} masks, kept {len(left)}"
        return replace(artifact, module=module, masks=left), Remarks((note,), {"masks": len(left)})
