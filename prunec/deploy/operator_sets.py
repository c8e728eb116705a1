"""Operator sets of targets, from ``operator_sets.toml`` beside this file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_ONNX = frozenset({".onnx", ".ort"})
_LITERT = ".tflite"
_FILE = Path(__file__).with_suffix(".toml")
_CONVERSION = "from-onnx"  # the only table that is no operator set


@dataclass(frozen=True)
class OperatorSet:
    """Operators of a target's runtime.

    Attributes:
        name: name of the set in a budget.
        suffix: suffix of the files whose operators it lists.
        what: target, in words.
        operators: names of the operators in such files.
        begins: suffix → how the names of operators begin that all belong to the target; such files
            are judged by this alone.
        converted: ONNX operator → operators that express it, for ONNX files that a converter turns
            into files of the target; empty for other targets.
    """

    name: str
    suffix: str
    what: str
    operators: frozenset[str]
    begins: Mapping[str, Sequence[str]] = field(default_factory=dict)
    converted: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def judges(self, suffix: str) -> bool:
        """Return whether it is known what the target lacks of a file with this suffix."""
        if suffix in _ONNX:
            return self.suffix in _ONNX or bool(self.converted)
        return suffix in {*self.begins, self.suffix}

    def missing(self, used: Iterable[tuple[str, str]], suffix: str) -> dict[str, list[str]]:
        """Return operator that the target lacks → names of the nodes that use it."""
        lacking: dict[str, list[str]] = {}
        for name, operator in used:
            if lacks := self._lacks(operator, suffix):
                lacking.setdefault(lacks, []).append(name)
        return lacking

    def _lacks(self, operator: str, suffix: str) -> str:
        """Return the operator, as far as the target lacks it; an empty text if it does not."""
        if suffix in self.begins:
            return "" if operator.startswith(tuple(self.begins[suffix])) else operator
        # File and target name operators alike; else a converter stands between.
        if suffix not in _ONNX or self.suffix in _ONNX:
            return "" if operator in self.operators else operator
        if operator not in self.converted:
            return operator
        needed = [each for each in self.converted[operator] if each not in self.operators]
        return f"{operator} ({', '.join(needed)})" if needed else ""


def operator_set(name: str) -> OperatorSet:
    """Return the operator set of a name that a budget may use."""
    tables = tomllib.loads(_FILE.read_text("utf-8"))
    table, operators = tables[name], frozenset(tables[name]["operators"])
    converted = tables[_CONVERSION] if table["suffix"] == _LITERT else {}
    begins = table.get("begins", {})
    return OperatorSet(name, table["suffix"], table["what"], operators, begins, converted)


def sets_for(suffix: str) -> list[str]:
    """Return the names of the operator sets that judge files with this suffix."""
    names = [name for name in tomllib.loads(_FILE.read_text("utf-8")) if name != _CONVERSION]
    return sorted(name for name in names if operator_set(name).judges(suffix))
