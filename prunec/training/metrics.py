"""The metrics file of a run: one JSON object a line, one line an epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunec.files import explained, write_text_atomic


def append_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """Add one line.

    Raises:
        RunError: the system refused (disk full, read-only, no permission, …).
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the objects of the file; a last line that a killed run left incomplete is skipped."""
    if not path.exists():
        return []
    objects = []
    for line in path.read_text("utf-8").splitlines():
        try:
            objects.append(json.loads(line))
        except ValueError:
            continue
    return objects


def rewrite_metrics(path: Path, method: str, history: Sequence[Mapping[str, Any]]) -> None:
    """Let ``history`` be all that ``method`` wrote: no epoch twice, none missing."""
    found = read_metrics(path)
    kept = [line for line in found if line.get("pass") != method]
    if found or history:
        lines = [json.dumps(line) + "\n" for line in [*kept, *history]]
        write_text_atomic(path, "".join(lines))
