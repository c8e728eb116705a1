"""Interface of a pattern: it turns the scores of weights into scores that respect the pattern."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from prunec.errors import PassError
from prunec.sparsity.kernels import LAYERS, TRANSPOSED


class Pattern(ABC):
    """A restriction on masks. The mask engine still chooses by scores, which the pattern changes.

    Attributes:
        unit: number of weights that are kept or masked together.
        density: the density that the pattern prescribes in every kernel; None if any is possible.
    """

    unit: int = 1
    density: float | None = None

    @abstractmethod
    def divides(self, outputs: int, inputs: int) -> bool:
        """Return whether kernels with so many channels in a group consist of whole units."""

    @abstractmethod
    def restrict(self, scores: Sequence[Tensor], count: int, active: Sequence[Tensor]) -> int:
        """Change scores such that the largest ones are a mask of this pattern.

        Args:
            scores: scores of the weights of each kernel, at least 0; −1 for a weight that must not
                be chosen. Changed in place.
            count: number of weights to choose.
            active: masks of weights that stay chosen in addition, in the same shapes; may be empty.

        Returns:
            Number of the largest scores to choose before :meth:`complete`.
        """

    @abstractmethod
    def complete(self, masks: Sequence[Tensor]) -> None:
        """Extend masks of the chosen scores to whole units, in place."""

    def whole(self, count: int) -> int:
        """Return a number of weights, rounded down to whole units."""
        return count - count % self.unit

    def fitting(self, module: nn.Module, kernels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the kernels that consist of whole units; transposed convolutions never do.

        Raises:
            PassError: no kernel does.
        """
        groups: dict[int, int] = {}
        for part in module.modules():
            if isinstance(part, LAYERS):
                count = getattr(part, "groups", 1)
                groups[id(part.weight)] = 0 if isinstance(part, TRANSPOSED) else int(count)
        chosen = {
            name: weight
            for name, weight in kernels.items()
            if (count := groups[id(weight)])
            and self.divides(weight.shape[0] // count, weight.shape[1])
        }
        if not chosen:
            raise PassError(
                f"pattern {self}: no kernel has channels that it divides",
                remedy="Widen the network, choose a smaller pattern, or leave pattern out.",
            )
        return chosen
