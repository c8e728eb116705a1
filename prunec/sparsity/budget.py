"""A budget: the density of every layer that a run ended with, for other runs to take over."""

from __future__ import annotations

import json
from pathlib import Path

from prunec.errors import PassError, RunError
from prunec.files import write_text_atomic
from prunec.runs import RunFolder


def save_budget(run: RunFolder, path: Path) -> dict[str, float]:
    """Write ``{"run": name, "density": {layer: density}}`` of a trained run; return the densities.

    Raises:
        RunError: no pass of the run left masks, or the file cannot be written.
    """
    for folder in sorted(run.steps.glob("*/artifact.json"), reverse=True):
        for step in reversed(json.loads(folder.read_text("utf-8"))["history"]):
            density = step["details"].get("density")
            if density:
                text = json.dumps({"run": run.name, "density": density}, indent=1)
                write_text_atomic(path, text + "\n")
                return dict(density)
    raise RunError(
        f"{run.path} has no sparse layers to take a budget from",
        remedy="Train one with a pass that ends in masks: train-str, train-gmp, train-rigl, …",
    )


def load_budget(path: Path) -> dict[str, float]:
    """Return layer → density, in (0, 1].

    Raises:
        PassError: there is no such file, or it holds no budget.
    """
    remedy = "Write one with: prunec budget RUN -o budget.json"
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise PassError(f"{path} cannot be read as a budget: {error}", remedy=remedy) from None
    density = value.get("density") if isinstance(value, dict) else None
    if not isinstance(density, dict) or not density:
        raise PassError(f"{path} holds no budget: density is missing", remedy=remedy)
    wrong = [k for k, v in density.items() if not isinstance(v, (int, float)) or not 0 <= v <= 1]
    if wrong:
        raise PassError(
            f"{path}: density.{wrong[0]} is {density[wrong[0]]!r}, a number from 0 to 1 is wanted",
            remedy=remedy,
        )
    return {layer: float(value) for layer, value in density.items()}
