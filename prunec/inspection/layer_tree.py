"""Layers as a tree of their modules, and the tree as a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rich.table import Table
from rich.text import Text

from prunec.cost import Cost
from prunec.inspection.layers import Layer
from prunec.tables import listing
from prunec.wording import percent_of

BILLION = 10**9  # from this total on, the table shows MACs in millions
USUAL = ("conv2d", "linear")  # operators that the table does not name


@dataclass
class Branch:
    """Module: its layer if it is one, and its children by name."""

    layer: Layer | None = None
    inside: dict[str, Branch] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers at or below this module."""
        own = (self.layer,) if self.layer else ()
        return own + tuple(x for branch in self.inside.values() for x in branch.layers)

    @property
    def macs(self) -> tuple[int, int]:
        """MACs of one sample: (now, dense)."""
        return sum(x.macs[0] for x in self.layers), sum(x.macs[1] for x in self.layers)

    @property
    def params(self) -> tuple[int, int]:
        """Kernel weights: (now, dense)."""
        return sum(x.params[0] for x in self.layers), sum(x.params[1] for x in self.layers)

    @property
    def nonzero_params(self) -> int:
        """Number of non-zero kernel weights."""
        return sum(x.nonzero_params for x in self.layers)

    def rows(self, indent: str = "") -> Iterator[tuple[str, Branch]]:
        """Yield (label with drawn branches, module) for all modules inside, top down.

        A module with a single child and no layer of its own shares its child's row.
        """
        last = len(self.inside) - 1
        for place, (name, branch) in enumerate(self.inside.items()):
            # A module with a single child shares its child's line.
            while branch.layer is None and len(branch.inside) == 1:
                [(below, branch)] = branch.inside.items()
                name = f"{name}.{below}"
            yield f"{indent}{'└─' if place == last else '├─'} {name}", branch
            yield from branch.rows(indent + ("   " if place == last else "│  "))


def layer_tree(layers: Iterable[Layer]) -> Branch:
    """Return the tree of layers; its root is the whole network."""
    root = Branch()
    for layer in layers:
        branch = root
        for part in layer.name.split("."):
            branch = branch.inside.setdefault(part, Branch())
        branch.layer = layer
    return root


def layers_table(title: str, layers: Iterable[Layer], now: Cost, dense: Cost) -> Table:
    """Return the tree of layers as a table: channels, cost, shares of the dense network.

    Args:
        title: title of the table.
        layers: layers with MACs or weights.
        now: cost of the network now.
        dense: cost of the dense network.
    """
    cut = now != dense
    tree = layer_tree(layers)
    sparse = tree.nonzero_params < tree.params[0]
    unit, digits = (10**6, 1) if dense.macs >= BILLION else (1, 0)
    names = ["in", "out", "MMACs" if digits else "MACs", "left" if cut else "share", "params"]
    names += ["zeros"] * sparse
    made = listing("layer", *names, numbers=names)
    made.title = title

    def add(label: Text | str, branch: Branch, params: int, style: str = "") -> None:
        layer, (macs, dense_macs) = branch.layer, branch.macs
        kernels = branch.params[0]
        cells = [
            label,
            left_of(layer.inputs if layer else None),
            left_of(layer.outputs if layer else None),
            f"{macs / unit:,.{digits}f}",
            percent_of(macs, dense_macs if cut else dense.macs),
            f"{params:,}",
            percent_of(kernels - branch.nonzero_params, kernels),
        ]
        # The last cell, zeros, exists only for a network that has some.
        made.add_row(*cells[: 1 + len(names)], style=style)

    for label, branch in tree.rows():
        text = Text(label, style="" if branch.layer else "bold")
        operator = branch.layer.operator if branch.layer else ""
        if operator not in USUAL and operator not in label:
            text.append(f" {operator}", style="dim")
        add(text, branch, branch.params[0])
    add("total, with biases and norms", tree, now.params, "bold")
    return made


def left_of(pair: tuple[int, int] | None) -> str:
    """Return ``kept/total``, or one number if nothing was removed."""
    if pair is None:
        return ""
    return f"{pair[0]:,}" if pair[0] == pair[1] else f"{pair[0]:,}/{pair[1]:,}"
