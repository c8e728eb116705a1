"""The operator sets of targets, as ``operator_sets.toml`` beside this file lists them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OperatorSet:
    """The operators that a target's runtime has.

    Attributes:
        name: of the set, as a budget names it.
        suffix: of the files whose operators these are.
        what: the target, in words.
        operators: their names, as they stand in such files.
    """

    name: str
    suffix: str
    what: str
    operators: frozenset[str]

    def missing(self, used: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
        """Return operator → names of the nodes that use it, of those that the target lacks."""
        found: dict[str, list[str]] = {}
        for name, operator in used:
            if operator not in self.operators:
                found.setdefault(operator, []).append(name)
        return found


def operator_set(name: str) -> OperatorSet:
    """Return the set of a name; one of those that a budget may name."""
    text = Path(__file__).with_suffix(".toml").read_text("utf-8")
    table = tomllib.loads(text)[name]
    return OperatorSet(name, table["suffix"], table["what"], frozenset(table["operators"]))
