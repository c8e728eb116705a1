"""Comparison of two runs: recipe keys, results, environment."""

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
    """Differences between two runs, and the results of both.

    Attributes:
        recipe: key → the two values, where they differ; None for a missing key.
        results: figure → the two values.
        environment: versions and machine → the two values, where they differ.
    """

    recipe: Mapping[str, Pair]
    results: Mapping[str, Pair]
    environment: Mapping[str, Pair]


def difference(a: RunFolder, b: RunFolder) -> Difference:
    """Compare two runs; a file that cannot be read counts as missing."""
    environments = (json_table(run.path / "environment.json") for run in (a, b))
    first, second = ({k: v for k, v in e.items() if k not in (DIGEST, BEGAN)} for e in environments)
    return Difference(
        _differing(flat(recipe_table(a)), flat(recipe_table(b))),
        _paired(_results(a), _results(b)),
        _differing(first, second),
    )


def flat(value: object, prefix: str = "") -> dict[str, object]:
    """Flatten a document: path → value, with paths like ``pass[0].name``, ``train.epochs``."""
    match value:
        case dict():
            inner = [(f"{prefix}.{key}" if prefix else key, item) for key, item in value.items()]
        case list() if any(isinstance(item, dict) for item in value):
            inner = [(f"{prefix}[{index}]", item) for index, item in enumerate(value)]
        case _:
            return {prefix: value}
    return {path: leaf for name, item in inner for path, leaf in flat(item, name).items()}


def _results(run: RunFolder) -> dict[str, object]:
    figures = summary(run)
    metrics, details, steps = last_metrics(run), shipped_details(run), last_steps(run)
    last: Mapping[str, Any] = steps[-1] if steps else {}
    uncut, latency = bool(details.get("uncut")), details.get("latency")
    ratio = latency.get("ratio") if isinstance(latency, dict) else None
    made: dict[str, object] = {
        "state": figures.state,
        "epoch": figures.epoch,
        **{f"last epoch: {key}": metrics.get(key) for key in MEASURED},
        **{f"file: {key}": details.get(key) for key in SHIPPED},
        "file: latency / dense": 1.0 if uncut else ratio,
        "MACs": figures.macs,
        "MACs / dense": figures.macs / figures.dense_macs
        if figures.macs and figures.dense_macs
        else None,
        "parameters": (last.get("params") or [None, None])[-1],
        "seconds of all passes": sum(float(s.get("seconds") or 0) for s in steps) or None,
    }
    return made


def _paired(a: Mapping[str, object], b: Mapping[str, object]) -> dict[str, Pair]:
    """Return the pairs of figures that at least one of the two has."""
    pairs = {key: (a.get(key), b.get(key)) for key in (*a, *(key for key in b if key not in a))}
    return {key: pair for key, pair in pairs.items() if pair != (None, None)}


def _differing(a: Mapping[str, object], b: Mapping[str, object]) -> dict[str, Pair]:
    return {key: (x, y) for key, (x, y) in _paired(a, b).items() if x != y}
