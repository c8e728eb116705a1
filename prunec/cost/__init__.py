"""Cost of a network: MACs and parameters, by two counters that share no rule.

One MAC is one multiply–accumulate of a weight (or of two activations in a matrix product) for one
sample. Batch norms, biases, activations, pooling and additions count 0. Papers that print this
number as "FLOPs" mean this unit.

See docs/glossary.md: MACs.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from prunec.tables import as_text, table

NUMBERS = ("MACs", "non-zero", "params", "non-zero ")
"""Columns of a cost table."""


@dataclass(frozen=True)
class LayerCost:
    """Cost of one operator: MACs and kernel weights, in total and non-zero."""

    name: str
    operator: str
    macs: int
    nonzero_macs: int
    params: int
    nonzero_params: int


@dataclass(frozen=True)
class Uncounted:
    """Operator with unknown MACs, and the reason."""

    name: str
    operator: str
    reason: str

    def __str__(self) -> str:
        return f"operator {self.operator} at {self.name}: {self.reason}"


@dataclass(frozen=True)
class Cost:
    """Cost of a network for one sample; ``params`` counts every parameter, norms included.

    See the glossary: [MACs](glossary.md#macs).

    Attributes:
        layers: cost of each operator with MACs.
        params: number of parameters.
        nonzero_params: number of non-zero parameters.
        uncounted: operators with unknown MACs; no sum includes them.
        unread_params: parameters that no output depends on, such as those of an auxiliary head; an
            exported file does not hold them.
        nonzero_unread_params: non-zero parameters among these.
    """

    layers: tuple[LayerCost, ...]
    params: int
    nonzero_params: int
    uncounted: tuple[Uncounted, ...] = ()
    unread_params: int = 0
    nonzero_unread_params: int = 0

    @property
    def macs(self) -> int:
        """MACs of one sample."""
        return sum(layer.macs for layer in self.layers)

    @property
    def nonzero_macs(self) -> int:
        """MACs of one sample with non-zero weights."""
        return sum(layer.nonzero_macs for layer in self.layers)

    def table(self, title: str = "Cost of one sample") -> Table:
        """Return a table with one row per layer, and the sums."""
        made = table(title, "layer", "operator", *NUMBERS, numbers=NUMBERS)
        for layer in self.layers:
            values = (layer.macs, layer.nonzero_macs, layer.params, layer.nonzero_params)
            made.add_row(layer.name, layer.operator, *(f"{value:,}" for value in values))
        for item in self.uncounted:
            made.add_row(item.name, item.operator, "?", "?", "", "")
        made.add_section()
        made.add_row("total", "", *self.totals)
        return made

    @property
    def totals(self) -> tuple[str, ...]:
        """Sums as text, in the order of ``NUMBERS``; "+ ?" marks uncounted operators."""
        more = " + ?" if self.uncounted else ""
        macs = (f"{value:,}{more}" for value in (self.macs, self.nonzero_macs))
        return (*macs, *(f"{value:,}" for value in (self.params, self.nonzero_params)))

    @property
    def remarks(self) -> tuple[Text, ...]:
        """One line per operator that no sum includes."""
        return tuple(Text(f"Not counted: {item}.") for item in self.uncounted)

    def __str__(self) -> str:
        return as_text(self.table(), *self.remarks)


UNKNOWN = "its MACs are not known"
"""Reason for an operator that no list contains."""


@dataclass(frozen=True)
class Weight:
    """Weights of an operator: names of the stored tensors, number of values, number of non-
    zeros.
    """

    sources: tuple[str, ...]
    size: int
    nonzero: int
    key: object  # equal for the same weights at every reader, so that they count once


ROLE = "prunec.role"
"""Key that marks an initialiser of a file as ``parameter``, ``buffer`` or ``constant``."""
