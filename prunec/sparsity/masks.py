"""Masks of kernels: applied, chosen and counted for all kernels at once.

See docs/glossary.md: mask, density.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prunec.sparsity.flat import Flat, Values
from prunec.sparsity.largest import choose, choose_of_all
from prunec.sparsity.patterns.pattern import Pattern


class Masks:
    """Kernels W and their masks M ∈ {0, 1}, maintained by W ← M ⊙ W.

    Attributes:
        flat: kernels in one piece of memory.
        memory: masks in the weights' dtype: multiplying floats is the fastest way to mask.
        pattern: what is kept or masked together; None: each weight by itself.
    """

    def __init__(
        self,
        kernels: Mapping[str, Tensor],
        flat: Flat | None = None,
        pattern: Pattern | None = None,
    ) -> None:
        """Create masks of ones.

        Args:
            kernels: kernels by parameter name.
            flat: the same kernels, if they are already in one piece of memory.
            pattern: what is kept or masked together.
        """
        self.pattern = pattern
        self.flat = flat or Flat(kernels)
        self.names, self.weights = self.flat.names, self.flat.weights
        self.memory = self.flat.room()
        torch._foreach_add_(self.memory.parts, 1)
        self.moves = self.flat.moves
        self.scratch: Values | None = None

    @property
    def values(self) -> list[Tensor]:
        """Masks, each in its kernel's shape and layout."""
        return self.memory.parts

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the kernels."""
        return [tuple(w.shape) for w in self.weights]

    @property
    def total(self) -> int:
        """Number of weights."""
        return sum(self.flat.sizes)

    def align(self) -> None:
        """Lay out kernels and masks alike; kernels may have moved."""
        self.flat.settle()
        if self.moves != self.flat.moves:
            self.memory, self.scratch = self.flat.moved(self.memory), None
            self.moves = self.flat.moves

    def counts(self) -> list[int]:
        """Return the number of unmasked weights of each kernel, with one synchronisation of the
        device.
        """
        return self.flat.counts(self.memory)

    def gradients(self) -> list[Tensor]:
        """Return the gradients of the kernels."""
        return self.flat.gradients()

    @torch.no_grad()
    def apply(self) -> None:
        """W ← M ⊙ W."""
        self.align()
        self.flat.raw.memory.mul_(self.memory.memory)

    @torch.no_grad()
    def apply_to_gradients(self) -> None:
        """∂L/∂W ← M ⊙ ∂L/∂W."""
        pairs = zip(self.weights, self.values, strict=True)
        known = [(w.grad, m) for w, m in pairs if w.grad is not None]
        torch._foreach_mul_([g for g, _ in known], [m for _, m in known])

    @torch.no_grad()
    def keep_largest(self, counts: Sequence[int]) -> None:
        """Keep the ``counts`` largest |w| of each kernel; masked weights may return."""
        self._choose(self._sizes(), counts, self.memory)

    @torch.no_grad()
    def draw(self, counts: Sequence[int], generator: torch.Generator) -> None:
        """Keep ``counts`` random weights of each kernel."""
        drawn = [torch.rand(m.shape, generator=generator, device=m.device) for m in self.values]
        self._choose(self._scores(drawn), counts, self.memory)

    @torch.no_grad()
    def keep_largest_of_all(self, count: int, *, active: bool = False) -> None:
        """Keep the ``count`` largest |w| of all kernels together.

        Args:
            count: number of kept weights.
            active: whether masked weights stay masked.
        """
        scores = self._active_sizes() if active else self._sizes()
        if self.pattern:
            count = self.pattern.restrict(scores.parts, count, ())
        choose_of_all(self.flat, scores, count, self.memory)
        if self.pattern:
            self.pattern.complete(self.memory.parts)

    @torch.no_grad()
    def drop_smallest(self, counts: Sequence[int]) -> None:
        """Mask the ``counts`` smallest active |w| of each kernel; of blocks, the whole ones."""
        if self.pattern:
            counts = [self.pattern.whole(count) for count in counts]
        left = [max(have - count, 0) for have, count in zip(self.counts(), counts, strict=True)]
        self._choose(self._active_sizes(), left, self.memory)

    @torch.no_grad()
    def grow(self, counts: Sequence[int], scores: Sequence[Tensor]) -> None:
        """Unmask the ``counts`` inactive weights of largest absolute score in each kernel.

        An inactive weight is 0 if :meth:`apply` was called since it was masked; a weight dropped
        just before returns with its value.

        Args:
            counts: number of grown weights per kernel, at most the inactive ones.
            scores: scores, in the kernels' shapes.
        """
        room = self._scores(scores)
        pairs = zip(self.flat.sizes, self.counts(), counts, strict=True)
        most = [min(count, size - held) for size, held, count in pairs]
        room.memory.abs_()
        torch.lerp(room.memory, self._barred(), self.memory.memory, out=room.memory)
        self._choose(room, most, room, self.values)  # in place: fresh memory takes as long
        room.memory.index_fill_(0, self.flat.rests, 0.0)
        self.memory.memory.add_(room.memory)

    def _choose(
        self, scores: Values, counts: Sequence[int], out: Values, active: Sequence[Tensor] = ()
    ) -> None:
        """Choose as :func:`choose`, within the pattern; ``active`` weights stay chosen besides."""
        if self.pattern:
            counts = [
                self.pattern.restrict([part], count, active[i : i + 1])
                for i, (part, count) in enumerate(zip(scores.parts, counts, strict=True))
            ]
        choose(self.flat, scores, counts, out)
        if self.pattern:
            self.pattern.complete(out.parts)

    def tensors(self) -> dict[str, Tensor]:
        """Return the masks by the names of their kernels."""
        return {f"mask.{name}": mask for name, mask in zip(self.names, self.values, strict=True)}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the masks."""
        for name, mask in zip(self.names, self.values, strict=True):
            mask.copy_(tensors[f"mask.{name}"])

    def _room(self) -> Values:
        """Return memory for scores, reused because allocating it costs as much as a choice."""
        self.align()
        if self.scratch is None:
            self.scratch = self.flat.room()
        return self.scratch

    def _sizes(self) -> Values:
        """Return |w| of every weight."""
        room = self._room()
        torch.abs(self.flat.raw.memory, out=room.memory)
        return room

    def _active_sizes(self) -> Values:
        """Return |w|, and −1 where the mask is 0."""
        room = self._sizes()
        torch.lerp(self._barred(), room.memory, self.memory.memory, out=room.memory)
        return room

    def _barred(self) -> Tensor:
        """Return the score of weights that must not be chosen; `lerp` by a mask inserts it
        fastest.
        """
        return torch.full((), -1.0, dtype=self.memory.memory.dtype, device=self.weights[0].device)

    def _scores(self, scores: Sequence[Tensor]) -> Values:
        room = self._room()
        torch._foreach_copy_(room.parts, list(scores))
        return room
