"""Methods whose network computes with a projection of the weights, its gradient taken to all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from prunec.sparsity.effective_weights import ShownKernels
from prunec.sparsity.training_pass import MaskMethod
from prunec.training.method import Moment


class Projected(MaskMethod):
    """W̃ = P(W) computes, W learns: ∂L/∂W ← ∂L/∂W̃ unless :meth:`gradient` changes it."""

    def __init__(self, kernels: Mapping[str, Tensor]) -> None:
        self.kernels = ShownKernels(kernels)
        self.names, self.weights = self.kernels.names, self.kernels.weights

    @abstractmethod
    def project(self) -> None:
        """Write P(``kernels.raw``) into ``kernels.shown``; no gradient is recorded."""

    def settle(self) -> None:
        """See :meth:`Method.settle`."""
        self.kernels.hide()

    def before_forward(self, moment: Moment) -> None:
        """Show the projection."""
        self._project()
        self.kernels.show()

    def gradient(self, moment: Moment) -> None:
        """Give the optimizer the raw weights; their gradient stays."""
        self.kernels.hide()

    @contextmanager
    def shipping(self) -> Iterator[None]:
        """Evaluate the projection."""
        self._project()
        with self.kernels.showing():
            yield

    @torch.no_grad()
    def finish(self) -> None:
        """Let the kernels be their projection for good."""
        self._project()
        torch._foreach_copy_(self.kernels.raw, self.kernels.shown)

    @torch.no_grad()
    def _project(self) -> None:
        self.kernels.fetch()
        self.project()
