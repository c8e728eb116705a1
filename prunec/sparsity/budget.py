"""A budget: the density of every layer that a run ended with, for other runs to take over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from prunec.errors import PassError
from prunec.files import write_text_atomic


def save_budget(path: Path, density: Mapping[str, float], source: str) -> None:
    """Write ``{"run": source, "density": {layer: density}}``.

    Raises:
        RunError: the file cannot be written.
    """
    write_text_atomic(path, json.dumps({"run": source, "density": dict(density)}, indent=1) + "\n")


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
