"""Layers as the tree of the modules that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from prunec.inspection.network import Layer


@dataclass
class Branch:
    """A module: its layer if it is one, and the modules inside it by their own names."""

    layer: Layer | None = None
    inside: dict[str, Branch] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every layer at or under this module."""
        own = (self.layer,) if self.layer else ()
        return own + tuple(x for branch in self.inside.values() for x in branch.layers)

    @property
    def macs(self) -> tuple[int, int]:
        """MACs of one sample: what is left, and what the dense network has."""
        return sum(x.macs[0] for x in self.layers), sum(x.macs[1] for x in self.layers)

    @property
    def params(self) -> tuple[int, int]:
        """Kernel weights: what is left, and what the dense network has."""
        return sum(x.params[0] for x in self.layers), sum(x.params[1] for x in self.layers)

    @property
    def nonzero_params(self) -> int:
        """Kernel weights that are left and not zero."""
        return sum(x.nonzero_params for x in self.layers)

    def rows(self, indent: str = "") -> Iterator[tuple[str, Branch]]:
        """Yield what stands inside, top down: a label with its branches drawn, and the module.

        A module that holds one other and nothing else shares its line.
        """
        last = len(self.inside) - 1
        for place, (name, branch) in enumerate(self.inside.items()):
            while branch.layer is None and len(branch.inside) == 1:
                [(below, branch)] = branch.inside.items()
                name = f"{name}.{below}"
            yield f"{indent}{'└─' if place == last else '├─'} {name}", branch
            yield from branch.rows(indent + ("   " if place == last else "│  "))


def layer_tree(layers: Iterable[Layer]) -> Branch:
    """Return the tree whose root holds the whole network."""
    root = Branch()
    for layer in layers:
        branch = root
        for part in layer.name.split("."):
            branch = branch.inside.setdefault(part, Branch())
        branch.layer = layer
    return root
