"""Summaries of runs, read from their files alone: no network is built, no code runs."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prunec.errors import RunError
from prunec.store.runs import RunFolder
from prunec.store.states import State, last_metrics, state_of
from prunec.tasks.quality import decisive


@dataclass(frozen=True)
class Summary:
    """A run in a few figures; None for a figure that is unknown.

    Attributes:
        name: name of the run.
        path: its folder.
        state: its state.
        failure: why it failed; empty where it did not.
        recipe: name of the recipe.
        epoch: last finished epoch of its last training pass.
        epochs: number of epochs of the recipe.
        quality: the figure that decides: ``accuracy`` or ``miou``.
        value: that figure in percent, of the exported file, else of the last epoch.
        macs: MACs per sample after the last pass.
        dense_macs: MACs per sample before the first pass.
        created: time of creation, ISO 8601.
        age: seconds since then.
    """

    name: str
    path: str
    state: State
    failure: str
    recipe: str
    epoch: int | None
    epochs: int | None
    quality: str | None
    value: float | None
    macs: int | None
    dense_macs: int | None
    created: str
    age: float | None


def summary(run: RunFolder) -> Summary:
    """Summarise a run; never raises, whatever its folder holds."""
    record = _record(run)
    metrics = last_metrics(run)
    quality, value = _quality(run, metrics)
    macs, dense = _macs(run)
    created = str(record.get("created", ""))
    return Summary(
        name=run.name,
        path=str(run.path),
        state=state_of(run),
        failure=str(record.get("failure", "")),
        recipe=str(record.get("recipe", "")),
        epoch=_whole(metrics.get("epoch")),
        epochs=_whole(_table(recipe_table(run), "train").get("epochs")),
        quality=quality,
        value=value,
        macs=macs,
        dense_macs=dense,
        created=created,
        age=_age(created),
    )


def recipe_table(run: RunFolder) -> dict[str, Any]:
    """Return a run's recipe as TOML tables; empty where it cannot be read."""
    try:
        return tomllib.loads((run.path / "recipe.toml").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def json_table(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty where it cannot be read."""
    try:
        table = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}


def shipped_details(run: RunFolder) -> Mapping[str, Any]:
    """Return the measurements of the first exported form; empty before an export."""
    # A later verification replaces the figures of the export.
    for path in (run.export.verified, run.export.report):
        forms = _table(json_table(path), "forms")
        for parity in forms.values():
            details = _table(parity, "details")
            if details:
                return details
    return {}


def last_steps(run: RunFolder) -> list[dict[str, Any]]:
    """Return the steps of the run's last artifact, in order; empty where there is none."""
    for path in sorted(run.steps.glob("*/artifact.json"), reverse=True):
        steps = json_table(path).get("history")
        if isinstance(steps, list) and steps and all(isinstance(step, dict) for step in steps):
            return steps
    return []


def _record(run: RunFolder) -> dict[str, Any]:
    try:
        return run.record
    except RunError:
        return json_table(run.path / "run.json")


def _quality(run: RunFolder, metrics: Mapping[str, object]) -> tuple[str | None, float | None]:
    for figures, prefix in ((shipped_details(run), ""), (metrics, "test_")):
        key = decisive(figures, prefix).key
        value = figures.get(prefix + key)
        if isinstance(value, int | float):
            return key, float(value)
    return None, None


def _macs(run: RunFolder) -> tuple[int | None, int | None]:
    steps = last_steps(run)
    try:
        return int(steps[-1]["macs"][1]), int(steps[0]["macs"][0])
    except (IndexError, KeyError, TypeError, ValueError):
        return None, None


def _age(created: str) -> float | None:
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds()
    except (ValueError, TypeError):
        return None


def _table(value: object, key: str) -> dict[str, Any]:
    table = value.get(key) if isinstance(value, Mapping) else None
    return table if isinstance(table, dict) else {}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
