"""Densities of layers: saved from one run, used by others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunec.errors import DamagedRecord, PassError, RunError
from prunec.files import write_text_atomic
from prunec.store.records import parse_record
from prunec.store.runs import RunFolder
from prunec.store.states import unfinished

# Missing file; invalid UTF-8 or JSON; brackets nested too deeply.
UNREADABLE = (OSError, ValueError, RecursionError)


def save_densities(run: RunFolder, path: Path) -> dict[str, float]:
    """Write ``{"run": name, "density": {layer: density}}`` of a trained run; return the densities.

    Raises:
        RunError: no pass of the run left masks, its record is damaged, or the file cannot be
            written.
    """
    for record in sorted(run.steps.glob("*/artifact.json"), reverse=True):
        density = _density_in(record)
        if density:
            text = json.dumps({"run": run.name, "density": density}, indent=1)
            write_text_atomic(path, text + "\n")
            return density
    if run.status not in ("trained", "exported"):
        raise unfinished(run)
    raise RunError(
        f"{run.path} has no sparse layers to take densities from",
        remedy="Train one with a pass that ends in masks: train-str, train-gmp, train-rigl, …",
    )


def load_densities(path: Path) -> dict[str, float]:
    """Return layer → density, in [0, 1]; see :func:`checked_densities`.

    Raises:
        PassError: the file is missing, or holds no densities.
    """
    remedy = "Write one with: prunec densities RUN -o densities.json"
    try:
        value = json.loads(path.read_text("utf-8"))
    except UNREADABLE as error:
        raise PassError(f"{path} cannot be read as densities: {error}", remedy=remedy) from None
    density = value.get("density") if isinstance(value, dict) else None
    if not isinstance(density, dict) or not density:
        raise PassError(f"{path} holds no densities: density is missing", remedy=remedy)
    return checked_densities(density, f"{path}: density", remedy)


def checked_densities(values: Mapping[str, Any], source: str, remedy: str = "") -> dict[str, float]:
    """Return layer → density in [0, 1]; a layer of density 0 keeps one weight.

    Raises:
        PassError: a value is not a number in [0, 1].
    """
    density: dict[str, float] = {}
    for layer, value in values.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number and 0 <= value <= 1):
            raise PassError(
                f"{source}.{layer} is {value!r}, not a number from 0 to 1", remedy=remedy
            )
        density[layer] = float(value)
    return density


def _density_in(record: Path) -> dict[str, float]:
    """Return the densities reported by the last pass of an artifact; empty if there are none."""
    try:
        for step in reversed(parse_record(record)["history"]):
            if step["details"].get("density"):
                return checked_densities(step["details"]["density"], "density")
    except (DamagedRecord, KeyError, TypeError, AttributeError, PassError) as error:
        raise RunError(
            f"{record} is damaged: {getattr(error, 'message', type(error).__name__)}",
            remedy="Take the densities of another run, or train this one again.",
        ) from None
    return {}
