"""What a network costs: MACs and parameters, by two counters that share no rule.

One MAC is one multiply–accumulate of a weight (or of two activations in a matrix product) for one
sample; batch norm, bias, activations, pooling and additions count nothing. Papers that print these
as "FLOPs" mean this unit.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from prunec.tables import as_text, table

NUMBERS = ("MACs", "non-zero", "params", "non-zero ")
"""The columns of a table of costs."""


@dataclass(frozen=True)
class LayerCost:
    """The cost of one operator: MACs and kernel weights, all and those of non-zero weights."""

    name: str
    operator: str
    macs: int
    nonzero_macs: int
    params: int
    nonzero_params: int


@dataclass(frozen=True)
class Uncounted:
    """An operator whose MACs are not known, and why."""

    name: str
    operator: str
    reason: str

    def __str__(self) -> str:
        return f"operator {self.operator} at {self.name}: {self.reason}"


@dataclass(frozen=True)
class Cost:
    """The cost of a network for one sample; ``params`` counts every parameter, norms included.

    ``uncounted`` names the operators whose MACs are not known: no sum holds them. ``unread_params``
    are those of the parameters that no output follows from, as of a head for training alone: an
    exported file does not hold them.
    """

    layers: tuple[LayerCost, ...]
    params: int
    nonzero_params: int
    uncounted: tuple[Uncounted, ...] = ()
    unread_params: int = 0
    nonzero_unread_params: int = 0

    @property
    def macs(self) -> int:
        """Multiply–accumulates of one sample."""
        return sum(layer.macs for layer in self.layers)

    @property
    def nonzero_macs(self) -> int:
        """Multiply–accumulates of one sample by weights that are not zero."""
        return sum(layer.nonzero_macs for layer in self.layers)

    def table(self, title: str = "Cost of one sample") -> Table:
        """Return a row for each layer, and the sums."""
        made = table(title, "layer", "operator", *NUMBERS, numbers=NUMBERS)
        for layer in self.layers:
            values = (layer.macs, layer.nonzero_macs, layer.params, layer.nonzero_params)
            made.add_row(layer.name, layer.operator, *(f"{value:,}" for value in values))
        for item in self.uncounted:
            made.add_row(item.name, item.operator, "?", "?", "", "")
        made.add_section()
        made.add_row("in all", "", *self.totals)
        return made

    @property
    def totals(self) -> tuple[str, ...]:
        """The sums as text, in the order of ``NUMBERS``; what is not counted is said."""
        more = " + ?" if self.uncounted else ""
        macs = (f"{value:,}{more}" for value in (self.macs, self.nonzero_macs))
        return (*macs, *(f"{value:,}" for value in (self.params, self.nonzero_params)))

    @property
    def remarks(self) -> tuple[Text, ...]:
        """A line for each operator that no sum holds."""
        return tuple(Text(f"Not counted: {item}.") for item in self.uncounted)

    def __str__(self) -> str:
        return as_text(self.table(), *self.remarks)


UNKNOWN = "its MACs are not known"
"""Why an operator that is in no list is not counted."""


@dataclass(frozen=True)
class Weight:
    """Weights of an operator: where they are stored, how many they are, how many are not zero."""

    sources: tuple[str, ...]
    size: int
    nonzero: int
    key: object  # the same for the same weights wherever they are read


ROLE = "prunec.role"
"""Key that marks an initialiser of a file as ``parameter``, ``buffer`` or ``constant``."""
