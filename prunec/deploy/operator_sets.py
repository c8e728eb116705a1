"""Operator sets of targets, from ``operator_sets.toml`` beside this file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OperatorSet:
    """Operators of a target's runtime.

    Attributes:
        name: name of the set in a budget.
        suffix: suffix of the files that the set applies to.
        what: target, in words.
        operators: names of the operators in such files.
    """

    name: str
    suffix: str
    what: str
    operators: frozenset[str]

    def missing(self, used: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
        """Return operator that the target lacks → names of the nodes that use it."""
        lacking: dict[str, list[str]] = {}
        for name, operator in used:
            if operator not in self.operators:
                lacking.setdefault(operator, []).append(name)
        return lacking


def operator_set(name: str) -> OperatorSet:
    """Return the operator set of a name that a budget may use."""
    text = Path(__file__).with_suffix(".toml").read_text("utf-8")
    table = tomllib.loads(text)[name]
    return OperatorSet(name, table["suffix"], table["what"], frozenset(table["operators"]))
