"""Two runs beside each other: the keys of their recipes, their results, their environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunec.store.records import BEGAN, DIGEST
from prunec.store.runs import RunFolder
from prunec.store.states import last_metrics
from prunec.store.summaries import (
    json_table,
    last_steps,
    recipe_table,
    shipped_details,
    summary,
)

Pair = tuple[object, object]
MEASURED = ("loss", "test_accuracy", "test_miou", "train_accuracy", "train_miou", "seconds")
SHIPPED = ("accuracy", "miou", "bytes")


@dataclass(frozen=True)
class Difference:
    """What two runs differ in, and what came of each.

    Attributes:
        recipe: key → its values, where they differ; None for a key that is not there.
        results: figure → its values.
        environment: versions and machine, where they differ.
    """

    recipe: Mapping[str, Pair]
    results: Mapping[str, Pair]
    environment: Mapping[str, Pair]


def difference(a: RunFolder, b: RunFolder) -> Difference:
    """Return what two runs differ in; what cannot be read counts as not there."""
    environments = (json_table(run.path / "environment.json") for run in (a, b))
    first, second = ({k: v for k, v in e.items() if k not in (DIGEST, BEGAN)} for e in environments)
    return Difference(
        _differing(flat(recipe_table(a)), flat(recipe_table(b))),
        _paired(_results(a), _results(b)),
        _differing(first, second),
    )


def flat(value: object, prefix: str = "") -> dict[str, object]:
    """Return a document's values by their paths: ``pass[0].name``, ``train.epochs``."""
    match value:
        case dict():
            inner = [(f"{prefix}.{key}" if prefix else key, item) for key, item in value.items()]
        case list() if any(isinstance(item, dict) for item in value):
            inner = [(f"{prefix}[{index}]", item) for index, item in enumerate(value)]
        case _:
            return {prefix: value}
    return {path: leaf for name, item in inner for path, leaf in flat(item, name).items()}


def _results(run: RunFolder) -> dict[str, object]:
    found = summary(run)
    metrics, details, steps = last_metrics(run), shipped_details(run), last_steps(run)
    last: Mapping[str, Any] = steps[-1] if steps else {}
    latency = details.get("latency")
    made: dict[str, object] = {
        "state": found.state,
        "epoch": found.epoch,
        **{f"last epoch: {key}": metrics.get(key) for key in MEASURED},
        **{f"file: {key}": details.get(key) for key in SHIPPED},
        "file: latency / dense": latency.get("ratio") if isinstance(latency, dict) else None,
        "MACs": found.macs,
        "MACs / dense": found.macs / found.dense_macs if found.macs and found.dense_macs else None,
        "parameters": (last.get("params") or [None, None])[-1],
        "seconds of all passes": sum(float(s.get("seconds") or 0) for s in steps) or None,
    }
    return made


def _paired(a: Mapping[str, object], b: Mapping[str, object]) -> dict[str, Pair]:
    """Every figure that at least one of them has."""
    pairs = {key: (a.get(key), b.get(key)) for key in (*a, *(key for key in b if key not in a))}
    return {key: pair for key, pair in pairs.items() if pair != (None, None)}


def _differing(a: Mapping[str, object], b: Mapping[str, object]) -> dict[str, Pair]:
    return {key: (x, y) for key, (x, y) in _paired(a, b).items() if x != y}
