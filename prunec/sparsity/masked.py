"""Methods whose masked weights are zero and do not learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prunec.sparsity.masks import Masks
from prunec.sparsity.patterns.pattern import Pattern
from prunec.sparsity.training_pass import MaskMethod
from prunec.training.method import Moment


class Masked(MaskMethod):
    """Method with W = M ⊙ W at all times: gradients are masked, and weights after every step.

    Attributes:
        masks: masks of all kernels.
    """

    def __init__(self, kernels: Mapping[str, Tensor], pattern: Pattern | None = None) -> None:
        self.masks = Masks(kernels, pattern=pattern)
        self.names, self.weights = self.masks.names, self.masks.weights

    def before_forward(self, moment: Moment) -> None:
        """Locate the kernels, which may have moved."""
        self.masks.align()

    def gradient(self, moment: Moment) -> None:
        """∂L/∂W ← M ⊙ ∂L/∂W."""
        self.masks.apply_to_gradients()

    def after_step(self, moment: Moment) -> None:
        """W ← M ⊙ W, so that momentum and weight decay move no masked weight."""
        self.masks.apply()

    def finish(self) -> None:
        """Apply the masks to averaged weights, which were taken under earlier masks."""
        self.masks.apply()

    def skip_step(self) -> None:
        """Make the optimizer skip the current step for every parameter."""
        assert self.optimizer is not None
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def mask_momentum(self) -> None:
        """Reset the momentum of masked weights, so that regrown ones start at rest."""
        self._scale_momentum(self.masks.values)

    def forget_momentum(self) -> None:
        """Reset the momentum of all parameters, norms and biases included."""
        assert self.optimizer is not None
        momentum = [
            value
            for parameter, state in self.optimizer.state.items()
            for value in state.values()
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.dim()
        ]
        if momentum:
            torch._foreach_zero_(momentum)

    @torch.no_grad()
    def _scale_momentum(self, factors: Sequence[Tensor]) -> None:
        assert self.optimizer is not None
        pairs = [
            (value, factor)
            for weight, factor in zip(self.weights, factors, strict=True)
            for value in self.optimizer.state.get(weight, {}).values()
            # Momentum and variances have the weight's shape; counters of steps do not.
            if isinstance(value, Tensor) and value.shape == factor.shape
        ]
        if pairs:
            torch._foreach_mul_([value for value, _ in pairs], [factor for _, factor in pairs])

    def tensors(self) -> dict[str, Tensor]:
        """Return the masks."""
        return self.masks.tensors()

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the masks."""
        self.masks.load_tensors(tensors)
