"""The option ``pattern`` of passes that choose masks by the mask engine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.contract import Remarks
from prunec.errors import PassError
from prunec.sparsity.kernels import sparse_kernels
from prunec.sparsity.patterns.blocks import Blocks
from prunec.sparsity.patterns.n_of_m import ROUNDED, OfGroup
from prunec.sparsity.patterns.pattern import Pattern
from prunec.sparsity.spread import exact_total
from prunec.sparsity.training_pass import MaskMethod, SparseTraining, SpreadTraining

LARGEST = 64
"""Largest number in a pattern: no kernel uses more output channels or neighbours."""


def pattern_of(text: str) -> Pattern | None:
    """Return the pattern that a recipe names; None for "".

    Raises:
        PassError: the text names none.
    """
    if not text:
        return None
    parts = re.fullmatch(r"(\d+)(x1|:(\d+))", text)
    numbers = [int(n) for n in (parts[1], parts[3] or 0)] if parts else [0, 0]
    if parts and not parts[3] and 2 <= numbers[0] <= LARGEST:
        return Blocks(numbers[0])
    if parts and parts[3] and 1 <= numbers[0] < numbers[1] <= LARGEST:
        return OfGroup(*numbers)
    raise PassError(
        f"pattern = {text!r} is not a pattern",
        remedy='Name blocks of output channels, "4x1", or N of M input channels, "1:8": '
        f"numbers up to {LARGEST}, N below M; or leave pattern out.",
    )


@dataclass(frozen=True)
class Patterned(SparseTraining):
    """Training pass whose masks may have a pattern.

    Attributes:
        pattern: blocks of output channels, ``4x1``, or N of M input channels, ``1:8``.
    """

    pattern: Annotated[
        str,
        Field(
            description='weights that are kept together: "4x1", four output channels at the same '
            'positions; "1:8", one of every eight input channels; empty: each weight by itself'
        ),
    ] = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        """Refuse an unknown pattern, and a density that it excludes."""
        super_init = getattr(super(), "__post_init__", None)
        if super_init:
            super_init()
        pattern = pattern_of(self.pattern)
        if pattern is None or pattern.density is None:
            return
        asked, fixed = self.asked_sparsity(), 1 - pattern.density
        if abs(asked - fixed) > ROUNDED:
            raise PassError(
                f"{self.pass_name()}: pattern {self.pattern} leaves {fixed:.7g} of the weights "
                f"zero, but sparsity = {asked:g}",
                remedy=f"Set sparsity = {fixed:.7g}, or choose another pattern.",
            )
        spread = getattr(self, "spread", "uniform")
        if spread != "uniform":
            raise PassError(
                f"{self.pass_name()}: pattern {self.pattern} has the same density in every layer, "
                f"but spread = {spread!r}",
                remedy='Set spread = "uniform", or choose blocks (pattern = "4x1").',
            )

    def restriction(self) -> Pattern | None:
        """Return the pattern; None if each weight is masked by itself."""
        return pattern_of(self.pattern)

    def kernels(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the kernels that may be masked and that the pattern divides."""
        return self.divided(module, super().kernels(module))

    def divided(self, module: nn.Module, kernels: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return those of the kernels that the pattern divides."""
        pattern = self.restriction()
        return pattern.fitting(module, kernels) if pattern else kernels

    def in_units(self, counts: Sequence[int], shapes: Sequence[Sequence[int]]) -> list[int]:
        """Return kept counts of kernels in whole units; their sum changes by one unit at most."""
        pattern = self.restriction()
        if pattern is None or pattern.unit == 1:
            return list(counts)
        sizes = [prod(shape) // pattern.unit for shape in shapes]
        units = exact_total([count / pattern.unit for count in counts], sizes)
        return [pattern.unit * count for count in units]

    def result(
        self,
        artifact: Artifact,
        module: nn.Module,
        method: MaskMethod,
        history: list[dict[str, Any]],
    ) -> tuple[Artifact, Remarks]:
        """See :meth:`SparseTraining.result`; remarks name layers that are whole."""
        made, remarks = super().result(artifact, module, method, history)
        pattern = self.restriction()
        if pattern is None:
            return made, remarks
        kernels = sparse_kernels(made.module, getattr(self, "dense", ()))
        divided = pattern.fitting(made.module, kernels)
        whole = [name.removesuffix(".weight") for name in kernels if name not in divided]
        note = f"pattern {pattern}" + (
            f"; whole, because it does not divide their channels: {', '.join(whole)}"
            if whole
            else ""
        )
        details = {**remarks.details, "pattern": self.pattern, "whole layers": whole}
        return made, replace(remarks, notes=(*remarks.notes, note), details=details)


@dataclass(frozen=True)
class PatternedSpread(Patterned, SpreadTraining):
    """Training pass with a sparsity that is spread over layers, and perhaps a pattern."""

    def counts(
        self, names: Sequence[str], shapes: Sequence[Sequence[int]], sparsity: float | None = None
    ) -> list[int]:
        """See :meth:`SpreadTraining.counts`; the counts are whole units of the pattern."""
        counts = super().counts(names, shapes, sparsity)
        return self.in_units(counts, shapes)
