"""train-str: Soft Threshold weight Reparameterization (Kusupati et al., ICML 2020, 2002.03231).

    W̃ = S(W, s) = sign(W)·max(|W| − g(s), 0),      g = sigmoid

with one learned s a layer (or one in all, or one a filter: a slice along the kernel's first axis,
which of a transposed convolution are the inputs). By the chain rule alone

    ∂L/∂W = 1[|W| > g(s)]·∂L/∂W̃,
    ∂L/∂s = −g'(s)·Σ_{|W|>g(s)} sign(W)·∂L/∂W̃,    g' = g·(1 − g),

and s has the weights' decay λ: while s ≪ −88, g underflows and s moves by decay alone, so λ and the
start s_init decide how sparse the network becomes, and its layers share the sparsity as they learn.
s is a parameter like any other: the recipe's optimizer moves it as it moves the weights, and its
gradient is clipped with theirs.

Ours, not the paper's: ``sparsity``. Where it is given, all s are shifted together, up to
400 times, so that the density follows d(p) = 1 − sparsity·(1 − (1 − p)³) until ``ramp`` of
the training, and stays; what the layers learned of their differences stays too. As g < 1, a weight
that stays above 1 is never zero: the report says where the sparsity was missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from prunec.sparsity.kernels import sparse_kernels
from prunec.sparsity.soft_threshold import Granularity, SoftThreshold
from prunec.sparsity.training_pass import MaskMethod, SparseTraining
from prunec.training.context import Context
from prunec.training.phases import Phases, until

HIGH = 3.0  # a threshold of 0.95: what this has not made zero, more will hardly


@dataclass(frozen=True)
class TrainStr(SparseTraining):
    """Learn a threshold per layer; the sparsity follows."""

    # The authors' for ResNet-50 at 90.23 %. float32's sigmoid is 0 below −88, so training starts
    # dense, and s rises by weight decay alone meanwhile.
    s_init: Annotated[
        float, Field(description="where the thresholds begin: sigmoid(s_init)")
    ] = -3200.0
    granularity: Annotated[Granularity, Field(description="what has a threshold of its own")] = (
        "layer"
    )
    dense: Annotated[
        tuple[str, ...], Field(description="names of layers that stay whole; * stands for any text")
    ] = ()
    sparsity: Annotated[
        float,
        Field(ge=0, lt=1, description="that is steered to; 0: thresholds decide, as in the paper"),
    ] = 0.0
    ramp: Annotated[
        float,
        Field(gt=0, le=1, description="share of the training after which the sparsity is reached"),
    ] = 0.75

    def phases(self, epochs: int) -> Phases:
        """See :meth:`Training.phases`."""
        return until(epochs, dense=0.0, prune=self.ramp) if self.sparsity else {}

    def kernels(self, module: nn.Module) -> dict[str, Tensor]:
        """See :meth:`SparseTraining.kernels`."""
        return sparse_kernels(module, self.dense)

    def method(self, kernels: Mapping[str, Tensor], context: Context) -> MaskMethod:
        """See :meth:`SparseTraining.method`."""
        return Str(self, kernels, self.granularity)


class Str(SoftThreshold):
    """Thresholds g(s) = sigmoid(s)."""

    def g(self, s: Tensor) -> Tensor:
        """Sigmoid."""
        return torch.sigmoid(s)

    def g_slope(self, s: Tensor) -> Tensor:
        """g·(1 − g)."""
        g = torch.sigmoid(s)
        return g * (1 - g)

    def why_missed(self, density: float) -> str:
        """See :meth:`SoftThreshold.why_missed`."""
        if density > self.asked() and float(self.s.detach().max()) > HIGH:
            return (
                "sigmoid thresholds stay below 1, and so many weights are larger; train with more "
                "weight_decay, or start from smaller weights"
            )
        return super().why_missed(density)
