"""Which runs there are, and which of them is meant."""

from __future__ import annotations

import json
import os
from pathlib import Path

from prunec.errors import RunError
from prunec.store.environment import prunec_version
from prunec.store.runs import RunFolder


def runs_root(option: Path | None = None) -> Path:
    """Return the folder of the runs: ``option``, or PRUNEC_RUNS, or ``runs``."""
    return option or Path(os.environ.get("PRUNEC_RUNS") or "runs")


def open_run(path: Path) -> RunFolder:
    """Return the run in the folder ``path``.

    Raises:
        RunError: no run is there, or another version of prunec wrote it.
    """
    if not (path / "run.json").is_file():
        raise RunError(
            f"{path} is not a run folder: it holds no run.json", remedy=runs_there(path.parent)
        )
    run = RunFolder(path)
    written, ours = _version_in(path / "run.json"), prunec_version()
    if written.split(".")[:2] != ours.split(".")[:2]:
        raise RunError(
            f"{path} was written by prunec {written}, this is prunec {ours}",
            remedy=f"Install that version (pip install 'prunec=={written}') or train anew: "
            f"prunec train {path / 'recipe.toml'}",
        )
    run.record  # noqa: B018 — what is damaged is told before anything else
    return run


def _version_in(path: Path) -> str:
    """The version that wrote a record, whatever its digest: another may take it otherwise."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        found = {}
    whole = isinstance(found, dict) and "prunec" in found
    return str(found["prunec"]) if whole else prunec_version()


def latest_run(root: Path, recipe_name: str | None = None) -> RunFolder:
    """Return the run that was created last, of all recipes or of one.

    Raises:
        RunError: there is none, or another version of prunec wrote it.
    """
    runs = [run for run in run_folders(root) if recipe_name in (None, run.recipe_name)]
    if not runs:
        of = f" of the recipe {recipe_name!r}" if recipe_name else ""
        raise RunError(
            f"there is no run{of} in {root}",
            remedy=f"Train one first: prunec train {recipe_name or 'gdp_mbv2'}",
        )
    return open_run(max(runs, key=lambda run: (sequence(run), run.name)).path)


def launched_run(root: Path) -> RunFolder | None:
    """Return the latest run that this very torchrun began, if there is one."""
    launch = os.environ.get("TORCHELASTIC_RUN_ID", "")
    runs = [run for run in run_folders(root) if run.record_or_empty.get("launch") == launch]
    return max(runs, key=sequence) if launch and runs else None


def run_folders(root: Path) -> list[RunFolder]:
    """Return the runs in ``root``, sorted by name, whoever wrote them."""
    return [RunFolder(path.parent) for path in sorted(root.glob("*/run.json"))]


def runs_there(root: Path) -> str:
    """Return the sentence that names the runs in ``root``."""
    names = [run.name for run in run_folders(root)]
    return f"Runs in {root}: {', '.join(names)}." if names else "Train one: prunec train gdp_mbv2"


def sequence(run: RunFolder) -> int:
    """Return the number of a run among all that were created; 0 where it is not known."""
    number = run.record_or_empty.get("sequence", 0)
    return number if isinstance(number, int) else 0
