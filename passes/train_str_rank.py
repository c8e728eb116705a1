"""train-str-rank: ranks learned by soft thresholds, structured STR (Kusupati et al., ICML 2020).

    W = (1·m̃ᵀ ⊙ W₂)W₁,      m̃ = S(m, s) = sign(m)·max(|m| − g(s), 0),      g = exp

arXiv 2002.03231, §4.3, there for the W and U of FastGRNN. Each map has one learned s; m starts
at 1. By the chain rule alone

    ∂L/∂m = 1[|m| > g(s)]·∂L/∂m̃,      ∂L/∂s = −exp(s)·Σ_{|m|>g(s)} sign(m)·∂L/∂m̃,

and s and m have the weights' decay λ. A zero of m̃ is a rank that is gone: a column of W₂ and a row
of W₁. The recipe's optimizer moves s as it moves the weights.

Ours, not the paper's: ``factor`` makes low-rank maps of a network's linear layers first, W = VΣUᵀ
with m = σ/σ₁, exact at full rank, so that S thresholds singular values. ``sparsity``, where it is
given, is the share of all ranks that goes: up to 400 times all s are shifted together, so that the
share 1 − sparsity·(1 − (1 − p)³) of the ranks is left until ``ramp`` of the training, and stays so;
no map is shifted to its last rank's end.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.contract import Remarks
from prunec.errors import PassError
from prunec.models.low_rank import Form, factored, maps_of, put
from prunec.sparsity.schedules import cubic
from prunec.sparsity.soft_threshold import BITES, LARGEST, SoftThreshold
from prunec.sparsity.training_pass import MaskMethod, SparseTraining
from prunec.training.context import Context
from prunec.training.method import Moment
from prunec.training.phases import Phases, until

NEAR = 0.99  # of the largest |m| of a map: where a shift ends
READERS = (
    nn.TransformerEncoderLayer,
    nn.MultiheadAttention,
)  # of their layers' weights, to be fast
LITTLE = 1e-4  # by which a shift goes beyond the rank that it is for


@dataclass(frozen=True)
class TrainStrRank(SparseTraining):
    """Learn a threshold for the ranks of each low-rank map."""

    forbids: ClassVar[frozenset[str]] = frozenset({"gated", "folded", "masked", "compact"})
    adds: ClassVar[frozenset[str]] = frozenset({"trained", "masked", "low-rank"})

    factor: Annotated[
        tuple[str, ...],
        Field(description="names of layers to be made of two factors; * stands for any text"),
    ] = ()
    rank: Annotated[int, Field(ge=0, description="of those factors at first; 0: full rank")] = 0
    # A threshold of 4.5e-5, where an unfactored map's m starts at 1.
    s_init: Annotated[float, Field(description="where the thresholds begin: exp(s_init)")] = -10.0
    sparsity: Annotated[
        float, Field(ge=0, lt=1, description="share of the ranks to go; 0: thresholds decide")
    ] = 0.0
    ramp: Annotated[
        float, Field(gt=0, le=1, description="share of the training after which it is reached")
    ] = 0.75

    def phases(self, epochs: int) -> Phases:
        """See :meth:`Training.phases`."""
        return until(epochs, dense=0.0, prune=self.ramp) if self.sparsity else {}

    def kernels(self, module: nn.Module) -> dict[str, Tensor]:
        """The m of every low-rank map.

        Raises:
            PassError: there is none.
        """
        scales: dict[str, Tensor] = {
            f"{name}.m": part.get_parameter("m") for name, part in maps_of(module).items()
        }
        if not scales:
            raise PassError(
                "train-str-rank: the network has no low-rank map",
                remedy='Name linear layers to make some of: factor = ["classifier*"].',
            )
        return scales

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """See :meth:`SparseTraining.method`."""
        return StrRank(self, kernels)

    def require_possible(self, artifact: Artifact, context: Context) -> None:
        """See :meth:`SparseTraining.require_possible`; layers are factored first."""
        module = copy.deepcopy(artifact.module)
        self.split(module)
        super().require_possible(replace(artifact, module=module), context)

    def train(self, artifact: Artifact, context: Context) -> tuple[Artifact, Remarks]:
        """See :meth:`SparseTraining.train`; layers are factored first."""
        module = copy.deepcopy(artifact.module)
        forms = {**artifact.forms, **self.split(module)}
        return super().train(replace(artifact, module=module, forms=forms), context)

    def split(self, module: nn.Module) -> dict[str, Form]:
        """Make low-rank maps of the layers that ``factor`` names, in place.

        A layer that has several names is one map at all of them.

        Raises:
            PassError: a pattern fits no linear layer, or one that cannot be factored.
        """
        inside = {part for low in maps_of(module).values() for part in low.modules()}
        everywhere = list(module.named_modules(remove_duplicate=False))
        layers = {
            name: part
            for name, part in everywhere
            if type(part) is nn.Linear and part not in inside
        }
        for pattern in self.factor:
            if not any(fnmatchcase(name, pattern) for name in layers):
                raise PassError(
                    f"train-str-rank: factor = {pattern!r} fits no linear layer",
                    remedy=f"Linear layers are: {', '.join(list(layers)[:12]) or 'none'}.",
                )
        chosen = {
            part
            for name, part in layers.items()
            if any(fnmatchcase(name, pattern) for pattern in self.factor)
        }
        forms = {}
        for name, part in list(module.named_modules()):
            if isinstance(part, nn.Linear) and part in chosen:
                _require_separable(module, name, part)
                made = factored(part, self.rank)
                put(module, name, made)
                forms[name] = Form(made.first.out_features, scaled=True)
        return forms

    def result(
        self,
        artifact: Artifact,
        module: nn.Module,
        method: MaskMethod,
        history: list[dict[str, Any]],
    ) -> tuple[Artifact, Remarks]:
        """See :meth:`SparseTraining.result`; ranks are told beside."""
        result, remarks = super().result(artifact, module, method, history)
        ranks = {
            name: [int(torch.count_nonzero(part.get_parameter("m"))), part.first.out_features]
            for name, part in maps_of(result.module).items()
        }
        told = ", ".join(f"{name} {left} of {of}" for name, (left, of) in ranks.items())
        notes = (*remarks.notes, f"ranks left: {told}")
        return result, Remarks(notes, {**remarks.details, "ranks": ranks})


def _require_separable(module: nn.Module, name: str, layer: nn.Linear) -> None:
    """Refuse a layer that has no rank, or that others know as more than y = Wx + b."""
    remedy = "Leave it out of factor."
    if not bool(layer.weight.detach().any()):
        raise PassError(
            f"train-str-rank: {name} has no rank to learn: its weights are all zero",
            remedy=f"{remedy} Some networks start their last layer so.",
        )
    own = {id(p) for p in layer.parameters()}
    for other_name, other in module.named_modules():
        if other is not layer and own & {id(p) for p in other.parameters(recurse=False)}:
            raise PassError(
                f"train-str-rank: {name} shares a parameter with {other_name}, which would keep it",
                remedy=remedy,
            )
        if isinstance(other, READERS) and any(part is layer for part in other.children()):
            raise PassError(
                f"train-str-rank: {name} cannot be factored: torch's "
                f"{type(other).__name__} reads its weight",
                remedy=remedy,
            )


class StrRank(SoftThreshold):
    """Thresholds g(s) = exp(s) on the ranks of each map."""

    def g(self, s: Tensor) -> Tensor:
        """Exp."""
        return torch.exp(s)

    def g_slope(self, s: Tensor) -> Tensor:
        """Exp."""
        return torch.exp(s)

    @torch.no_grad()
    def shift(self, moment: Moment) -> None:
        """Move all s together by the least that leaves the wanted number of ranks.

        A shift for ever in proportion, as for many weights, would wear away what is left: ranks are
        few, and no density lies between two numbers of them.
        """
        self.s.clamp_(min=BITES)
        sizes = [w.numel() for w in self.weights]
        m = torch.cat([w.detach().abs().flatten() for w in self.weights])
        # g = exp, so a rank stays where log|m| > s: one sort tells what every common shift leaves.
        above = m.log() - torch.repeat_interleave(self.s, torch.tensor(sizes, device=m.device))
        ordered = above.sort(descending=True).values.tolist()
        left = sum(height > 0 for height in ordered)
        wanted = round(len(ordered) * (1 - self.sparsity * cubic(moment.share / self.ramp)))
        # No map loses its last rank, so that as many ranks as maps stay.
        wanted = max(wanted, len(sizes))
        if left > wanted:
            self.s.add_(min(ordered[wanted] + LITTLE, LARGEST))
        elif left < wanted:
            self.s.add_(max(ordered[wanted - 1] - LITTLE, -LARGEST))
        largest = torch.stack([w.detach().abs().max() for w in self.weights])
        self.s.copy_(torch.minimum(self.s, (NEAR * largest).log()))

    def goal(self) -> float:
        """See :meth:`SoftThreshold.goal`; every map keeps a rank."""
        return max(self.asked(), len(self.weights) / self.counted())

    def why_missed(self, density: float) -> str:
        """See :meth:`SoftThreshold.why_missed`."""
        if self.asked() < density <= self.goal():
            return f"each of {len(self.weights)} maps keeps a rank at least; ask for less"
        return super().why_missed(density)
